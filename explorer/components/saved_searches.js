// Saved searches: listed as pills before the first query, and in a menu beside the results afterwards.
const { el, on, viewState } = Sieve;
const PILLS = 6;
let slot = null; // below the search bar, before the first query
let head = null; // beside the results
let link = "";
let suggested = "";
const deleted = new Map(); // searches that can be restored while the menu is open
let renaming = null;

const menu = el("details", { class: "sv-saved-menu" });
const opener = el("summary", { class: "sv-plain" });
const panel = el("div", { class: "sv-menu-panel" });
const status = el("p", { class: "sv-menu-status", role: "status" });
menu.append(opener, panel);
const pills = el("div", { class: "sv-saved-pills", role: "group", "aria-label": "Saved searches" });

menu.addEventListener("toggle", () => {
  deleted.clear();
  renaming = null;
  status.textContent = "";
  if (menu.open) {
    draw();
    panel.querySelector(".sv-save-name")?.select();
  }
});
menu.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || renaming !== null) return;
  menu.open = false;
  opener.focus();
});
addEventListener("click", (event) => { if (menu.open && !event.composedPath().includes(menu)) menu.open = false; });

function open(search) {
  menu.open = false;
  history.pushState(null, "", location.pathname + search.link);
  Sieve.open(search.link);
}
const anchor = (search, kind) => el("a", {
  href: search.link, class: kind, title: search.name, onclick: (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(search);
  },
}, search.name);

async function act(name, payload, words) {
  const answer = await Sieve.notes.ask(name, payload);
  status.textContent = answer.error ?? words(answer);
  status.classList.toggle("sv-fault", Boolean(answer.error));
  if (!answer.error) Sieve.notes.setSearches(answer.searches);
  return answer;
}
async function save(name) {
  const answer = await act("search_save", { name, link }, (made) => (made.name === name.trim() ? "Saved" : `Already saved as “${made.name}”`));
  if (!answer.error) opener.focus(); // the form is removed; from here Escape closes the menu
}
async function rename(search, name) {
  renaming = null;
  if (name.trim() === search.name) return draw();
  const answer = await act("search_rename", { id: search.id, name, version: search.version },
    (made) => (made.saved ? "Renamed" : `Another page renamed it to “${made.name}”; your name was “${name.trim()}”`));
  if (answer.error) draw();
}
async function remove(search) {
  deleted.set(search.id, search);
  const answer = await act("search_delete", { id: search.id }, () => `Deleted “${search.name}”`);
  if (answer.error) deleted.delete(search.id);
  panel.querySelector(`[data-id="${search.id}"] button`)?.focus();
}
async function restore(search) {
  const answer = await act("search_delete", { id: search.id, undo: true }, () => `Restored “${search.name}”`);
  if (answer.error) return;
  deleted.delete(search.id);
  draw();
}

function row(search, editable) {
  if (deleted.has(search.id)) {
    return el("li", { "data-id": search.id }, el("span", { class: "sv-menu-deleted" }, search.name),
      el("button", { type: "button", class: "sv-plain", onclick: () => restore(search) }, "Undo"));
  }
  if (renaming === search.id) {
    const input = el("input", {
      type: "text", maxlength: "120", "aria-label": `New name of ${search.name}`,
      onkeydown: (event) => {
        if (event.key === "Enter") rename(search, input.value);
        if (event.key !== "Escape") return;
        event.stopPropagation();
        renaming = null;
        draw();
      },
    });
    input.value = search.name;
    return el("li", {}, input, el("button", { type: "button", class: "sv-plain", onclick: () => rename(search, input.value) }, "Rename"));
  }
  const when = new Date(search.saved);
  return el("li", { "data-id": search.id }, anchor(search, "sv-menu-link"),
    el("time", { datetime: search.saved, title: when.toLocaleString() }, when.toLocaleDateString(undefined, { day: "numeric", month: "short" })),
    ...(editable ? [
      el("button", { type: "button", class: "sv-icon", "aria-label": `Rename ${search.name}`, title: "Rename", onclick: () => { renaming = search.id; draw(); panel.querySelector("li input")?.select(); } }, "✎"),
      el("button", { type: "button", class: "sv-icon", "aria-label": `Delete ${search.name}`, title: "Delete", onclick: () => remove(search) }, "×"),
    ] : []));
}
function saveForm() {
  if (!link && Sieve.hasUpload()) return el("p", { class: "sv-hint" }, "A search by an uploaded image cannot be saved.");
  const there = Sieve.notes.state.searches.find((search) => search.link === link);
  if (there) return el("p", { class: "sv-hint" }, "This search is saved as ", el("q", {}, there.name));
  const name = el("input", { type: "text", class: "sv-save-name", maxlength: "120", "aria-label": "Name of this search" });
  name.value = suggested.slice(0, 120);
  return el("form", { class: "sv-save", onsubmit: (event) => { event.preventDefault(); save(name.value); } },
    name, el("button", { type: "submit", class: "sv-plain sv-strong" }, "Save this search"));
}

function draw() {
  if (!slot || !Sieve.notes) return;
  const { searches } = Sieve.notes.state;
  const editable = Sieve.notes.editable;
  const searching = Sieve.hasQuery();
  slot.hidden = searching || !searches.length;
  const home = searching && head ? head : slot;
  if (menu.parentElement !== home) home.append(menu);
  const there = searches.some((search) => search.link === link);
  const canSave = editable && !there && Boolean(link || Sieve.hasUpload());
  menu.hidden = searching && !canSave && !searches.length;
  opener.textContent = !searching ? "Manage" : canSave ? "Save" : "Saved";
  pills.replaceChildren(el("span", { class: "sv-try-label" }, "Saved"), ...searches.slice(0, PILLS).map((search) => anchor(search, "sv-pill")));
  if (!menu.open) return;
  const listed = [...searches, ...[...deleted.values()].filter((gone) => !searches.some((one) => one.id === gone.id))].sort((a, b) => b.id - a.id);
  panel.replaceChildren(...[
    searching && editable && (link || Sieve.hasUpload()) && saveForm(), searching && status,
    listed.length > 0 && el("ul", { "aria-label": "Saved searches" }, ...listed.map((search) => row(search, editable))), !searching && status,
  ].filter(Boolean));
}

on("saved-slot", (found) => { slot = found; slot.prepend(pills); draw(); });
on("results-head", (found) => { head = found; draw(); });
on("samples", () => { link = ""; draw(); });
on("question", (now) => {
  const what = now.upload ? "" : now.item ? `like: ${now.like || "an image"}` : (now.title || now.q);
  const excluded = now.terms?.filter((term) => term.excluded).map((term) => term.label).join(", ") || now.without;
  suggested = what && excluded ? `${what} without ${excluded}` : what;
  if (!Sieve.hasQuery()) link = "";
  draw();
});
on("answer", (answer) => {
  link = answer.link;
  if (viewState.never && suggested && !suggested.endsWith(", never")) suggested += ", never";
  draw();
});
on("annotations", draw);
