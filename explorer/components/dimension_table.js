const { el, on, emit, number, percent } = Sieve;
const find = (selector) => element.querySelector(selector);
const body = find("tbody");
const scroll = find(".sv-scroll");
const filter = find(".sv-filter");
const heads = [...element.querySelectorAll("th")];
const CHUNK = 80;
let table = null;
let labelled = false;
let order = [];
let drawn = 0;
let chosen = null;
let sort = { by: "images", down: true };

const share = (value, most, text) => {
  if (!text) return el("td", { class: "sv-amount" });
  const bar = el("i", { class: "sv-mini" });
  bar.style.width = `${(100 * value) / (most || 1)}%`;
  return el("td", { class: "sv-amount" }, el("span", {}, text), bar);
};
const most = {};
function makeRow(i) {
  const id = table.id[i];
  const link = el("a", {
    href: `?tab=dimensions&dimension=${id}`,
    onclick: (event) => { event.preventDefault(); Sieve.showDimension(id); },
  }, table.name[i]);
  return el("tr", { "data-d": id, "aria-selected": id === chosen ? "true" : null, onclick: (event) => { if (event.target !== link) Sieve.showDimension(id); } },
    el("td", { class: "sv-no" }, String(id)), el("th", { scope: "row" }, link),
    share(table.images[i], most.images, percent(table.images[i])),
    share(table.texts[i] ?? 0, most.texts, table.texts[i] === null ? "" : percent(table.texts[i])),
    share(table.agreement[i] ?? 0, 1, table.agreement[i] === null ? "" : number(table.agreement[i])),
    share(Math.max(table.mono[i] ?? 0, 0), 1, table.mono[i] === null ? "" : number(table.mono[i])),
    labelled ? el("td", { class: "sv-word", title: table.label[i] }, table.auc[i] === null ? "" : number(table.auc[i]))
      : el("td", { class: "sv-word" }, table.word[i]));
}
// Rows are drawn as they come into view: a table of thousands opens at once.
function drawMore(to = drawn + CHUNK) {
  const rows = order.slice(drawn, to).map(makeRow);
  body.append(...rows);
  drawn += rows.length;
}
scroll.addEventListener("scroll", () => {
  if (scroll.scrollTop + scroll.clientHeight > scroll.scrollHeight - 600) drawMore();
});

function arrange() {
  if (!table) return;
  const wanted = filter.value.trim().toLowerCase();
  const column = table[sort.by];
  order = table.id.map((_, i) => i).filter((i) => !wanted || table.name[i].toLowerCase().includes(wanted)
    || table.word[i].toLowerCase().includes(wanted) || String(table.id[i]) === wanted.replace(/^#/, ""));
  const least = (i) => column[i] ?? -Infinity;
  const compare = typeof column[0] === "string" ? (a, b) => column[a].localeCompare(column[b]) : (a, b) => least(a) - least(b) || 0;
  order.sort((a, b) => (sort.down ? -compare(a, b) : compare(a, b)) || a - b);
  body.replaceChildren();
  drawn = 0;
  scroll.scrollTop = 0;
  drawMore();
  find(".sv-found").textContent = wanted ? `${order.length} of ${table.id.length}` : `${table.id.length.toLocaleString("en")} dimensions`;
  find(".sv-none").hidden = order.length > 0;
  for (const head of heads) {
    const by = head.firstElementChild.dataset.sort;
    head.setAttribute("aria-sort", by !== sort.by ? "none" : sort.down ? "descending" : "ascending");
  }
  emit("order", order.map((i) => table.id[i]));
}
for (const head of heads) {
  const by = head.firstElementChild.dataset.sort;
  head.firstElementChild.addEventListener("click", () => {
    const down = sort.by === by ? !sort.down : !["id", "name", "word"].includes(by);
    sort = { by, down };
    arrange();
  });
}
filter.addEventListener("input", arrange);
const said = (word, meaning) => el("p", {}, el("strong", {}, word), ` ${meaning}`);
function columnsMark() {
  const mark = Sieve.term("?",
    said("Images, captions:", "the share of them that has the dimension."),
    said("Agree:", "how often image and caption fire it together, 0 to 1."),
    said("Mono:", "how much more alike the images that have it are than any two images, up to 1."),
    labelled ? said("AUC:", "how surely it tells images with its best label from others, on test images; .5 is chance.")
      : said("Top word:", "the word of captions that goes with it best."));
  mark.classList.add("sv-icon");
  mark.setAttribute("aria-label", "What the columns mean");
  return mark;
}
let exports = null;
on("about", () => {
  exports ??= Sieve.exportMenu("the table of dimensions", (kind) => Sieve.call(server.sieve_export_dimensions, { kind }));
  find(".sv-index-head").append(...exports);
});

function mark(dimension) {
  chosen = dimension;
  for (const row of body.children) {
    row.toggleAttribute("aria-selected", false);
    if (Number(row.dataset.d) === dimension) row.setAttribute("aria-selected", "true");
  }
  const at = order.findIndex((i) => table.id[i] === dimension);
  if (at >= drawn) drawMore(at + CHUNK);
  body.children[at]?.scrollIntoView({ block: "nearest" });
}
on("dimension", mark);

Sieve.call(server.sieve_table, null).then((loaded) => {
  if (loaded.error) {
    find(".sv-none").hidden = false;
    find(".sv-none").textContent = loaded.error;
    return;
  }
  table = loaded;
  labelled = table.label.some(Boolean);
  if (labelled) {
    const last = heads.at(-1).firstElementChild;
    last.dataset.sort = "auc";
    last.title = "How well it tells images with its best label from others, on test images; 0.5 is chance";
    last.textContent = "AUC";
  }
  find(".sv-found").after(columnsMark());
  for (const column of ["images", "texts"]) most[column] = Math.max(...table[column]);
  arrange();
  // Beside the table there is room for a page: better the first than none.
  if (Sieve.place.dimension === null && innerWidth > 900 && order.length) emit("dimension", table.id[order[0]]);
  else mark(Sieve.place.dimension);
});
