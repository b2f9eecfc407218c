const { el, on, emit, number, percent, whole } = Sieve;
const { body, head, scroll, space, grid, none } = Sieve.parts(element, {
  body: "tbody", head: "thead tr", scroll: ".sv-scroll", space: ".sv-rows", grid: "table", none: ".sv-none",
});
const FORMATS = { text: String, whole, number, score: number, share: percent };
const AHEAD = 60;
let table = null;
let order = [];
let drawn = { from: 0, to: 0 };
let rowHeight = 36;
let chosen = null;

const most = {}; // value that fills the bar, for columns with bars
function cell(key, format, i) {
  const value = table[key][i];
  const text = value === null ? "" : FORMATS[format](value);
  if (!most[key]) return el("td", { class: "sv-word", title: key === "auc" ? table.label[i] : format === "text" && text }, text);
  return el("td", { class: "sv-amount" }, text && el("span", {}, text), text && Sieve.bar("sv-mini", Math.max(value, 0) / most[key]));
}
function makeRow(i, position) {
  const id = table.id[i];
  const link = Sieve.dimensionLink(id, table.name[i], { title: table.name[i] });
  const guess = link.querySelector(".sv-guess");
  if (guess) guess.textContent = table.name[i].replace(`#${id}, `, "").replace(/^dimension \d+$/, "no name"); // the number is beside it
  return el("tr", {
    "data-d": id, "aria-rowindex": position + 2, "aria-selected": id === chosen ? "true" : null,
    onclick: (event) => { if (event.target !== link) Sieve.showDimension(id); },
  },
    el("td", { class: "sv-no" }, String(id)), el("th", { scope: "row" }, Sieve.notes?.signs(id) ?? "", link),
    ...Object.entries(table.shown).map(([key, format]) => cell(key, format, i)));
}

// Virtual scrolling: only rows near the view are in the DOM. Rows that stay are not replaced, so that
// the focused one keeps the focus.
function draw() {
  const first = Math.floor(scroll.scrollTop / rowHeight);
  const from = Math.max(0, first - AHEAD);
  const to = Math.min(order.length, first + Math.ceil(scroll.clientHeight / rowHeight) + AHEAD);
  if (to <= drawn.from || from >= drawn.to) {
    body.replaceChildren();
    drawn = { from, to: from };
  }
  const rows = (a, b) => order.slice(Math.max(a, from), Math.min(b, to)).map((i, k) => makeRow(i, Math.max(a, from) + k));
  body.prepend(...rows(from, drawn.from));
  body.append(...rows(drawn.to, to));
  for (let position = drawn.from; position < Math.min(from, drawn.to); position += 1) body.firstElementChild.remove();
  for (let position = Math.max(to, drawn.from); position < drawn.to; position += 1) body.lastElementChild.remove();
  drawn = { from, to };
  grid.style.marginTop = `${from * rowHeight}px`;
}
scroll.addEventListener("scroll", () => {
  const first = Math.floor(scroll.scrollTop / rowHeight);
  const last = first + Math.ceil(scroll.clientHeight / rowHeight);
  if ((first < drawn.from + AHEAD / 2 && drawn.from > 0) || (last > drawn.to - AHEAD / 2 && drawn.to < order.length)) draw();
});
new ResizeObserver(() => { if (table) draw(); }).observe(scroll);

function fit() {
  const row = body.firstElementChild;
  if (row?.offsetHeight) rowHeight = row.getBoundingClientRect().height;
  space.style.height = `${grid.tHead.offsetHeight + order.length * rowHeight}px`;
}
function prepare() {
  for (const [key, format] of Object.entries(table.shown)) {
    const { name, header = name, about } = Sieve.MEASURES[key] ?? { name: Sieve.capital(key.replaceAll("_", " ")) };
    head.append(el("th", { scope: "col" }, el("button", { type: "button", "data-sort": key, title: about }, header)));
    if (format === "score") most[key] = 1;
    if (format === "share") most[key] = table[key].reduce((a, b) => Math.max(a, b ?? 0), 0) || 1;
  }
  element.closest(".sv-dimensions").style.setProperty("--sv-columns", Object.keys(table.shown).length);
}
on("listed", (state) => {
  if (table !== state.table) {
    table = state.table;
    prepare();
  }
  for (const th of head.cells) {
    const by = th.firstElementChild.dataset.sort;
    th.setAttribute("aria-sort", by !== state.sort.replace("-", "") ? "none" : state.sort.startsWith("-") ? "descending" : "ascending");
  }
  none.hidden = state.order.length > 0;
  none.textContent = state.only || Object.keys(state.ranges).length
    ? "No dimension matches all filters." : "No dimension matches by name, top word or number.";
  if (String(order) === String(state.order)) return;
  const first = !order.length;
  order = state.order;
  grid.setAttribute("aria-rowcount", order.length + 1);
  scroll.scrollTop = 0;
  body.replaceChildren();
  drawn = { from: 0, to: 0 };
  draw();
  fit();
  if (first) mark(chosen);
});
on("marked", ({ dimension, name }) => {
  const i = table?.id.indexOf(dimension) ?? -1;
  if (i >= 0 && name) table.name[i] = name;
  if (i >= 0) body.querySelector(`[data-d="${dimension}"]`)?.replaceWith(makeRow(i, order.indexOf(i)));
});
head.addEventListener("click", ({ target }) => { if (target.dataset.sort) emit("sort", target.dataset.sort, { keep: false }); });

function mark(dimension) {
  chosen = dimension;
  const at = order.findIndex((i) => table.id[i] === dimension);
  const top = at * rowHeight;
  const view = scroll.clientHeight - grid.tHead.offsetHeight;
  if (at >= 0 && top < scroll.scrollTop) scroll.scrollTop = top;
  else if (at >= 0 && top + rowHeight > scroll.scrollTop + view) scroll.scrollTop = top + rowHeight - view;
  if (table) draw();
  for (const row of body.children) {
    if (Number(row.dataset.d) === dimension) row.setAttribute("aria-selected", "true");
    else row.removeAttribute("aria-selected");
  }
}
on("dimension", mark);
