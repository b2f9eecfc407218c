// Annotations shared by all tabs: which dimensions have a name, note, tags or star, and the saved
// searches. The text of a note is loaded with the page of its dimension.
const { el, on, emit, count, same } = Sieve;
const find = (selector) => element.querySelector(selector);
const dialog = find("dialog");
const plan = find(".sv-import-export-plan");
const file = el("input", { type: "file", accept: ".json,.csv" });
let state = { editing: false, fault: "", marks: {}, searches: [] };
let loaded = false;

const ask = (name, payload = null) => Sieve.call(server[`sieve_${name}`], payload);
const markOf = (dimension) => state.marks[dimension] ?? {};

// Notify other components of each changed dimension; repeat the search if a name changed.
function changed(dimension, mark, name) {
  const renamed = markOf(dimension).name !== mark.name;
  state.marks[dimension] = mark;
  if (!Object.keys(mark).length) delete state.marks[dimension];
  emit("marked", { dimension, name }, { keep: false });
  emit("annotations", state);
  others?.postMessage("changed");
  if (renamed && Sieve.hasQuery()) Sieve.change({}, { list: true });
}
function setSearches(searches) {
  state.searches = searches;
  emit("annotations", state);
  others?.postMessage("changed");
}
async function take(answer) {
  if (answer.error) {
    state = { ...state, fault: answer.error };
    return emit("annotations", state);
  }
  const before = state.marks;
  const first = !loaded;
  state = answer;
  loaded = true;
  emit("annotations", state);
  const touched = Object.keys({ ...before, ...state.marks }).filter((d) => !same(before[d], state.marks[d]));
  const renamed = first ? [] : touched.filter((d) => before[d]?.name !== state.marks[d]?.name);
  for (const d of touched) {
    const dimension = Number(d);
    const name = !renamed.includes(d) ? undefined : state.marks[d]?.name ?? (await ask("notes_of", { dimension })).suggested;
    emit("marked", { dimension, name }, { keep: false });
  }
  if (renamed.length && Sieve.hasQuery()) Sieve.change({}, { list: true });
}
const load = async () => take(await ask("notes_state"));
async function reload() {
  if (!loaded || !element.isConnected) return;
  await load();
  emit("annotations-reloaded", null, { keep: false });
}

// Changes by other pages of this browser are shown at once, those of other browsers when this page
// gets the focus.
const others = window.BroadcastChannel && new BroadcastChannel(`sieve-notes ${location.pathname}`);
others?.addEventListener("message", reload);
on("about", () => { if (!loaded) load(); });
addEventListener("focus", reload);

// Icons beside a name, with text for screen readers; null if there are none.
function signs(dimension) {
  const { starred, noted, tags } = markOf(dimension);
  const sign = (kind, mark, words) => el("span", { class: `sv-sign-${kind}`, role: "img", "aria-label": words, title: words }, mark);
  if (!starred && !noted && !tags) return null;
  return el("span", { class: "sv-signs" }, tags && sign("tags", "#", `tags: ${tags.join(", ")}`), noted && sign("note", "✎", "has a note"), starred && sign("star", "★", "starred"));
}

// Export and import.
function openDialog() {
  const marks = Object.values(state.marks);
  const named = marks.filter((mark) => mark.name).length;
  const noted = marks.filter((mark) => mark.noted).length;
  const starred = marks.filter((mark) => mark.starred).length;
  find(".sv-import-export-summary").textContent = marks.length
    ? `${count(marks.length, "dimension")}: ${named} named, ${noted} with a note, ${starred} starred. Exported files have one dimension per line, sorted, which suits version control.`
    : "No annotations yet. Name, tag or star a dimension on its page, or import a file.";
  find("[data-import]").hidden = !(state.editing && !state.fault);
  plan.replaceChildren(state.fault ? el("p", { class: "sv-fault" }, state.fault) : "");
  dialog.showModal();
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
find(".sv-import-export-actions").addEventListener("click", async ({ target }) => {
  const { kind } = target.dataset;
  if (!kind) return;
  const made = await ask("notes_export", { kind });
  if (made.error) return plan.replaceChildren(el("p", { class: "sv-fault" }, made.error));
  const url = URL.createObjectURL(new Blob([made.text], { type: kind === "csv" ? "text/csv" : "application/json" }));
  el("a", { href: url, download: made.name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
});
find("[data-import]").addEventListener("click", () => file.click());
file.addEventListener("change", async () => {
  const [chosen] = file.files;
  file.value = "";
  if (!chosen) return;
  const most = Sieve.SETTINGS.import_bytes;
  if (chosen.size > most) return plan.replaceChildren(el("p", { class: "sv-fault" }, `This file is larger than the limit of ${most / 2 ** 20} MB.`));
  propose({ name: chosen.name, text: await chosen.text() });
});
async function propose(given) {
  const preview = await ask("notes_import", given);
  if (preview.error) return plan.replaceChildren(el("p", { class: "sv-fault" }, preview.error));
  const shown = preview.lines.slice(0, 200);
  const take = (replace, words, kind) => el("button", { type: "button", class: kind, onclick: () => carryOut({ ...given, replace }) }, words);
  plan.replaceChildren(...[
    el("p", {}, `${given.name}: ${preview.summary}.`),
    ...preview.notes.map((line) => el("p", { class: "sv-hint" }, line)),
    shown.length > 0 && el("ul", { class: "sv-import-export-lines", tabindex: "0", "aria-label": "Changes" },
      ...shown.map((line) => el("li", {}, line)), preview.lines.length > shown.length && el("li", {}, `… and ${preview.lines.length - shown.length} more`)),
    el("div", { class: "sv-import-export-actions" }, preview.changes > 0 && take(false, "Import", "sv-plain sv-strong"),
      preview.kept > 0 && take(true, "Import all and overwrite newer values", "sv-plain")),
  ].filter(Boolean));
}
async function carryOut(given) {
  const done = await ask("notes_import", { ...given, apply: true });
  if (done.error) return plan.replaceChildren(el("p", { class: "sv-fault" }, done.error));
  plan.replaceChildren(el("p", {}, "Imported."), ...done.done.map((line) => el("p", { class: "sv-hint" }, line)));
  await take(done);
  others?.postMessage("changed");
  emit("dimension", Sieve.viewState.dimension);
}

Sieve.notes = {
  ask, changed, setSearches, markOf, signs, openDialog,
  get state() { return state; },
  get editable() { return loaded && state.editing && !state.fault; },
};
emit("annotations", state);
