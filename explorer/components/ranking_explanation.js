const { el, on, viewState, number } = Sieve;
const find = (selector) => element.querySelector(selector);
const SHOWN = 12;
const KEYS = ["q", "without", "item", "why-off", "strictness", "a", "b"];
const form = find("form");
const { q, without } = form.elements;
const queryImage = find(".sv-query-image");
const fault = find(".sv-fault");
const fromSearch = find(".sv-from-search");
const fromSlot = find(".sv-from-slot");
const PLAIN = { ...Sieve.EMPTY_QUERY, preview: "" };
let query = { ...PLAIN };
let pair = { a: "", b: "" };
let shown = pair; // the latest pair that could be explained
let chosen = false; // whether the user chose the query; otherwise it follows the search
let leftText = "";
let asked = ""; // filter of the shown ranking
const unfolded = new Set();

const ask = Sieve.latest(server.sieve_why, show);
function explain() {
  fault.textContent = "";
  if (viewState.tab === "inspect") saveState();
  offer();
  if (!(query.q || query.item || query.upload)) {
    find(".sv-why-body").hidden = true;
    return;
  }
  element.setAttribute("aria-busy", "true");
  const { preview, ...fields } = query;
  asked = viewState.where;
  ask({ ...fields, ...pair, where: asked });
}
function saveState() {
  const now = Sieve.unpack(viewState.inspect);
  for (const key of KEYS) delete now[key];
  if (chosen) {
    Object.assign(now, { q: query.item ? "" : query.q, without: query.without, item: query.item });
    now["why-off"] = Sieve.packOff(query.off);
    now.strictness = Sieve.packStrictness(query);
  }
  Sieve.setTabText("inspect", Sieve.pack({ ...now, ...pair }));
}
const fillQuery = () => Sieve.showQuery(form, query, query.preview, "images like this");
const { query: ofSearch, sameQuery: same } = Sieve;
function offer() {
  fromSearch.hidden = !Sieve.hasQuery() || same(query, ofSearch());
  fromSlot.hidden = !leftText || query.q === leftText;
}
function use(fields, { own = true, items = {} } = {}) {
  chosen = own;
  query = { ...PLAIN, ...fields };
  pair = { a: "", b: "", ...items };
  shown = { a: "", b: "" };
  fillQuery();
  return explain();
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const words = { q: queryImage.hidden ? q.value.trim() : "", without: without.value.trim() };
  if (queryImage.hidden && !words.q) {
    if (words.without) refuse(Sieve.ONLY_EXCLUDES);
    else fault.textContent = "";
    q.focus();
    return;
  }
  if (words.q === query.q && words.without === query.without) return explain();
  const { item, upload, preview, strictness, never, limit } = query;
  use({ ...words, ...(queryImage.hidden ? {} : { item, upload, preview }), strictness, never, limit }, { items: words.q === query.q ? pair : {} });
});
queryImage.querySelector("button").addEventListener("click", () => {
  query = { ...PLAIN, without: query.without };
  chosen = true;
  fillQuery();
  explain();
  q.focus();
});
fromSearch.addEventListener("click", () => use(ofSearch(), { own: false }));
fromSlot.addEventListener("click", () => use({ q: leftText }));

// The two items.
function choose(side, id) {
  pair = { ...pair, [side === "left" ? "a" : "b"]: id };
  unfolded.delete(side);
  explain();
}
function itemOf(side, item, choices) {
  const title = Sieve.titleOf(item);
  const id = el("input", { type: "text", "aria-label": `ID of the ${side} item`, placeholder: "or an item ID", maxlength: "16", spellcheck: "false", autocomplete: "off" });
  const take = el("form", { class: "sv-why-id", onsubmit: (event) => { event.preventDefault(); if (id.value.trim()) choose(side, id.value.trim()); } },
    id, el("button", { type: "submit", class: "sv-plain" }, "Use"));
  const fold = el("details", { open: unfolded.has(side), ontoggle: () => unfolded[fold.open ? "add" : "delete"](side) },
    el("summary", {}, `Choose another image for the ${side}`),
    el("ol", { class: "sv-why-choices" }, ...choices.map((one) => el("li", {}, el("button", {
      type: "button", class: one.rank ? "" : "sv-why-dropped", "aria-label": `${one.rank ? `Number ${one.rank}` : "Dropped out"}: ${one.captions[0] || one.id}`, title: one.captions[0] ?? "", onclick: () => choose(side, one.id),
    }, Sieve.image(one.id), el("span", {}, one.rank ? String(one.rank) : "out"))))), take);
  return el("div", { class: "sv-why-item" },
    el("button", { type: "button", class: "sv-example", "aria-label": title, onclick: () => Sieve.openItem({ id: item.id, captions: item.captions, labels: item.labels }) }, Sieve.image(item.id)),
    el("div", {}, el("h3", {}, side === "left" ? "Left" : "Right"), el("p", { class: "sv-why-rank" }, item.rank_text), el("p", {}, title), fold));
}

// Their contributions, side by side.
function partRow(part, largest) {
  const ahead = part.left - part.right;
  const bar = Sieve.bar(`${part.off ? "sv-bar-b" : "sv-bar-q"} ${ahead >= 0 ? "sv-to-left" : "sv-to-right"}`, Math.abs(ahead) / largest / 2);
  const sign = (value) => (value > 0 ? `+${number(value)}` : value < 0 ? number(value) : "–");
  return el("tr", {},
    el("th", { scope: "row" }, Sieve.dimensionLink(part.d, part.name, { title: part.name, class: part.off ? "sv-off-name" : "" }), part.off ? " off" : ""),
    el("td", {}, sign(part.left)), el("td", {}, sign(part.right)),
    el("td", { title: `${number(Math.abs(ahead))} in favour of the ${ahead >= 0 ? "left" : "right"}` }, el("span", { class: "sv-diverging" }, bar)));
}
function partsOf({ parts, left, right }) {
  const largest = Math.max(...parts.map((part) => Math.abs(part.left - part.right)), 1e-9);
  const column = (words, name = "") => el("th", { scope: "col", class: name }, words);
  const body = el("tbody", {}, ...parts.slice(0, SHOWN).map((part) => partRow(part, largest)));
  const rest = parts.slice(SHOWN);
  const sum = el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "score"), el("td", {}, number(left.score)), el("td", {}, number(right.score)), el("td", {})));
  const table = el("table", { class: "sv-why-table" }, el("colgroup", {}, el("col"), el("col"), el("col"), el("col")),
    el("thead", {}, el("tr", {}, column("Concept"), column("left"), column("right"),
      el("th", { scope: "col" }, el("span", { class: "sv-why-head" }, el("span", {}, "← left"), el("span", {}, "right →"))))), body, sum);
  const more = rest.length > 0 && el("button", { type: "button", class: "sv-more", onclick: () => {
    body.append(...rest.map((part) => partRow(part, largest)));
    body.children[SHOWN].querySelector("a").focus();
    more.remove();
  } }, `Show all ${parts.length}`);
  return [table, more].filter(Boolean);
}

function switches({ off }) {
  if (!off.length) return "All dimensions are on.";
  const how = query.never ? `hidden from a probability of ${Math.round(query.limit * 100)}%` : query.strictness === 0 ? "ignored" : query.strictness < 1 ? `pushed away at ${Math.round(query.strictness * 100)}%` : "pushed away";
  return `${off.length} dimension${off.length > 1 ? "s" : ""} off, ${how}.`;
}
function refuse(line) {
  fault.textContent = line;
  find(".sv-muted-text").textContent = "";
  find(".sv-notes").replaceChildren();
  find(".sv-why-body").hidden = true;
}
let arriving = false; // scroll only after the section is filled and the page is long enough
function show(answer) {
  element.removeAttribute("aria-busy");
  if (arriving) requestAnimationFrame(() => element.scrollIntoView());
  arriving = false;
  fault.textContent = "";
  if (answer.error) {
    pair = shown; // do not store an item that does not exist
    refuse(answer.error);
    return saveState();
  }
  shown = pair;
  Object.assign(query, { q: answer.q, without: answer.without });
  fillQuery();
  offer();
  find(".sv-muted-text").textContent = `${switches(answer)}${query.upload ? " Links do not include your image." : ""}`;
  find(".sv-notes").replaceChildren(...answer.notes.map((line) => el("li", {}, line)));
  find(".sv-why-body").hidden = false;
  const { why, choices } = answer;
  find(".sv-why-sentence").textContent = why ? why.sentence : "Fewer than two images share a dimension with this query, so there is nothing to compare.";
  find(".sv-why-items").replaceChildren(...(why ? [itemOf("left", why.left, choices), itemOf("right", why.right, choices)] : []));
  find(".sv-why-parts").replaceChildren(...(why ? partsOf(why) : []));
}

// The query follows the search until the user chooses another.
function follow() {
  const now = ofSearch();
  if (chosen || !Sieve.hasQuery() || same(query, now)) return viewState.where === asked ? offer() : explain();
  use(now, { own: false });
}
on("about", ({ can }) => {
  if (can.text_queries) return;
  for (const field of [q, without]) field.placeholder = "concept:17";
  find(".sv-muted-text").textContent = "Text queries are not available here. Search by an image or a concept first.";
});
on("inspect", (text) => {
  const now = Sieve.unpack(text);
  if (!KEYS.some((key) => now[key])) return;
  const { a = "", b = "" } = now;
  if (!now.q && !now.item) {
    pair = { a, b };
    return Sieve.hasQuery() ? use(ofSearch(), { own: false, items: pair }) : undefined;
  }
  use({
    q: now.q ?? "", without: now.without ?? "", item: now.item ?? "",
    off: Sieve.unpackOff(now["why-off"]), ...Sieve.unpackStrictness(now.strictness),
  }, { items: { a, b } });
});
on("inspect-left", (text) => { leftText = text; offer(); });
on("why", ({ a, b, ...fields }) => {
  const own = !same({ ...PLAIN, ...fields }, ofSearch());
  use(own ? fields : ofSearch(), { own, items: { a, b } });
  find("h2").focus({ preventScroll: true }); // continue keyboard navigation here
  arriving = true;
  element.scrollIntoView();
});
on("tab", (tab) => { if (tab === "inspect") follow(); });
on("filtered", () => { if (viewState.tab === "inspect") follow(); });
if (viewState.tab === "inspect") follow();
