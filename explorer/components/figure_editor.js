const { el, on, viewState, same } = Sieve;
const find = (selector) => element.querySelector(selector);
const { section, form, list, image, sheet, zoom, hint, fault, size, file } = Sieve.parts(element, {
  section: ".sv-figure", form: "form", list: ".sv-figure-rows", image: ".sv-sheet img", sheet: ".sv-sheet", zoom: ".sv-zoom", hint: ".sv-sheet .sv-hint",
  fault: ".sv-fault", size: ".sv-paper-size", file: "input[type=file]",
});
const { columns, labels, tiles, preset, unit, width, font, font_size, caption, label } = form.elements;
const MARKS = ["violations", "names", "captions", "scores"];
const { defaults: DEFAULTS, styles: STYLES, rows: MAX_ROWS } = Sieve.SETTINGS.figure;
const PX_PER_CM = 96 / 2.54;
for (const option of preset.querySelectorAll("[data-style]")) option.value = STYLES[option.dataset.style].width_cm;
let recipe = { ...DEFAULTS, rows: [] };
let untouched = true;
let drawnRows = [];
let printedWidth = 0;

// Omit default values, so that links and recipes stay short.
function currentRecipe() {
  const rows = recipe.rows.filter((row) => row.query || row.image || Number.isInteger(row.dimension) || row.dimensions || row.difference?.[0]);
  const looks = Object.entries(recipe).filter(([name, value]) => name !== "rows" && !same(value, DEFAULTS[name]));
  return { rows, ...Object.fromEntries(looks) };
}

let waiting = 0;
const preview = Sieve.latest(server.sieve_preview, (answer) => { if (currentRecipe().rows.length) show(answer); });
function changed(delay = 350) {
  clearTimeout(waiting);
  section.setAttribute("aria-busy", "true");
  waiting = setTimeout(draw, delay);
}
function draw() {
  waiting = 0;
  const now = currentRecipe();
  if (viewState.tab === "figure") Sieve.setTabText("figure", now.rows.length ? JSON.stringify(now) : "");
  if (!now.rows.length) return show({ rows: [] });
  preview(now);
}
function show(answer) {
  if (!waiting) section.removeAttribute("aria-busy");
  fault.textContent = answer.error ?? "";
  for (const button of element.querySelectorAll("[data-kind]")) button.disabled = !answer.image;
  if (answer.error) return;
  hint.hidden = Boolean(answer.image);
  image.hidden = !answer.image;
  size.textContent = answer.image ? `${answer.width_cm} × ${answer.height_cm} cm` : "";
  find(".sv-paper-notes").replaceChildren(...(answer.notes ?? []).map((line) => el("li", {}, line)));
  drawnRows = answer.rows;
  nameDimensions();
  if (!answer.image) return;
  image.src = answer.image;
  image.alt = `Figure: ${drawnRows.map((row) => (row.without ? `${row.title} without ${row.without}` : row.title)).join("; ")}`;
  printedWidth = answer.width_cm * PX_PER_CM;
  scale();
}
// By default the figure has its printed size, if that fits.
function scale() {
  sheet.classList.toggle("sv-zoomed", Boolean(zoom.value));
  image.style.width = `${printedWidth * (Number(zoom.value) || 1)}px`;
}
zoom.addEventListener("change", scale);

// Rows.
function setRow(row, values) {
  untouched = false;
  Object.assign(row, values);
  for (const [name, value] of Object.entries(row)) if (value === "" || value === undefined) delete row[name];
  changed();
}
function textInput(row, name, words, about) {
  const input = el("input", {
    type: "text", "aria-label": about, placeholder: words, maxlength: "1000", autocomplete: "off", spellcheck: "false",
    // A new text has other dimensions, so the old selection does not apply.
    oninput: () => setRow(row, { [name]: input.value.trim(), off: undefined }),
  });
  input.value = row[name] ?? "";
  return input;
}
function strictInput(row, number) {
  const shown = [["", "push away"], ["0", "ignore"], ["never", "never"]];
  const now = row.strictness === undefined || row.strictness === 1 ? "" : String(row.strictness);
  const percent = (value) => `${Math.round(value * 100)}%`;
  if (!shown.some(([value]) => value === now)) {
    shown.push([now, now.startsWith("never:") ? `never, from ${percent(now.split(":")[1])}` : `push away, at ${percent(now)}`]);
  }
  const input = el("select", {
    "aria-label": `Strictness of row ${number}`,
    onchange: () => setRow(row, { strictness: input.value === "" ? undefined : input.value.startsWith("never") ? input.value : Number(input.value) }),
  }, ...shown.map(([value, text]) => el("option", { value }, text)));
  input.value = now;
  return input;
}
// "17, 20-25" are seven dimensions. The server refuses what is no number.
function readDimensions(text) {
  const listed = text.split(/[\s,]+/).filter(Boolean).flatMap((part) => {
    const [, first, last] = part.match(/^(\d{1,9})-(\d{1,9})$/) ?? [];
    const length = last - first + 1;
    if (length > 0 && length <= MAX_ROWS) return Array.from({ length }, (_, at) => Number(first) + at);
    return /^\d{1,9}$/.test(part) ? Number(part) : part;
  });
  const [only] = listed;
  return listed.length > 1 || typeof only === "string" ? { dimensions: listed, dimension: undefined } : { dimension: only ?? null, dimensions: undefined };
}
function dimensionInput(row, number) {
  const input = el("input", {
    type: "text", "aria-label": `Dimensions of row ${number}`, placeholder: "17, 20-25", title: "Numbers of dimensions, such as 17, 20-25",
    maxlength: "400", autocomplete: "off", spellcheck: "false",
    oninput: () => setRow(row, readDimensions(input.value)),
  });
  input.value = row.dimensions?.join(", ") ?? row.dimension ?? "";
  return el("div", { class: "sv-row-dimension" }, el("span", {}, "dimensions"), input, el("span", { class: "sv-row-name" }));
}
function setInput(row, at, words, about) {
  const input = el("input", {
    type: "text", "aria-label": about, placeholder: words, maxlength: "200", autocomplete: "off", spellcheck: "false",
    title: "label:dog, split:test, caption:umbrella, file:2023/*.jpg, search:a dog, or all",
    oninput: () => setRow(row, { difference: row.difference.with(at, input.value.trim()) }),
  });
  input.value = row.difference[at];
  return input;
}
function fieldsOf(row, number) {
  if ("dimension" in row || row.dimensions) return [dimensionInput(row, number)];
  if (row.difference) return [setInput(row, 0, "label:dog", `First set of row ${number}`), setInput(row, 1, "all others", `Second set of row ${number}`)];
  const first = row.image
    ? el("div", { class: "sv-row-image" }, Sieve.image(row.image), el("span", {}, "images like this"))
    : textInput(row, "query", "a dog", `Query of row ${number}`);
  const off = row.off && el("span", { class: "sv-row-off" }, `${row.off.length} off`);
  const strict = el("div", { class: "sv-row-strict" }, strictInput(row, number), off);
  const without = textInput(row, "without", "without …", `Row ${number} without`);
  const showStrict = () => { strict.hidden = !row.without && !row.off; };
  without.addEventListener("input", showStrict);
  showStrict();
  return [first, without, strict];
}
function move(at, by) {
  const [row] = recipe.rows.splice(at, 1);
  if (by) recipe.rows.splice(at + by, 0, row);
  untouched = false;
  fillRows();
  changed(0);
  const buttons = list.children[Math.min(at + by, list.children.length - 1)]?.querySelectorAll(".sv-row-actions button");
  const next = [...(buttons ?? [])].find((one) => one.dataset.by === String(by) && !one.disabled) ?? buttons?.[2];
  (next ?? find("[data-add]")).focus();
}
function fillRows() {
  const last = recipe.rows.length - 1;
  list.replaceChildren(...recipe.rows.map((row, at) => {
    const button = (by, sign, about, off) => el("button", { type: "button", class: "sv-icon", "data-by": String(by), "aria-label": `${about} row ${at + 1}`, title: about, disabled: off, onclick: () => move(at, by) }, sign);
    return el("li", { class: "sv-figure-row" }, el("div", { class: "sv-row-fields" }, ...fieldsOf(row, at + 1)),
      el("div", { class: "sv-row-actions" }, button(-1, "↑", "Move up", at === 0), button(1, "↓", "Move down", at === last), button(0, "×", "Remove", false)));
  }));
  nameDimensions();
}
function nameDimensions() {
  const shown = currentRecipe().rows;
  recipe.rows.forEach((row, at) => {
    const name = list.children[at]?.querySelector(".sv-row-name");
    if (!name) return;
    const drawn = drawnRows.filter(({ number }) => number === shown.indexOf(row));
    name.textContent = name.title = drawn.map(({ title }) => title).join(", ");
  });
}
function add(row, focus = true) {
  if (recipe.rows.some((one) => same(one, row)) && Object.keys(row).length) return changed(0);
  recipe.rows.push(row);
  fillRows();
  changed(0);
  if (focus) list.lastElementChild.querySelector("input")?.focus();
}
find(".sv-add-row").addEventListener("click", ({ target }) => {
  const what = target.dataset.add;
  if (!what) return;
  untouched = false;
  if (what === "query") add({});
  if (what === "dimension") add({ dimension: viewState.dimension ?? 0 });
  if (what === "difference") add({ difference: ["", ""] });
  if (what === "search") take(Sieve.row());
});
function take(row) {
  if (row) return add({ ...row }, false);
  fault.textContent = Sieve.hasUpload()
    ? "A figure cannot contain an uploaded image, only images of the collection."
    : "There is no current search. Search on the Search tab, or add a query here.";
}

// Layout.
const INCH = 2.54;
const shownWidth = () => Math.round((recipe.width_cm / (unit.value === "cm" ? 1 : INCH)) * 100) / 100;
function fillLooks() {
  columns.value = recipe.columns;
  labels.value = recipe.labels;
  tiles.value = recipe.tiles;
  const sizes = [...preset.options].map((option) => option.value);
  preset.value = sizes.includes(String(recipe.width_cm)) ? String(recipe.width_cm) : "";
  width.value = shownWidth();
  font.value = recipe.font;
  font_size.value = recipe.font_size;
  caption.value = recipe.caption;
  label.value = recipe.label;
  for (const mark of MARKS) form.elements[mark].checked = recipe.marks.includes(mark);
}
const number = (input) => (input.value === "" ? null : Number(input.value));
function readLooks({ target }) {
  if (!target.name) return;
  if (target === unit) { width.value = shownWidth(); return; }
  if (target === preset && preset.value) {
    recipe.width_cm = Number(preset.value);
    width.value = shownWidth();
    const style = STYLES[preset.selectedOptions[0].dataset.style];
    if (style) [font.value, font_size.value] = [style.font, style.font_size];
  }
  if (target === width) {
    recipe.width_cm = Math.round(number(width) * (unit.value === "cm" ? 1 : INCH) * 1e4) / 1e4;
    preset.value = "";
  }
  Object.assign(recipe, {
    columns: number(columns), labels: labels.value, tiles: tiles.value, font: font.value.trim() || DEFAULTS.font, font_size: number(font_size),
    caption: caption.value.trim(), label: label.value.trim() || DEFAULTS.label,
    marks: MARKS.filter((mark) => form.elements[mark].checked),
  });
  changed();
}
form.addEventListener("input", readLooks);
form.addEventListener("submit", (event) => event.preventDefault());

// Recipes come from files and links: the server validates them, and the page uses its answer.
async function open(text) {
  let given;
  try { given = JSON.parse(text); } catch { fault.textContent = "This file is not a recipe: it is not valid JSON."; return; }
  section.setAttribute("aria-busy", "true");
  const answer = await Sieve.call(server.sieve_preview, given);
  if (answer.error) return show(answer);
  untouched = false;
  const { rows, ...read } = answer.recipe;
  read.names = given.names ? read.names : null; // current names, unless the recipe sets them
  recipe = { rows, ...Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, read[name]])) };
  drawnRows = answer.rows;
  fillRows();
  fillLooks();
  show(answer);
  if (viewState.tab === "figure") Sieve.setTabText("figure", JSON.stringify(currentRecipe()));
}
find("[data-sheet]").addEventListener("click", () => {
  const seed = Math.floor(Math.random() * 10000);
  open(JSON.stringify({ ...currentRecipe(), rows: [{ sample: 25, seed }], columns: 8 }));
});
find("[data-open]").addEventListener("click", () => file.click());
file.addEventListener("change", async () => {
  const [chosen] = file.files;
  file.value = "";
  if (!chosen) return;
  if (chosen.size > 2 ** 20) fault.textContent = "This file is not a recipe: it is larger than 1 MB.";
  else open(await chosen.text());
});

find(".sv-downloads").addEventListener("click", async ({ target }) => {
  const { kind } = target.dataset;
  if (!kind || target.getAttribute("aria-busy")) return;
  target.setAttribute("aria-busy", "true");
  const made = await Sieve.call(server.sieve_download, { recipe: currentRecipe(), kind });
  target.removeAttribute("aria-busy");
  fault.textContent = made.error ?? "";
  if (!made.error) await Sieve.save(made);
});

// Initial content: the figure of a link, a row sent from another tab, the search, or an example.
function withPlain(row) {
  const plain = row.image ? { image: row.image } : { query: row.query };
  const excludes = Boolean(row.without || row.off);
  return excludes ? [plain, row] : [row];
}
function begin() {
  const row = Sieve.row();
  const [example] = Sieve.about.examples ?? [];
  if (row) recipe.rows = withPlain(row);
  else if (example) recipe.rows = withPlain({ query: example.q, without: example.without });
  fillRows();
  changed(0);
}
function parsed(text) {
  try { return JSON.parse(text); } catch { return null; }
}
fillLooks();
on("figure", (text) => { if (text && !same(currentRecipe(), parsed(text))) open(text); });
on("figure-row", (row) => {
  if (untouched) recipe.rows = same(row, Sieve.row()) ? withPlain(row) : [];
  untouched = false;
  fillRows();
  add({ ...row }, false);
});
on("tab", (tab) => {
  if (tab !== "figure") return;
  if (!untouched && recipe.rows.length) Sieve.setTabText("figure", JSON.stringify(currentRecipe()));
  else if (untouched && !viewState.figure) begin();
});
if (viewState.tab === "figure" && untouched && !viewState.figure && !recipe.rows.length) begin();
