// Filter of the images by facets: chips below the query, and a panel of values with their counts.
const { el, on, emit, viewState, whole, count } = Sieve;
const { opener, chips, status, panel, input, fault, groups, passing, chipFault } = Sieve.parts(element, {
  opener: ".sv-filter-open", chips: ".sv-facets", status: "[role=status]", panel: ".sv-filter-panel",
  input: "input", fault: ".sv-filter-panel .sv-filter-fault", groups: ".sv-facet-groups", passing: ".sv-passing", chipFault: ".sv-chip-fault",
});
const KINDS = {
  label: "Label", split: "Split", file: "Folder", caption: "Caption word", concept: "Concept", tag: "Tag",
  map: "Map", id: "Images", search: "Best 100 for",
};
const SINGLE = ["split", "file"]; // an image has one value
const ENTERED = new RegExp(`^(not )?(${Object.keys(KINDS).join("|")}):.`, "i");
let active = [];
let concepts = []; // of the query
let total = 0;

const written = (facets) => facets.map((one) => one.facet).join(" ");
function words({ kind, value, above }) {
  if (kind === "map") return "selection";
  if (kind === "id") return count(value.split(",").length, "image");
  if (kind === "concept") return `${value} ≥ ${Math.round(above * 100)}%`;
  return value;
}
function draw() {
  const focused = [...chips.querySelectorAll("button")].indexOf(document.activeElement);
  chips.replaceChildren(...active.map((one) => {
    const others = active.filter((other) => other !== one);
    const name = `${KINDS[one.kind]} ${words(one)}`;
    const inverted = { ...one, facet: one.negated ? one.facet.replace(/^not /, "") : `not ${one.facet}` };
    return el("li", { class: `sv-query-term${one.negated ? " sv-query-term-off" : ""}` },
      el("button", {
        type: "button", class: "sv-chip-label", "aria-pressed": String(one.negated), "aria-label": `Exclude ${name}`,
        title: one.negated ? "Press to show these images" : "Press to exclude these images",
        onclick: () => apply(written(active.map((other) => (other === one ? inverted : other)))),
      }, el("span", {}, el("em", {}, `${one.negated ? "not " : ""}${KINDS[one.kind].toLowerCase()} `), words(one))),
      el("button", { type: "button", class: "sv-icon", "aria-label": `Remove filter ${name}`, title: "Remove", onclick: () => {
        opener.focus();
        apply(written(others));
      } }, "×"));
  }));
  chips.querySelectorAll("button")[focused]?.focus();
}

function toggle(one) {
  const same = active.find((other) => other.facet === one.facet);
  const kept = active.filter((other) => other !== same && !(SINGLE.includes(one.kind) && other.kind === one.kind && !other.negated));
  apply(written(same ? kept : [...kept, one]));
}
// The server checks a filter before it is applied, so that a faulty one changes nothing.
async function apply(where) {
  const report = await Sieve.call(server.sieve_facets, { where, find: "", concepts });
  const isOpen = panel.matches(":popover-open");
  fault.textContent = isOpen ? report.error ?? "" : "";
  chipFault.textContent = isOpen ? "" : report.error ?? "";
  if (report.error) return;
  input.value = "";
  show(report);
  status.textContent = active.length ? `${count(report.passing, "image")} ${report.passing === 1 ? "passes" : "pass"} the filter` : "No filter";
  Sieve.change({ where: report.where }, { push: true });
  if (!Sieve.hasQuery()) emit("samples", report.samples);
}
const refresh = Sieve.latest(server.sieve_facets, (report) => {
  fault.textContent = report.error ?? "";
  if (!report.error) show(report);
});
const ask = () => refresh({ where: viewState.where, find: ENTERED.test(input.value) ? "" : input.value.trim(), concepts });

function show(report) {
  active = report.active;
  draw();
  const pressed = new Set(active.map((one) => one.facet));
  passing.textContent = `${whole(report.passing)} of ${whole(total)} images pass.`;
  const focused = groups.contains(document.activeElement) ? document.activeElement.dataset.facet : null;
  groups.replaceChildren(...Object.keys(KINDS).flatMap((kind) => {
    const values = report.facets.filter((one) => one.kind === kind);
    return values.length ? [el("div", { class: "sv-facet-group", role: "group", "aria-label": KINDS[kind] }, el("h2", {}, KINDS[kind] + (kind === "concept" ? " (at least 50% likely)" : "")),
      ...values.map((one) => el("button", {
        type: "button", class: "sv-facet", "data-facet": one.facet, "aria-pressed": String(pressed.has(one.facet)), title: one.value, onclick: () => toggle(one),
      }, el("span", {}, one.value), el("span", {}, whole(one.items)))))] : [];
  }));
  if (!groups.children.length) groups.append(el("p", {}, input.value.trim() ? "No label, split, folder, caption word or concept has this text." : "There is nothing to filter by."));
  if (focused) [...groups.querySelectorAll("button")].find((node) => node.dataset.facet === focused)?.focus();
}

let typing = 0;
input.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(ask, 200);
});
input.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  clearTimeout(typing);
  const text = input.value.trim();
  if (ENTERED.test(text)) return apply([viewState.where, text].filter(Boolean).join(" "));
  if (text) groups.querySelector(".sv-facet")?.click();
});
panel.addEventListener("beforetoggle", () => { panel.style.visibility = "hidden"; });
panel.addEventListener("toggle", async ({ newState }) => {
  if (newState !== "open") return;
  fault.textContent = "";
  await ask();
  Sieve.putBeside(panel, opener, ["below", "above"]);
  panel.style.visibility = "";
  input.focus();
});

on("about", ({ items }) => { total = items; });
on("dimensions", (answer) => { concepts = answer.concepts.slice(0, 8).map((one) => one.d); });
on("where", (facets) => {
  active = facets;
  draw();
});
// A selection on the map replaces an earlier one.
on("filter-by", (facet) => apply(written([...active.filter((one) => one.kind !== "map" || one.negated), { facet }])));
// The filter is shared by the tabs that list images, and moves to the slot of the open one.
const filter = element.querySelector(".sv-item-filter");
const place = () => document.querySelector(`.sv-filter-slot[data-tab="${viewState.tab}"]`)?.append(filter);
on("filter-slot", place);
on("tab", place);
