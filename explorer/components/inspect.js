const { el, on, emit, viewState, number, percent, count, sentence } = Sieve;
const find = (selector) => element.querySelector(selector);
const SHOWN = 12;
const ITEM_ID = /^[0-9a-f]{16}$/;
const KEYS = ["left", "left-item", "right", "right-item", "off"];
const NOTHING = { text: "", item: "", upload: "", preview: "", known: false }; // known: the item exists
const fault = find(".sv-fault");
const list = find(".sv-one .sv-group");
const grid = find(".sv-one .sv-grid");
const slots = { left: { ...NOTHING }, right: { ...NOTHING } };
const tiles = new Map();
let off = null; // null: what “without” in a text proposes
let proposed = [];
let asked = ""; // filter of the shown results
let sample = null; // an item for the examples

// Slots.
const boxOf = (side) => find(`[data-side=${side}]`);
const isEmpty = (slot) => !(slot.text || slot.item || slot.upload);
function fillSlot(side, view = null) {
  const slot = slots[side];
  const box = boxOf(side);
  const pictured = Boolean((slot.item && slot.known) || slot.upload);
  const [queryImage, input] = [box.querySelector(".sv-query-image"), box.querySelector("input[type=text]")];
  queryImage.hidden = !pictured;
  input.hidden = pictured;
  input.value = slot.text || (pictured ? "" : slot.item);
  if (!pictured) return;
  queryImage.querySelector("img").src = slot.preview || Sieve.thumbnail(slot.item);
  queryImage.querySelector("span").textContent = slot.upload ? "your image" : view?.item?.captions[0] || slot.item;
}
function setSlot(side, slot) {
  slots[side] = { ...NOTHING, ...slot };
  off = null;
  fillSlot(side);
}
const typed = (text) => (ITEM_ID.test(text) ? { item: text } : { text });
function readTexts() {
  for (const side of ["left", "right"]) {
    if (slots[side].known || slots[side].upload) continue;
    const text = boxOf(side).querySelector("input[type=text]").value.trim();
    if (text !== (slots[side].text || slots[side].item)) setSlot(side, typed(text));
  }
}

const ask = Sieve.latest(server.sieve_inspect, show);
function inspect({ rows = true } = {}) {
  fault.textContent = "";
  saveState();
  emit("inspect-left", slots.left.text);
  const nothing = isEmpty(slots.left) && isEmpty(slots.right);
  find(".sv-inspect-empty").hidden = !nothing;
  find(".sv-try-examples").hidden = !nothing;
  if (nothing) {
    for (const part of [".sv-one", ".sv-pair"]) find(part).hidden = true;
    find(".sv-notes").replaceChildren();
    find(".sv-muted-text").textContent = "";
    return;
  }
  const sent = ({ text, item, upload }) => ({ text: item || upload ? "" : text, item, upload });
  element.setAttribute("aria-busy", "true");
  ask({ left: sent(slots.left), right: sent(slots.right), off, where: viewState.where, list: rows });
  asked = viewState.where;
}
function saveState() {
  const now = Sieve.unpack(viewState.inspect);
  for (const key of KEYS) delete now[key];
  for (const side of ["left", "right"]) Object.assign(now, { [side]: slots[side].text, [`${side}-item`]: slots[side].item });
  Sieve.setTabText("inspect", Sieve.pack({ ...now, off: Sieve.packOff(off) }));
}
find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  readTexts();
  inspect();
});

for (const side of ["left", "right"]) {
  const box = boxOf(side);
  Sieve.acceptImages(box, upload, {
    busy: (is) => (is ? element.setAttribute("aria-busy", "true") : element.removeAttribute("aria-busy")),
    fault: (line) => { fault.textContent = line; },
    take: ({ key, preview }) => {
      readTexts();
      setSlot(side, { upload: key, preview });
      inspect();
    },
  });
  box.querySelector(".sv-query-image button").addEventListener("click", () => {
    setSlot(side, NOTHING);
    readTexts();
    inspect();
    box.querySelector("input[type=text]").focus();
  });
}

// Rows of dimensions.
function fillGroup(group, rows, make = (row) => row) {
  const ul = group.querySelector("ul");
  group.querySelector(".sv-more")?.remove();
  const shown = rows.length > SHOWN + 1 ? SHOWN : rows.length;
  ul.replaceChildren(...rows.slice(0, shown).map(make));
  if (shown === rows.length) return;
  group.append(el("button", { type: "button", class: "sv-more", onclick: ({ target }) => {
    ul.append(...rows.slice(shown).map(make));
    ul.children[shown].querySelector("input, a")?.focus();
    target.remove();
  } }, `Show all ${rows.length}`));
}

// One slot filled: its dimensions and their results.
function showOne(one) {
  proposed = one.proposed;
  if (one.dimensions) fillConcepts(one);
  find(".sv-one .sv-summary").textContent = one.summary;
  const isOff = new Set(one.off);
  const { text, ...slot } = isEmpty(slots.left) ? slots.right : slots.left;
  const query = { ...Sieve.EMPTY_QUERY, q: slot.item || slot.upload ? "" : text, ...slot, off: one.off };
  grid.replaceChildren(...one.results.map((item, at) => {
    const next = (one.results[at + 1] ?? one.results[at - 1])?.id;
    return tileOf({ ...item, names: one.names, concept_of: one.concept_of, off: one.off, query, next }, isOff.size > 0);
  }));
  find(".sv-one .sv-empty").hidden = one.results.length > 0;
  find(".sv-one .sv-empty").textContent = isOff.size ? "No results with these dimensions off. Switch some on." : one.where ? "No image that passes the filter shares a dimension with it." : "No image shares a dimension with it.";
}
function tileOf(item, anyOff) {
  if (!tiles.has(item.id)) {
    if (tiles.size > 500) tiles.clear();
    tiles.set(item.id, Sieve.image(item.id)); // an image is loaded once
  }
  const title = Sieve.titleOf(item);
  const moved = item.before === null ? "new" : item.before - item.rank;
  const [sign, kind] = !anyOff ? ["", ""] : moved === "new" ? ["new", "entered"] : moved === 0 ? ["=", "same"] : moved > 0 ? [`▲${moved}`, "up"] : [`▼${-moved}`, "down"];
  return el("li", { class: "sv-tile", "data-id": item.id }, el("button", {
    type: "button", class: "sv-tile-open", title: item.file, "aria-label": `${item.rank}: ${title}`, onclick: () => Sieve.openItem(item),
  }, tiles.get(item.id), el("span", { class: "sv-meta" }, el("span", { class: "sv-rank" }, String(item.rank)),
    el("span", { class: `sv-badge sv-badge-${kind}` }, sign), el("span", { class: "sv-score" }, number(item.score))),
  el("span", { class: "sv-text" }, title)));
}
const switches = Sieve.conceptSwitches(switched);
function fillConcepts(one) {
  const amount = (row) => Math.max(row.q, row.b);
  const concepts = Sieve.conceptsOf(one).sort((a, b) => amount(b) - amount(a));
  const largest = Math.max(...concepts.map(amount), 1e-9);
  const n = concepts.reduce((total, { members }) => total + members.length, 0);
  find(".sv-one h2").textContent = n === concepts.length ? count(n, "active dimension") : `${count(concepts.length, "concept")} of ${count(n, "active dimension")}`;
  fillGroup(list, switches.fill(concepts, one.off, (row) => ({
    amount: (one) => number(amount(one)), value: number(amount(row)), source: row.b > row.q ? "without" : "",
    bars: [["q", row.q / largest], ["b", row.b / largest]].filter(([, size]) => size > 0),
  })));
}
function switched() {
  off = switches.off.sort((a, b) => a - b);
  if (String(off) === String([...proposed].sort((a, b) => a - b))) off = null;
  inspect({ rows: false });
}
find(".sv-one .sv-bulk").addEventListener("click", ({ target }) => {
  const { bulk } = target.dataset;
  if (!bulk) return;
  switches.setAll((d) => (bulk === "reset" ? !proposed.includes(d) : bulk === "on"));
  switched();
});

// Both slots filled: shared dimensions and the share of the similarity that each explains.
function pairItem(side, view) {
  const slot = slots[side];
  const picture = slot.upload ? el("img", { alt: "", src: slot.preview }) : slot.item ? Sieve.image(slot.item) : null;
  return el("div", { class: "sv-pair-item" }, picture, el("p", {}, slot.upload ? "your image" : view.item ? view.item.captions[0] || slot.item : `“${view.text}”`));
}
const fact = (name, value, title) => el("div", { title }, el("dt", {}, name), el("dd", {}, value));
function showPair(pair, views) {
  find(".sv-pair-head").replaceChildren(pairItem("left", views.left), el("dl", { class: "sv-facts" },
    fact("Cosine of codes", number(pair.cosine), "Cosine similarity of the two codes: the sum of the products below"),
    fact("Cosine of embeddings", pair.backbone === null ? "–" : number(pair.backbone), "Cosine similarity of the backbone's embeddings"),
    fact("Shared dimensions", String(pair.dimensions.shared), `Of ${pair.dimensions.left} on the left and ${pair.dimensions.right} on the right`)), pairItem("right", views.right));
  find(".sv-pair h2").textContent = pair.shared.length ? `Shared concepts · ${pair.shared.length}` : "No shared dimensions";
  find(".sv-pair .sv-hint").textContent = [
    pair.shared.length ? "Each bar is the product of the left and right activations, summed over the dimensions of a concept. The products add up to the cosine of the codes." : "The cosine of their codes is 0.",
    pair.backbone === null && "The codes are external, so there are no embeddings to compare.",
  ].filter(Boolean).join(" ");
  const largest = Math.max(...pair.shared.map((row) => row.product), 1e-9);
  fillGroup(find(".sv-pair .sv-group"), pair.shared, (row) => Sieve.conceptRow({ ...row, members: row.parts.map((part) => ({ ...part, label: part.name })) }, {
    bars: [["q", row.product / largest]], source: percent(row.share), from: { title: `${percent(row.share)} of the cosine of the codes` },
    value: row.parts.length > 1 ? number(row.product) : `${number(row.parts[0].left)} × ${number(row.parts[0].right)}`,
    member: (part) => el("li", { class: "sv-member" }, el("span", { class: "sv-dim-name" }, el("span", { class: "sv-name" }, Sieve.nameNode(part.name))),
      el("span", { class: "sv-value" }, `${number(part.left)} × ${number(part.right)}`), Sieve.dimensionLink(part.d, `#${part.d} ›`, { class: "sv-open" })),
  }));
  for (const side of ["left", "right"]) showOnly(side, pair[side]);
}
function showOnly(side, parts) {
  const box = find(`[data-only=${side}]`);
  box.querySelector("h3").textContent = `Only ${side} · ${parts.length}`;
  const largest = Math.max(...parts.map((part) => part.value), 1e-9);
  const ul = el("ul", { class: "sv-rated-list" });
  const group = el("div", {}, ul);
  box.querySelector("div").replaceChildren(group);
  fillGroup(group, parts, (part) => Sieve.rated(Sieve.dimensionLink(part.d, part.name), part.value / largest, part.value));
}

function show(answer) {
  element.removeAttribute("aria-busy");
  fault.textContent = answer.error ?? "";
  if (answer.error) {
    for (const part of [".sv-one", ".sv-pair"]) find(part).hidden = true;
    find(".sv-notes").replaceChildren();
    return;
  }
  for (const side of ["left", "right"]) {
    slots[side].known = Boolean(answer.slots[side]?.item);
    fillSlot(side, answer.slots[side]);
  }
  find(".sv-notes").replaceChildren(...answer.notes.map((line) => el("li", {}, line)));
  find(".sv-muted-text").textContent = slots.left.upload || slots.right.upload ? "Links to this view do not include your image." : "";
  find(".sv-one").hidden = !answer.one;
  find(".sv-pair").hidden = !answer.pair;
  if (answer.one) showOne(answer.one);
  else showPair(answer.pair, answer.slots);
}

// What the tab opens with.
on("about", ({ can, examples }) => {
  for (const pick of element.querySelectorAll(".sv-pick")) pick.hidden = !Sieve.canTake();
  if (!can.text_queries) {
    find(".sv-muted-text").textContent = sentence(can.no_text);
    for (const side of ["left", "right"]) boxOf(side).querySelector("input").placeholder = "concept:17, or an item ID";
  }
  const pill = (words, act) => el("button", { type: "button", class: "sv-pill", onclick: act }, words);
  const texts = can.text_queries ? examples.slice(0, 3).map(({ q }) => pill(q, () => { setSlot("left", { text: q }); inspect(); })) : [];
  const image = (right) => () => {
    setSlot("left", { item: sample.id, known: true });
    setSlot("right", right ? { text: sample.captions[0] ?? sample.labels[0] ?? "" } : NOTHING);
    inspect();
  };
  find(".sv-try-examples").replaceChildren(el("span", { class: "sv-try-label" }, "Try"), ...texts, pill("an image", image(false)),
    ...(can.text_queries ? [pill("an image and its caption", image(true))] : []));
});
on("samples", ([item]) => { sample = item ?? sample; });
on("dimensions", ({ results: [item] }) => { sample = item ?? sample; });
on("inspect", (text) => {
  const now = Sieve.unpack(text);
  if (!KEYS.some((key) => now[key])) return;
  for (const side of ["left", "right"]) {
    const item = now[`${side}-item`];
    setSlot(side, item ? { item } : typed((now[side] ?? "").trim()));
  }
  off = Sieve.unpackOff(now.off);
  inspect();
});
const refilter = () => { if (viewState.tab === "inspect" && viewState.where !== asked) inspect({ rows: false }); };
on("filtered", refilter);
on("tab", refilter);
emit("filter-slot");
on("inspect-item", (id) => {
  const side = isEmpty(slots.left) || !isEmpty(slots.right) ? "left" : "right";
  setSlot(side, { item: id, known: true });
  inspect();
});
