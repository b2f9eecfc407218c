// Filter, order and view of the list of dimensions, which the table, the map and the page follow.
const { el, on, emit, viewState, whole, definition } = Sieve;
const find = (selector) => element.querySelector(selector);
const filter = find(".sv-filter");
const fault = find(".sv-fault");
const clear = find("[data-clear]");
const views = [...element.querySelectorAll("[name=sv-view]")];
const MAX_TEXT = 6000;
const COLUMNS = Sieve.MEASURES;
const NAMED_FIRST = "named"; // the default order: most frequent first, dimensions without a certain name last
const CONFIDENT = "Training images chose the names, validation images test them. A name is certain if, of an image that has the name and one that does not, the first is expected to activate the dimension more in at least 80 of 100 pairs.";
let table = null;
let columns = {};
let begun = false;
let order = [];
let marked = null; // filter by annotations
let at = { view: "table", colour: "images", colouring: "", sort: NAMED_FIRST, ranges: {}, only: null, find: "" };

// A dimension is listed if it passes all of these.
const wanted = {
  text: (i) => !at.find || ["name", "word", "label"].some((column) => table[column][i].toLowerCase().includes(at.find.toLowerCase()))
    || String(table.id[i]) === at.find.replace(/^#/, ""),
  ranges: (i) => Object.entries(at.ranges).every(([column, [low, high]]) =>
    table[column][i] !== null && table[column][i] >= low && table[column][i] <= high),
  map: (i) => !at.only || at.only.has(table.id[i]),
  marks: (i) => !marked || marked(table.id[i]),
};

// URL: `map:agreement sort:-auc images:0.01..0.2 only:3,17-20 find:a dog`.
function written(state) {
  const spans = [];
  for (const id of [...(state.only ?? [])].sort((a, b) => a - b)) {
    if (spans.length && spans.at(-1)[1] === id - 1) spans.at(-1)[1] = id;
    else spans.push([id, id]);
  }
  const open = (value) => (Number.isFinite(value) ? String(value) : "");
  return [
    state.view === "map" && `map:${state.colour}`,
    state.view === "items" && `items:${encodeURIComponent(state.colouring)}`,
    state.sort !== NAMED_FIRST && `sort:${state.sort}`,
    ...Object.entries(state.ranges).map(([column, [low, high]]) => `${column}:${open(low)}..${open(high)}`),
    spans.length && `only:${spans.map(([a, b]) => (a === b ? a : `${a}-${b}`)).join(",")}`,
    state.find && `find:${state.find}`,
  ].filter(Boolean).join(" ");
}
function read(text) {
  const state = { view: "table", colour: "images", colouring: "", sort: NAMED_FIRST, ranges: {}, only: null, find: "" };
  const [rest, ...words] = ` ${text}`.split(" find:");
  state.find = words.join(" find:").trim();
  for (const part of rest.split(" ").filter(Boolean)) {
    const [, key, value] = part.match(/^(\w+):(.*)$/) ?? [];
    if (key === "map") Object.assign(state, { view: "map", colour: Object.hasOwn(COLUMNS, value) ? value : "images" });
    if (key === "items") Object.assign(state, { view: "items", colouring: Sieve.decoded(value) });
    if (key === "sort" && [...Object.keys(COLUMNS), "id", "name", NAMED_FIRST, ...Object.keys(table.shown)].includes(value.replace(/^-/, ""))) state.sort = value;
    if (key === "only") state.only = readIds(value);
    if (Object.hasOwn(COLUMNS, key ?? "")) {
      const [low, high] = value.split("..").map((end) => (end === "" ? null : Number(end)));
      if (!Number.isNaN(low ?? 0) && !Number.isNaN(high ?? 0)) state.ranges[key] = [low ?? -Infinity, high ?? Infinity];
    }
  }
  return state;
}
function readIds(text) {
  const ids = new Set();
  for (const span of text.split(",")) {
    const [, first, last] = span.match(/^(\d{1,9})(?:-(\d{1,9}))?$/) ?? [];
    const end = Math.min(Number(last ?? first), table.id.length - 1);
    for (let id = Number(first); id <= end; id += 1) ids.add(id);
  }
  return ids.size ? ids : null;
}
let writing = 0;
function write() {
  clearTimeout(writing);
  writing = setTimeout(() => {
    const whole = written(at);
    const fits = whole.length <= MAX_TEXT;
    Sieve.setTabText("dimensions", fits ? whole : written({ ...at, only: null }));
    clear.title = fits ? "" : "Too many dimensions to store in the URL";
  }, 250);
}

const isText = (column) => typeof table[column]?.[0] === "string";
function arrange() {
  if (!table) return;
  const tests = Object.values(wanted);
  const by = at.sort.replace("-", "");
  const down = at.sort.startsWith("-");
  const column = table[by === NAMED_FIRST ? "images" : by];
  const least = (i) => column[i] ?? -Infinity;
  const guessed = table.name.map(Sieve.isGuess);
  const compare = isText(by) ? (a, b) => column[a].localeCompare(column[b]) : (a, b) => least(a) - least(b) || 0;
  order = table.id.map((_, i) => i).filter((i) => tests.every((test) => test(i)));
  const named = (a, b) => (["name", NAMED_FIRST].includes(by) ? guessed[a] - guessed[b] : 0);
  order.sort((a, b) => named(a, b) || (down || by === NAMED_FIRST ? -compare(a, b) : compare(a, b)) || a - b);
  showNamed(guessed);
  showCount();
  emit("listed", { ...at, table, columns, order });
}
function showNamed(guessed) {
  const n = guessed.filter((one) => !one).length;
  const left = guessed.length - n;
  find(".sv-named span").replaceChildren(`${whole(n)} of ${whole(guessed.length)} `, Sieve.term("named with confidence", CONFIDENT),
    left ? "; guesses are grey" : "");
}
function showCount() {
  const all = whole(table.id.length);
  const chosen = at.only && `${whole(at.only.size)} selected on the map${order.length < at.only.size ? `, ${whole(order.length)} listed` : ""}`;
  find("[role=status]").textContent = chosen ?? (order.length < table.id.length ? `${whole(order.length)} of ${all}` : `${all} dimensions`);
  clear.hidden = !chosen;
  const on = Object.keys(at.ranges).length;
  find(".sv-filters-on").textContent = on ? ` · ${on} on` : "";
}
function change(values) {
  Object.assign(at, values);
  fault.textContent = "";
  arrange();
  write();
}

// Filters.
const inputs = {};
function rangeRow([column, { name, share, about }]) {
  const scale = share ? 100 : 1;
  const input = (end, side) => el("input", {
    type: "number", step: share ? "0.1" : "0.01", min: column === "mono" ? "-1" : "0", max: String(scale),
    placeholder: end, "aria-label": `${name} ${end}${share ? ", in %" : ""}`, oninput: () => changed(side),
  });
  const changed = () => {
    const [low, high] = inputs[column].map(({ value }) => (value === "" ? null : Number((Number(value) / scale).toPrecision(6))));
    const ranges = { ...at.ranges };
    delete ranges[column];
    if (low !== null || high !== null) ranges[column] = [low ?? -Infinity, high ?? Infinity];
    change({ ranges });
  };
  inputs[column] = [input("from", 0), input("to", 1)];
  return el("div", { class: "sv-range", role: "group", "aria-label": name }, el("span", { title: about }, name),
    inputs[column][0], el("span", {}, "–"), inputs[column][1], el("span", {}, share ? "%" : ""));
}
function fillForm() {
  filter.value = at.find;
  for (const one of views) one.checked = one.value === at.view;
  element.closest(".sv-dimensions").classList.toggle("sv-mapped", at.view !== "table");
  for (const [column, pair] of Object.entries(inputs)) {
    const scale = COLUMNS[column].share ? 100 : 1;
    pair.forEach((input, side) => {
      const value = at.ranges[column]?.[side];
      input.value = Number.isFinite(value) ? Number((value * scale).toPrecision(6)) : "";
    });
  }
}
find("[data-reset]").addEventListener("click", () => {
  change({ ranges: {}, find: "", only: null });
  fillForm();
});
filter.addEventListener("input", () => change({ find: filter.value.trim() }));
filter.addEventListener("keydown", (event) => {
  if (event.key === "Enter") openMatch();
  if (event.key === "Escape" && !filter.value) filter.blur();
});
for (const one of views) one.addEventListener("change", () => { change({ view: one.value }); fillForm(); });
on("colour", (colour) => change({ colour }));
on("colouring", (colouring) => change({ colouring }));
on("sort", (by) => {
  const down = at.sort.replace("-", "") === by ? !at.sort.startsWith("-") : by !== "id" && !isText(by);
  change({ sort: `${down ? "-" : ""}${by}` });
});
on("mark-filter", (test) => {
  marked = test;
  arrange();
});
emit("index", find(".sv-marks-slot"));
on("choose", (ids) => change({ only: ids }));
find("[data-checkpoint]").addEventListener("click", () => emit("checkpoint-panel", null, { keep: false }));
clear.addEventListener("click", () => {
  change({ only: null });
  filter.focus();
});

// Moving around.
function openMatch() {
  reading = true;
  const [, digits] = filter.value.trim().match(/^#(\d+)$/) ?? [];
  if (digits === undefined) {
    if (order.length) Sieve.showDimension(table.id[order[0]]);
  } else if (Number(digits) < table.id.length) Sieve.showDimension(Number(digits));
  else fault.textContent = `There is no dimension ${digits}. Enter a number from 0 to ${table.id.length - 1}.`;
}
let shown = null;
let reading = false; // whether to move the focus to the opened page
// Whether the focused element was hidden, which cannot be the case before the first interaction.
const isFocusLost = () => Sieve.used && [document.body, null].includes(document.activeElement);
on("dimension", (dimension) => {
  const left = shown;
  shown = dimension;
  if (dimension !== null || left === null) return;
  setTimeout(() => { if (isFocusLost()) document.querySelector(`.sv-table tr[data-d="${left}"] a`)?.focus(); }, 100); // after the rows are drawn
});
on("page", () => {
  if (reading || isFocusLost()) document.querySelector(".sv-page h2")?.focus({ preventScroll: innerWidth > 900 });
  reading = false;
});
function step(by) {
  if (!order.length) return;
  const now = order.findIndex((i) => table.id[i] === shown);
  if (by === "random") {
    const others = order.filter((_, position) => position !== now);
    if (others.length) Sieve.showDimension(table.id[others[Math.floor(Math.random() * others.length)]]);
    return;
  }
  const next = now < 0 ? 0 : (now + by + order.length) % order.length;
  Sieve.showDimension(table.id[order[next]], { push: false });
}
on("walk", step);
find("[data-random]").addEventListener("click", () => step("random"));

// Single-key shortcuts outside of fields. Users of speech input can switch them off.
const KEYS = {
  j: () => step(1), ArrowRight: () => step(1), k: () => step(-1), ArrowLeft: () => step(-1), r: () => step("random"),
  n: () => document.querySelector(".sv-name-input")?.focus(),
  "/": () => filter.focus(), Escape: () => viewState.dimension !== null && Sieve.showDimension(null),
};
const STORAGE_KEY = "sieve-keys";
const shortcuts = find(".sv-keys input");
try { shortcuts.checked = localStorage.getItem(STORAGE_KEY) !== "off"; } catch { /* storage may be blocked */ }
shortcuts.addEventListener("change", () => {
  try { localStorage.setItem(STORAGE_KEY, shortcuts.checked ? "on" : "off"); } catch { /* as above */ }
});
const dropDowns = [...element.querySelectorAll("details")];
document.addEventListener("keydown", (event) => {
  if (viewState.tab !== "dimensions" || !begun || event.defaultPrevented || document.querySelector("dialog[open], :popover-open")) return;
  const open = dropDowns.find((drop) => drop.open);
  if (event.key === "Escape" && open) {
    open.open = false;
    open.firstElementChild.focus();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || !shortcuts.checked) return;
  if (event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable], [role=tablist]")) return;
  const act = Object.hasOwn(KEYS, event.key) && KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
document.addEventListener("pointerdown", ({ target }) => {
  for (const drop of dropDowns) if (!drop.contains(target)) drop.open = false;
});

function columnsMark() {
  const defined = (measure) => definition(`${Sieve.MEASURES[measure].name}:`, Sieve.MEASURES[measure].about);
  const mark = Sieve.term("?",
    definition("Images, captions:", "share in which the dimension is active."),
    ...Object.keys(table.shown).filter((key) => Sieve.MEASURES[key] && !["images", "texts"].includes(key)).map(defined));
  mark.classList.add("sv-icon");
  mark.setAttribute("aria-label", "What the columns mean");
  return mark;
}

// Load when the tab is first shown.
async function begin() {
  if (begun || viewState.tab !== "dimensions") return;
  begun = true;
  const loaded = await Sieve.call(server.sieve_table, null);
  if (loaded.error) {
    fault.textContent = loaded.error;
    begun = false;
    return;
  }
  table = loaded;
  delete table.shown[table.label.some(Boolean) ? "word" : "auc"];
  columns = Object.fromEntries(Object.entries(COLUMNS).filter(([column]) => table[column]?.some(Number.isFinite)));
  find(".sv-found").after(columnsMark(), ...Sieve.exportMenu("the table of dimensions", (kind) => Sieve.call(server.sieve_export_dimensions, { kind })));
  find(".sv-ranges").replaceChildren(...Object.entries(columns).map(rangeRow));
  restore(viewState.atlas);
  // On wide screens open a page beside the list: the clearest dimension, or the first of a filtered list.
  if (viewState.dimension === null && innerWidth > 900 && order.length) {
    const all = !written({ ...at, view: "table" });
    emit("dimension", (all ? table.first : null) ?? table.id[order[0]]);
  }
}
function restore(text) {
  at = read(text);
  if (!Object.hasOwn(columns, at.colour)) at.colour = "images";
  for (const column of Object.keys(at.ranges)) if (!(column in columns)) delete at.ranges[column];
  // Ignore the sort order of a link if its column is empty, such as the AUC without labels.
  if (table[at.sort.replace("-", "")]?.every((value) => value === null || value === "")) at.sort = NAMED_FIRST;
  fillForm();
  arrange();
}
on("atlas", (text) => {
  clearTimeout(writing);
  if (table && text !== written(at)) restore(text);
});
for (const message of ["tab", "atlas", "dimension"]) on(message, begin);
