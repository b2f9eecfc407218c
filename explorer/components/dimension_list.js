const { el, on, viewState, number, definition } = Sieve;
const find = (selector) => element.querySelector(selector);
const SHOWN = 12;
const groups = { off: find(".sv-group-off"), on: find(".sv-group-on") };
const hint = find(".sv-hint");
const bulk = find(".sv-bulk");
let boxes = new Map();
let proposed = [];
find(".sv-skip").addEventListener("click", () => document.querySelector(".sv-results .sv-columns .sv-tile-open")?.focus());

// Strictness: three named settings, and a slider between the first two.
const slider = find("input[type=range]");
const words = [...element.querySelectorAll("input[type=radio]")];
const help = find(".sv-strictness-help");
const limits = find(".sv-limit select");
let hidden = ""; // what “never” hides, as the server describes it
function showStrictness({ strictness, never, limit }) {
  const word = never ? "never" : strictness === 0 ? "ignore" : "push";
  for (const one of words) one.checked = one.value === word;
  slider.value = never ? 1 : strictness;
  slider.style.setProperty("--part", `${slider.value * 100}%`);
  slider.parentElement.hidden = never;
  limits.parentElement.hidden = !never;
  if (![...limits.options].some((one) => Number(one.value) === limit)) {
    limits.append(el("option", { value: limit }, Sieve.percent(limit)));
  }
  for (const one of limits.options) one.selected = Number(one.value) === limit;
  help.classList.toggle("sv-says-hidden", never);
  help.textContent = {
    ignore: "Off dimensions have no effect.",
    push: `Off dimensions lower a result's score${strictness < 1 ? `, at ${Math.round(strictness * 100)}%` : ""}.`,
    never: hidden ? `Hides ${hidden}.` : "Nothing is off, so nothing is hidden.",
  }[word];
  slider.setAttribute("aria-valuetext", `${word}, ${strictness}`);
}
on("switches", showStrictness);
on("answer", ({ hides = "" }) => {
  hidden = hides;
  showStrictness(viewState);
});
limits.addEventListener("change", () => Sieve.change({ limit: Number(limits.value) }));
for (const one of words) {
  one.addEventListener("change", () => {
    const values = {
      ignore: { strictness: 0, never: false },
      push: { strictness: 1, never: false },
      never: { strictness: 1, never: true },
    };
    Sieve.change(values[one.value]);
  });
}
slider.addEventListener("input", () => Sieve.change({ strictness: Number(slider.value), never: false }));

find("legend").replaceChildren(Sieve.term("Strictness",
  el("p", {}, "How strongly dimensions that are off affect the results."),
  definition("ignore:", "they have no effect."),
  definition("push away:", "they lower the score of results that have them; the slider sets how much."),
  definition("never:", "images that probably have what is off are hidden. The probability is that captions or labels of an image mention it, estimated from the image on other images of this collection. Captions omit much, so a low limit hides more reliably.")));
const OFF = "Dimensions that are off do not raise a score; the strictness above sets how much they lower it. Check one to switch it on again.";
const offTerm = (without) => Sieve.term("Off",
  without ? definition("Proposed:", `these match “${without}” more than they match the query.`) : null, el("p", {}, OFF));

// A toggle changes the checkbox and the request, never the list.
function currentOff() {
  return [...boxes].filter(([, box]) => !box.checked).map(([d]) => d);
}
function showOff(row, off) {
  row.classList.toggle("sv-is-off", off);
  showCounts();
}
// Number of dimensions of a group that are off or on, as its name says.
function showCounts() {
  for (const [kind, group] of Object.entries(groups)) {
    const rows = [...group.querySelectorAll(".sv-dim")];
    const same = rows.filter((row) => row.classList.contains("sv-is-off") === (kind === "off")).length;
    const count = group.querySelector(".sv-count");
    if (count) count.textContent = same === rows.length ? ` · ${same}` : ` · ${same} of ${rows.length} ${kind}`;
  }
}
function toggled(box) {
  showOff(box.closest(".sv-dim"), !box.checked);
  Sieve.change({ off: currentOff() });
}
function setAll(isOff) {
  for (const [d, box] of boxes) {
    box.checked = !isOff(d);
    showOff(box.closest(".sv-dim"), !box.checked);
  }
  Sieve.change({ off: currentOff() });
}
bulk.addEventListener("click", ({ target }) => {
  const choice = target.dataset.bulk;
  if (choice === "on") setAll(() => false);
  if (choice === "off") setAll(() => true);
  if (choice === "reset") setAll((d) => proposed.includes(d));
});

function sourceOf(row) {
  if (row.q > 0 && row.b > 0) return "both";
  if (row.b > 0) return "without";
  return row.q > 0 ? "query" : "added";
}
function makeRow(row, largest, off) {
  const source = sourceOf(row);
  const box = el("input", { type: "checkbox", onchange: () => toggled(box) });
  box.checked = !off;
  boxes.set(row.d, box);
  const point = (d) => () => Sieve.emit("point", d, { keep: false });
  const bars = [...(row.q > 0 || source === "added" ? [["q", row.q / largest]] : []), ...(row.b > 0 ? [["b", row.b / largest]] : [])];
  return Sieve.dimensionRow(row, {
    box, isOff: off, bars, source, value: source === "added" ? "–" : number(Math.max(row.q, row.b)),
    from: { class: `sv-source sv-from-${source}` }, activation: { title: "Activation in the query and in “without”" },
    onmouseenter: point(row.d), onmouseleave: point(null), onfocusin: point(row.d), onfocusout: point(null),
  });
}

function showWelcome(welcome) {
  find(".sv-how").hidden = !welcome;
  find(".sv-switches").hidden = welcome;
}
on("dimensions", (answer) => {
  const off = new Set(answer.off);
  proposed = answer.proposed;
  const first = new Set([...proposed, ...answer.dimensions.filter((row) => !row.q && !row.b).map((row) => row.d)]);
  const largest = Math.max(...answer.dimensions.map((row) => Math.max(row.q, row.b)), 1e-9);
  boxes = new Map();
  const make = (rows) => rows.map((row) => makeRow(row, largest, off.has(row.d)));
  const offRows = answer.dimensions.filter((row) => first.has(row.d));
  const onRows = answer.dimensions.filter((row) => !first.has(row.d));
  const why = proposed.length ? `, for “${answer.without}”` : ", from its page";
  fill(groups.off, [offTerm(proposed.length ? answer.without : ""), why], make(offRows), 6);
  fill(groups.on, [viewState.item || viewState.upload ? "In the image" : `In “${answer.q}”`], make(onRows), SHOWN);
  hint.hidden = answer.dimensions.length > 0;
  showWelcome(false);
});

function fill(group, title, rows, shown) {
  group.hidden = rows.length === 0;
  group.querySelector("h3").replaceChildren(...title, el("span", { class: "sv-count" }));
  group.querySelector("ul").replaceChildren(...rows);
  showCounts();
  group.querySelector(".sv-more")?.remove();
  const rest = rows.slice(shown);
  if (rest.length < 2) return;
  for (const row of rest) row.hidden = true;
  const button = el("button", { type: "button", class: "sv-more", onclick: () => {
    for (const row of rest) row.hidden = false;
    rest[0].querySelector("input").focus();
    button.remove();
  } }, `Show all ${rows.length}`);
  group.append(button);
}
function showNothing() {
  boxes = new Map();
  proposed = [];
  showWelcome(true);
}
on("samples", showNothing);
on("cleared", showNothing);
showStrictness(viewState);
on("about", ({ can }) => {
  if (!can.text_queries) element.querySelector(".sv-steps-how li").textContent = "Choose an image, then “more like this”.";
});
