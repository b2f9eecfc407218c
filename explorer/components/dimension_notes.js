// The user's name, star, tags and note on the page of a dimension. Each field is saved separately, on
// blur or after a pause. If another page has changed it, both versions are shown.
const { el, on, emit, same } = Sieve;
const REST = 900;
const EMPTY = { name: "", note: "", tags: [], starred: false };
const unsaved = new Set();
addEventListener("beforeunload", (event) => { if (unsaved.size) event.preventDefault(); });

function makeFields(dimension, annotations, tell, conflict) {
  const fields = {};
  for (const [name, empty] of Object.entries(EMPTY)) {
    const { value = empty, version = 0 } = annotations.fields?.[name] ?? {};
    fields[name] = { value, version, wanted: undefined, saving: false };
  }
  // One write per field at a time; while one runs, only the latest value is remembered.
  async function save(name, value) {
    const field = fields[name];
    unsaved.add(field);
    field.mine = value;
    if (field.clashes) return; // wait for the user to resolve the conflict
    field.wanted = value;
    if (field.saving) return;
    field.saving = true;
    while (field.wanted !== undefined) {
      const sent = field.wanted;
      field.wanted = undefined;
      if (!same(sent, field.value)) await write(name, field, sent);
    }
    field.saving = false;
    if (!field.stuck) unsaved.delete(field);
  }
  async function write(name, field, sent) {
    tell("Saving…");
    const answer = await Sieve.notes.ask("notes_write", { dimension, field: name, value: sent, version: field.version });
    field.stuck = Boolean(answer.error);
    if (answer.error) return tell(answer.error, true);
    const base = field.value;
    Object.assign(field, { value: answer.value, version: answer.version });
    if (answer.saved) {
      conflict(name, null);
      field.show(answer.value, sent);
      tell("Saved");
      return Sieve.notes.changed(dimension, answer.mark, answer.shown);
    }
    // Tags are merged; a star is overwritten, as no text is lost.
    if (name === "starred") field.wanted ??= sent;
    else if (name === "tags") field.wanted ??= [...answer.value.filter((tag) => !base.includes(tag) || sent.includes(tag)), ...sent.filter((tag) => !base.includes(tag) && !answer.value.includes(tag))];
    else {
      tell("");
      field.stuck = true;
      field.clashes = true;
      field.wanted = undefined;
      conflict(name, { other: answer.value, mine: sent });
      Sieve.notes.changed(dimension, answer.mark, answer.shown);
    }
  }
  return { fields, save };
}

function makeConflict(ask) {
  const box = el("div", { class: "sv-conflict", role: "alert", hidden: true });
  const open = new Map();
  function draw() {
    box.hidden = open.size === 0;
    box.replaceChildren(...[...open].map(([name, { other, mine }]) => el("div", {},
      el("p", {}, `Another page changed the ${name} to `, other ? el("q", {}, other) : "nothing", ". Your version: ", mine ? el("q", {}, mine) : "nothing"),
      el("button", { type: "button", class: "sv-plain", onclick: () => ask.keep(name) }, "Use my version"),
      el("button", { type: "button", class: "sv-plain", onclick: () => ask.take(name) }, "Use the other version"))));
  }
  return { box, set(name, both) { if (both) open.set(name, both); else open.delete(name); draw(); } };
}

function starButton(field, save) {
  const button = el("button", { type: "button", class: "sv-icon sv-star", onclick: () => { paint(!pressed()); save("starred", pressed()); } });
  const pressed = () => button.getAttribute("aria-pressed") === "true";
  function paint(on) {
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "★" : "☆";
    button.setAttribute("aria-label", "Star");
    button.title = on ? "Remove the star" : "Star this dimension";
  }
  field.show = (value) => paint(value);
  paint(field.value);
  return button;
}
function textField(node, name, field, save) {
  let resting = 0;
  const keep = () => { clearTimeout(resting); if (node.value !== field.value || field.saving) save(name, node.value); };
  node.value = field.value;
  node.addEventListener("input", () => {
    unsaved.add(field);
    clearTimeout(resting);
    if (name === "note") resting = setTimeout(keep, REST);
  });
  node.addEventListener("change", keep);
  node.addEventListener("blur", () => {
    if (node.value !== field.value || field.saving) return;
    unsaved.delete(field);
    if (field.missed) follow(field, field.missed);
  });
  field.isHeld = () => node === document.activeElement;
  // Show the normalised value, unless the user has kept typing.
  field.show = (value, sent) => { if (sent === undefined || node.value === sent) node.value = value; };
  return node;
}
function nameInput(field, annotations, save) {
  const input = textField(el("input", {
    type: "text", class: "sv-name-input", maxlength: "80", autocomplete: "off", spellcheck: "false", placeholder: `Rename “${annotations.suggested}”`, "aria-label": "Your name for this dimension",
    onkeydown: (event) => {
      if (event.key === "Enter") input.blur();
      if (event.key === "Escape") { input.value = field.value; input.blur(); }
    },
  }), "name", field, save);
  const back = el("button", {
    type: "button", class: "sv-plain sv-suggested", title: "Restore the suggested name",
    onclick: () => { input.value = ""; save("name", ""); },
  }, "Reset to ", el("q", {}, annotations.suggested));
  const show = field.show;
  field.show = (value, sent) => { show(value, sent); back.hidden = !value; };
  back.hidden = !field.value;
  return [input, back];
}
function tagList(field, save) {
  const list = el("ul", { class: "sv-tags" });
  const known = el("datalist", { id: "sv-known-tags" });
  const input = el("input", {
    type: "text", class: "sv-tag-input", maxlength: "40", list: "sv-known-tags", autocomplete: "off", spellcheck: "false", placeholder: "+ tag", "aria-label": "Add a tag",
    onkeydown: (event) => {
      if (event.key === "Enter" || event.key === ",") { event.preventDefault(); add(); }
      if (event.key === "Backspace" && !input.value && field.value.length) put(shown.slice(0, -1));
    },
    onchange: () => add(),
    onfocus: () => {
      const all = Object.values(Sieve.notes.state.marks).flatMap((mark) => mark.tags ?? []);
      known.replaceChildren(...[...new Set(all)].sort().map((tag) => el("option", { value: tag })));
    },
  });
  let shown = field.value;
  function add() {
    const tags = input.value.split(/[,;]/).map((tag) => tag.trim()).filter((tag) => tag && !shown.some((one) => one.toLowerCase() === tag.toLowerCase()));
    input.value = "";
    if (tags.length) put([...shown, ...tags]);
  }
  function put(tags) {
    paint(tags);
    save("tags", tags);
  }
  function paint(tags) {
    shown = tags;
    list.replaceChildren(...tags.map((tag) => el("li", { class: "sv-tag" }, el("span", {}, tag), el("button", {
      type: "button", "aria-label": `Remove the tag ${tag}`, onclick: () => { put(shown.filter((one) => one !== tag)); input.focus(); },
    }, "×"))));
  }
  field.show = (value) => { if (!field.wanted) paint(value); };
  paint(field.value);
  return el("div", { class: "sv-tag-box" }, list, input, known);
}

function editor(dimension, annotations) {
  const status = el("span", { class: "sv-save-status", role: "status" });
  let fading = 0;
  const tell = (words, fault = false) => {
    clearTimeout(fading);
    status.textContent = words;
    status.classList.toggle("sv-fault", fault);
    if (words === "Saved") fading = setTimeout(() => { status.textContent = ""; }, 4000);
  };
  const conflict = makeConflict({
    keep: (name) => { settle(name); save(name, fields[name].mine); },
    take: (name) => { settle(name); unsaved.delete(fields[name]); fields[name].show(fields[name].value); },
  });
  const settle = (name) => { conflict.set(name, null); Object.assign(fields[name], { clashes: false, stuck: false }); };
  const { fields, save } = makeFields(dimension, annotations, tell, (name, both) => conflict.set(name, both));
  const note = textField(el("textarea", { class: "sv-note", rows: "2", maxlength: "10000", placeholder: "Notes: what the dimension seems to mean, and when it fails", "aria-label": "Notes" }), "note", fields.note, save);
  const box = el("section", { class: "sv-dim-notes", "aria-label": "Your name, tags and notes" },
    el("div", { class: "sv-name-row" }, starButton(fields.starred, save), ...nameInput(fields.name, annotations, save)),
    tagList(fields.tags, save), note, conflict.box, status);
  return { box, renew: (now) => renew(fields, now) };
}
// Show values that another page has saved, except in fields that are being edited: their save then
// reports the conflict.
function renew(fields, now) {
  for (const [name, field] of Object.entries(fields)) {
    if (unsaved.has(field) || field.saving || !now[name]) continue;
    if (field.isHeld?.()) field.missed = now[name];
    else follow(field, now[name]);
  }
}
function follow(field, { value, version }) {
  field.missed = undefined;
  if (!(version > field.version)) return;
  Object.assign(field, { value, version });
  field.show(value);
}
// Read-only view, if annotations cannot be saved.
function readOnly(annotations, fault) {
  const { name, note, tags, starred } = annotations.fields ?? {};
  const parts = [
    name?.value && el("p", {}, "Named by a user; suggested name: ", el("q", {}, annotations.suggested)),
    (starred?.value || tags?.value.length > 0) && el("p", {}, starred?.value ? "★ starred " : "", ...(tags?.value ?? []).map((tag) => el("span", { class: "sv-tag" }, el("span", {}, tag)))),
    note?.value && el("p", { class: "sv-note-text" }, note.value),
    fault && el("p", { class: "sv-hint" }, fault),
  ].filter(Boolean);
  return parts.length ? el("section", { class: "sv-dim-notes", "aria-label": "Names and notes" }, ...parts) : "";
}
let at = null;
let opened = null; // the editor of the dimension that is shown
on("annotations-reloaded", async () => {
  const [page, form] = [at, opened];
  if (!form?.box.isConnected) return;
  const now = await Sieve.notes.ask("notes_of", { dimension: page.dimension });
  if (!now.error && opened === form) form.renew(now.fields);
});
function show() {
  if (!at || !Sieve.notes) return;
  const { dimension, annotations, slot } = at;
  const fault = annotations.fault || Sieve.notes.state.fault;
  const how = fault || String(Sieve.notes.editable);
  if (slot.dataset.how === how) return;
  slot.dataset.how = how;
  opened = Sieve.notes.editable && !annotations.fault ? editor(dimension, annotations) : null;
  slot.replaceChildren(opened?.box ?? readOnly(annotations, fault));
}
on("page", (page) => {
  for (const field of unsaved) if (field.stuck) unsaved.delete(field); // its box is gone
  at = page;
  show();
});
on("annotations", show);

// Filter of the table by annotations, and the button for export and import.
let slot = null;
let chosen = "";
const TESTS = {
  starred: ["Starred", (mark) => mark.starred], noted: ["With a note", (mark) => mark.noted], named: ["Named", (mark) => mark.name],
};
function test(choice) {
  if (choice.startsWith("tag:")) return (d) => Sieve.notes.markOf(d).tags?.includes(choice.slice(4)) ?? false;
  return choice ? (d) => Boolean(TESTS[choice][1](Sieve.notes.markOf(d))) : null;
}
const pick = el("select", { "aria-label": "Filter by annotations", onchange: () => { chosen = pick.value; emit("mark-filter", test(chosen)); } });
const files = el("button", { type: "button", class: "sv-icon", "aria-label": "Export or import names and notes", title: "Export or import names and notes", onclick: () => Sieve.notes.openDialog() }, "⇅");
function offer() {
  if (!slot || !Sieve.notes) return;
  const marks = Object.values(Sieve.notes.state.marks);
  const option = (value, words, n) => el("option", { value, disabled: !n && value !== chosen }, `${words} (${n})`);
  const tags = new Map();
  for (const tag of marks.flatMap((mark) => mark.tags ?? [])) tags.set(tag, (tags.get(tag) ?? 0) + 1);
  if (chosen.startsWith("tag:") && !tags.has(chosen.slice(4))) tags.set(chosen.slice(4), 0);
  pick.replaceChildren(el("option", { value: "" }, "All"), ...Object.entries(TESTS).map(([value, [words, has]]) => option(value, words, marks.filter(has).length)),
    ...[...tags].sort().map(([tag, n]) => option(`tag:${tag}`, `Tag: ${tag}`, n)));
  pick.value = chosen;
  if (!slot.firstChild) slot.append(pick, files);
}
on("index", (found) => { slot = found; offer(); });
on("annotations", offer);
