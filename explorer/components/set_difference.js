// Which concepts distinguish two sets of images.
const { el, on, viewState, percent, count } = Sieve;
const find = (selector) => element.querySelector(selector);
const form = find("form");
const { left, right } = form.elements;
const [fault, summary, table, examples] = [".sv-fault", ".sv-sets-summary", ".sv-scroll-x", ".sv-try-examples"].map(find);
const KEYS = ["set", "other"];
let asked = { left: "", right: "" };
let wanted = false; // whether to scroll to the answer, which is below the other comparison

const ask = Sieve.latest(server.sieve_difference, show);
function compare(sets, { save = true } = {}) {
  asked = sets;
  [left.value, right.value] = [sets.left, sets.right];
  fault.textContent = "";
  if (save) {
    const now = Sieve.unpack(viewState.versus);
    for (const key of KEYS) delete now[key];
    Sieve.setTabText("compare", Sieve.pack({ ...now, set: sets.left, other: sets.right }));
  }
  if (!sets.left) return clear();
  element.setAttribute("aria-busy", "true");
  ask(sets);
}
function clear() {
  summary.textContent = "";
  table.hidden = true;
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  compare({ left: left.value.trim(), right: right.value.trim() });
});

function show(answer) {
  element.removeAttribute("aria-busy");
  fault.textContent = answer.error ?? "";
  if (answer.error) return clear();
  const both = answer.shared ? ` ${count(answer.shared, "image")} in both sets ${answer.shared === 1 ? "counts" : "count"} in neither.` : "";
  const found = answer.significant ? `${count(answer.significant, "concept")} of ${answer.tested} differ significantly` : `None of ${count(answer.tested, "concept")} differs significantly`;
  const shown = answer.concepts.length < answer.significant ? `; the ${answer.concepts.length} with the largest difference are shown` : "";
  summary.textContent = `${found} between ${count(answer.left, "image")} and ${count(answer.right, "image")}${shown} (false discovery rate 5%).${both}`;
  table.hidden = !answer.concepts.length;
  const heads = find("thead").querySelectorAll("th");
  for (const [at, name] of answer.names.entries()) {
    heads[at + 1].textContent = name;
    heads[at + 4].textContent = `strongest in ${name}`;
  }
  find("tbody").replaceChildren(...answer.concepts.map(rowOf));
  if (wanted) element.scrollIntoView({ block: "start" });
  wanted = false;
}
const rate = (value, kind) => el("td", { class: "sv-amount" }, el("span", {}, percent(value)), Sieve.bar(`sv-mini ${kind}`, value));
const points = (value) => `${value < 0 ? "−" : "+"}${Math.round(Math.abs(value) * 100)}`;
function rowOf(one) {
  const pictures = (ids) => el("td", {}, el("div", { class: "sv-sets-examples" }, ...ids.map((id) => el("button", {
    type: "button", class: "sv-example", "aria-label": "Open the image", onclick: () => Sieve.openItem({ id, captions: [], labels: [] }),
  }, Sieve.image(id)))));
  return el("tr", {}, el("th", { scope: "row" }, Sieve.dimensionLink(one.concept, one.name)),
    rate(one.left_rate), rate(one.right_rate),
    el("td", { class: "sv-sets-gap", title: `95% interval: ${points(one.low)} to ${points(one.high)} percentage points; q = ${one.q.toPrecision(2)}` },
      points(one.difference), el("span", {}, ` ${points(one.low)} to ${points(one.high)}`)),
    pictures(one.examples.left), pictures(one.examples.right));
}

let offered = false;
async function offer() {
  if (viewState.tab !== "compare") return;
  const search = Sieve.hasQuery() && viewState.q ? [[`search:${viewState.q}${viewState.without ? ` without ${viewState.without}` : ""}`, ""]] : [];
  if (offered && !search.length) return;
  offered = true;
  const answer = await Sieve.call(server.sieve_set_examples, null);
  const pairs = [...search, ...(answer.error ? [] : answer.examples)];
  examples.replaceChildren(...(pairs.length ? [el("span", { class: "sv-try-label" }, "Try")] : []), ...pairs.map(([one, two]) => el("button", {
    type: "button", class: "sv-pill", onclick: () => compare({ left: one, right: two }),
  }, one, el("span", { class: "sv-sets-and" }, " and "), two || "everything else")));
}
on("versus", (text) => {
  const now = Sieve.unpack(text);
  if (now.set && (now.set !== asked.left || (now.other ?? "") !== asked.right)) compare({ left: now.set, right: now.other ?? "" }, { save: false });
});
on("tab", offer);
on("show-sets", () => { wanted = true; });
offer();
