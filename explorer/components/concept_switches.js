const { el, on, viewState, number, definition } = Sieve;
const find = (selector) => element.querySelector(selector);
const SHOWN = 12;
const groups = { off: find(".sv-group-off"), on: find(".sv-group-on") };
const hint = find(".sv-hint");
const bulk = find(".sv-bulk");
let proposed = [];
// On a phone, the switches for all concepts are beside the filter.
const phone = matchMedia("(max-width: 640px)");
const home = bulk.parentElement;
const placeBulk = () => (phone.matches && document.querySelector(".sv-bulk-slot") || home).append(bulk);
phone.addEventListener("change", placeBulk);
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
    push: `Off concepts lower a result's score${strictness < 1 ? `, at ${Math.round(strictness * 100)}%` : ""}.`,
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
  without ? definition("Proposed:", `these concepts match “${without}” more than the query. Each is switched with all its dimensions; open it to switch one.`) : null, el("p", {}, OFF));

// A toggle changes the checkboxes and the request, never the list.
const switches = Sieve.conceptSwitches(() => {
  showCounts();
  Sieve.change({ off: switches.off });
});
// Number of concepts of a group that are off or on, as its name says.
function showCounts() {
  for (const [kind, group] of Object.entries(groups)) {
    const boxes = [...group.querySelectorAll(".sv-dim > label input")];
    const same = boxes.filter((box) => box.checked === (kind === "on")).length; // a concept that is partly off counts as off
    const count = group.querySelector(".sv-count");
    if (count) count.textContent = same === boxes.length ? ` · ${same}` : ` · ${same} of ${boxes.length} ${kind}`;
  }
}
function setAll(isOn) {
  switches.setAll(isOn);
  showCounts();
  Sieve.change({ off: switches.off });
}
bulk.addEventListener("click", ({ target }) => {
  const choice = target.dataset.bulk;
  if (choice === "on") setAll(() => true);
  if (choice === "off") setAll(() => false);
  if (choice === "reset") setAll((d) => !proposed.includes(d));
});

function sourceOf(row) {
  if (row.q > 0 && row.b > 0) return "both";
  if (row.b > 0) return "without";
  return row.q > 0 ? "query" : "added";
}
function optionsOf(largest) {
  const amount = (row) => (row.q || row.b ? number(Math.max(row.q, row.b)) : "–");
  return (concept) => {
    const source = sourceOf(concept);
    const point = (dimensions) => () => Sieve.emit("point", dimensions, { keep: false });
    const all = concept.members.map((one) => one.d);
    return {
      amount, source, value: amount(concept),
      bars: [...(concept.q > 0 || source === "added" ? [["q", concept.q / largest]] : []), ...(concept.b > 0 ? [["b", concept.b / largest]] : [])],
      from: { class: `sv-source sv-from-${source}` }, activation: { title: "Activation in the query and in “without”" },
      onmouseenter: point(all), onmouseleave: point(null), onfocusin: point(all), onfocusout: point(null),
    };
  };
}

function showWelcome(welcome) {
  find(".sv-how").hidden = !welcome;
  find(".sv-switches").hidden = welcome;
  bulk.hidden = welcome;
  placeBulk();
}
on("dimensions", (answer) => {
  proposed = answer.proposed;
  const concepts = Sieve.conceptsOf(answer);
  const isFirst = ({ members }) => members.some((one) => proposed.includes(one.d) || (!one.q && !one.b));
  const largest = Math.max(...concepts.map((one) => Math.max(one.q, one.b)), 1e-9);
  const nodes = switches.fill(concepts, answer.off, optionsOf(largest));
  const pick = (first) => nodes.filter((_, at) => isFirst(concepts[at]) === first);
  const without = answer.terms.filter((term) => term.excluded).map((term) => term.label).join(", ");
  const why = proposed.length ? `, for “${without}”` : ", from its page";
  fill(groups.off, [offTerm(proposed.length ? without : ""), why], pick(true), 6);
  fill(groups.on, [viewState.item || viewState.upload ? "In the image" : `In “${answer.title}”`], pick(false), SHOWN);
  hint.hidden = concepts.length > 0;
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
  switches.clear();
  proposed = [];
  showWelcome(true);
}
on("samples", showNothing);
on("cleared", showNothing);
showStrictness(viewState);
on("about", ({ can }) => {
  if (!can.text_queries) element.querySelector(".sv-steps-how li").textContent = "Choose an image, then “more like this”, or enter a concept, such as concept:17.";
});
