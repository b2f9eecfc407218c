const { el, on, emit, viewState, number } = Sieve;
const find = (selector) => element.querySelector(selector);
const { grid, dense, dropped, droppedHint, summary, empty, compare, toFigure } = Sieve.parts(element, {
  grid: ".sv-columns > .sv-grid", dense: ".sv-dense", dropped: ".sv-dropped-out", droppedHint: ".sv-dropped-out-hint",
  summary: ".sv-summary", empty: ".sv-empty", compare: ".sv-switch input", toFigure: ".sv-to-figure",
});
const tiles = new Map();
const calm = matchMedia("(prefers-reduced-motion: reduce)");

compare.addEventListener("change", () => Sieve.change({ compare: compare.checked }));
toFigure.addEventListener("click", () => Sieve.showFigure(Sieve.row()));
const exports = [];
on("about", () => {
  if (!exports.length) exports.push(...Sieve.exportMenu("results", (kind) => Sieve.call(server.sieve_export_results, { ...viewState, kind })));
  find(".sv-results-actions").append(...exports);
});
emit("results-head", find(".sv-results-actions"));
const showExport = (shown) => { for (const part of exports) part.hidden = !shown; };
on("switches", (now) => { compare.checked = now.compare; });

const { titleOf } = Sieve;
const copiesOf = (item) => { const n = item.copies?.length ?? 0; return n ? `+${n} ${n === 1 ? "copy" : "copies"}` : ""; };

// Each item has one tile that is reused, so its image is loaded once.
function makeTile(id) {
  const parts = {
    image: Sieve.image(id),
    rank: el("span", { class: "sv-rank" }),
    badge: el("span", { class: "sv-badge" }),
    copies: el("span", { class: "sv-copies", title: "The collection contains this picture more than once" }),
    score: el("span", { class: "sv-score" }),
    text: el("span", { class: "sv-text" }),
    chips: el("span", { class: "sv-chips" }),
  };
  const open = el("button", { type: "button", class: "sv-tile-open", onclick: () => Sieve.openItem(tile.shown) },
    parts.image, el("span", { class: "sv-meta" }, parts.rank, parts.badge, parts.copies, parts.score), parts.text, parts.chips);
  const like = el("button", {
    type: "button", class: "sv-like", title: "More like this", onclick: () => Sieve.search({ item: id }),
  }, "more like this");
  const node = el("li", { class: "sv-tile", "data-id": id }, open, like);
  parts.image.loading = "eager"; // a lazy image is requested one frame later
  const tile = { node, open, like, parts, shown: null };
  return tile;
}

const BADGES = {
  none: ["", ""],
  same: ["=", "same rank"],
  entered: ["new", "entered the results"],
};
function badgeOf(item, anyOff) {
  if (!anyOff) return ["none", ...BADGES.none];
  if (item.before === null) return ["entered", ...BADGES.entered];
  const up = item.before - item.rank;
  if (up === 0) return ["same", ...BADGES.same];
  return up > 0 ? ["up", `▲${up}`, `up ${up}`] : ["down", `▼${-up}`, `down ${-up}`];
}
function chip({ concept, value, isOff, parts }, names) {
  const count = parts.length > 1 ? `, ${parts.length} dimensions` : `, dimension ${parts[0][0]}`;
  return el("span", { class: `sv-chip${isOff ? " sv-chip-off" : ""}`, title: `${names[concept]}${count}${isOff ? ", off" : ""}` },
    el("span", {}, Sieve.nameNode(names[concept].split(" · ")[0])), ` ${number(value)}`);
}
// Such as “has a beach: 83%”; the probability is unknown for some concepts.
const share = (probability) => (probability === null ? "" : `${Math.round(probability * 100)}%`);
const has = ([name, probability]) => `has ${name}${probability === null ? "" : `: ${share(probability)}`}`;
const isLikely = (least) => ([, probability]) => probability === null || probability >= least;
function presenceChip([name, probability]) {
  return el("span", { class: "sv-chip sv-chip-has", title: has([name, probability]) },
    el("span", {}, `has ${name}`), probability === null ? "" : `: ${share(probability)}`);
}
function chipsOf(item, names, off) {
  const earned = Sieve.sumByConcept(item.parts, item.concept_of, off).filter(({ value, isOff }) => value > 0 && !isOff).slice(0, 3);
  // “never” claims that a result does not have what is off.
  const present = viewState.never && item.rank ? [] : item.presence.filter(isLikely(0.05)).slice(0, 2);
  return [...present.map(presenceChip), ...earned.map((sum) => chip(sum, names))]; // few chips fit
}

// Only what differs is written, because the browser lays out again whatever is written.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
function fillTile(tile, item, names, off) {
  const { parts } = tile;
  const [kind, sign, spoken] = badgeOf(item, off.size > 0);
  tile.shown = { ...item, names, off: [...off] };
  write(parts.rank, String(item.rank || ""));
  write(parts.badge, sign);
  parts.badge.className = `sv-badge sv-badge-${kind}`;
  write(parts.score, item.score === undefined ? "" : number(item.score));
  write(parts.text, titleOf(item));
  write(parts.copies, copiesOf(item));
  tile.open.title = item.file;
  const chips = el("span", { class: "sv-chips" }, ...(item.parts ? chipsOf(item, names, off) : []));
  if (!parts.chips.isEqualNode(chips)) parts.chips.replaceChildren(...chips.childNodes);
  tile.node.classList.toggle("sv-is-new", kind === "entered");
  const where = item.rank ? `${item.rank}${spoken ? `, ${spoken}` : ""}: ` : "";
  const copies = copiesOf(item);
  tile.open.setAttribute("aria-label", `${where}${titleOf(item)}${copies ? `, ${copies}` : ""}`);
  tile.like.setAttribute("aria-label", `More like ${titleOf(item)}`);
}

// Put tiles in order. Those that stay in place are not moved in the document, which would lay them out again.
function arrange(nodes) {
  const kept = new Set(nodes);
  for (const node of [...grid.children]) if (!kept.has(node)) node.remove();
  for (const [at, node] of nodes.entries()) if (grid.children[at] !== node) grid.insertBefore(node, grid.children[at] ?? null);
}
// Animate tiles from their previous position in the grid; new ones fade in. Positions are read once, after
// everything is written.
let places = new Map();
let width = 0;
function animate() {
  const before = width === grid.clientWidth ? places : new Map();
  places = new Map([...grid.children].map((node) => [node, [node.offsetLeft, node.offsetTop]]));
  width = grid.clientWidth;
  if (calm.matches || !before.size || document.visibilityState !== "visible") return;
  for (const [node, [left, top]] of places) {
    const was = before.get(node);
    if (!was) node.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 160 });
    else if (was[0] !== left || was[1] !== top) {
      node.animate([{ transform: `translate(${was[0] - left}px, ${was[1] - top}px)` }, { transform: "none" }], { duration: 200, easing: "ease-out" });
    }
  }
}

function show(items, names, off) {
  const nodes = items.map((item, at) => {
    if (!tiles.has(item.id)) tiles.set(item.id, makeTile(item.id));
    const tile = tiles.get(item.id);
    fillTile(tile, { ...item, next: (items[at + 1] ?? items[at - 1])?.id }, names, off);
    return tile.node;
  });
  arrange(nodes);
  if (tiles.size > 500) {
    const ids = new Set(items.map((item) => item.id));
    for (const id of tiles.keys()) if (!ids.has(id)) tiles.delete(id);
  }
}

function showDropped(items, names, off, results) {
  dropped.querySelector("ol").replaceChildren(...items.map((item) => {
    const likely = item.presence.filter(isLikely(0.2));
    const had = likely.map(has);
    const why = likely.length ? `${likely[0][0].replace(/^(an?|the|some) /i, "")} ${share(likely[0][1])}` : "overtaken";
    return el("li", {}, el("button", {
      type: "button", class: "sv-dropped", "aria-label": `Was number ${item.before}, ${had.length ? had.slice(0, 3).join(", ") : why}: ${titleOf(item)}`, title: [had[0], titleOf(item)].filter(Boolean).join(" · "),
      onclick: () => Sieve.openItem({ ...item, names, off: [...off], next: results[item.before - 1]?.id }),
    }, Sieve.image(item.id), el("span", { class: had.length ? "sv-off-name" : "" }, why)));
  }));
  droppedHint.hidden = items.length > 0;
  droppedHint.textContent = off.size
    ? "No image dropped out; only the order may have changed."
    : "Images that drop out when you turn dimensions off appear here.";
}

function showDense(answer) {
  dense.hidden = !answer.dense;
  find(".sv-columns").classList.toggle("sv-comparing", Boolean(answer.dense));
  if (!answer.dense) return;
  const shared = new Set(answer.results.map((item) => item.id));
  const isText = answer.q && answer.terms.every((term) => term.kind === "text" && term.weight === 1) && answer.terms.filter((term) => !term.excluded).length === 1;
  const summed = isText ? `“${answer.q} without ${answer.without}”, read as plain text` : "sum of the terms' embeddings";
  const how = answer.terms.length > 1 && (isText || answer.q) ? summed : "dense embeddings without exclusion";
  const both = answer.dense.filter((item) => shared.has(item.id)).length;
  dense.querySelector("p").textContent = `${how} · ${both} of ${answer.dense.length} in both`;
  dense.querySelector("ol").replaceChildren(...answer.dense.map((item) => {
    const tile = makeTile(item.id);
    fillTile(tile, { ...item, parts: null }, {}, new Set());
    if (shared.has(item.id)) {
      tile.parts.badge.textContent = "in both";
      tile.parts.badge.className = "sv-badge sv-badge-both";
    }
    return tile.node;
  }));
}

// Load the images that are likely to enter the results when a concept is switched off, one at a time, so
// that they delay nothing else.
let waiting = [];
let preloading = 0;
function preload() {
  if (!waiting.length || element.hasAttribute("aria-busy")) return;
  const [next, ...rest] = waiting;
  waiting = rest;
  const image = Sieve.image(next);
  image.loading = "eager";
  image.onload = preload;
  image.onerror = preload;
}
on("answer", (answer) => {
  if (answer.next && !navigator.connection?.saveData) waiting = answer.next;
  clearTimeout(preloading);
  preloading = setTimeout(preload, 300);
  const off = new Set(answer.off);
  summary.textContent = answer.summary;
  find(".sv-switch").hidden = !Sieve.about.can.dense_search;
  showExport(answer.results.length > 0);
  toFigure.hidden = !Sieve.row(); // a recipe cannot contain an uploaded image
  const withConcepts = (items) => items.map((item) => ({ ...item, concept_of: answer.concept_of, terms: answer.terms, shares: answer.shares }));
  show(withConcepts(answer.results), answer.names, off);
  showDropped(withConcepts(answer.left), answer.names, off, answer.results);
  dropped.hidden = answer.results.length === 0 && answer.left.length === 0;
  showDense(answer);
  empty.hidden = answer.results.length > 0;
  empty.textContent = answer.all_off
    ? "All dimensions of the query are off. Switch at least one on to see results."
    : answer.left.length
    ? "No results with these dimensions off. Switch some on, or choose “push away” instead of “never”."
    : "No image shares a dimension with the query. Try simpler words, such as the names of objects.";
  animate();
});
// Hovering over a concept highlights the results that have it.
let pointing = 0;
on("point", (dimensions) => {
  clearTimeout(pointing);
  pointing = setTimeout(() => {
    let any = false;
    for (const { node, shown } of tiles.values()) {
      const has = dimensions !== null && Boolean(shown?.parts?.some(([one]) => dimensions.includes(one)));
      node.classList.toggle("sv-pointed", has);
      any ||= has && node.isConnected;
    }
    grid.classList.toggle("sv-pointing", any);
  }, dimensions === null ? 0 : 150);
});
function showAlone(words) {
  summary.textContent = words;
  find(".sv-switch").hidden = true;
  toFigure.hidden = true;
  showExport(false);
  dropped.hidden = true;
  dense.hidden = true;
  empty.hidden = true;
}
on("cleared", () => {
  showAlone("");
  show([], {}, new Set());
  animate();
});
on("samples", (items) => {
  showAlone("Images from this collection");
  show(items.map((item) => ({ ...item, before: null })), {}, new Set());
  animate();
});
on("busy", (busy) => element.toggleAttribute("aria-busy", busy));
// Results of an earlier query are dimmed below an error.
on("outdated", (is) => {
  element.classList.toggle("sv-outdated", is);
  if (is) summary.textContent = "Previous results, from before the error";
});
