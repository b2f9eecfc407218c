const { el, on, emit, viewState, sentence } = Sieve;
const find = (selector) => element.querySelector(selector);
const { form, q, without, queryImage, fault, retry, notes, suggestion, tries } = Sieve.parts(element, {
  form: "form", q: "#sv-q", without: "#sv-w", queryImage: ".sv-query-image", fault: ".sv-fault", retry: ".sv-again",
  notes: ".sv-notes", suggestion: ".sv-suggestion", tries: ".sv-try-examples",
});

// The terms of the query are chips that can be edited, removed, weighed, and moved between the two fields.
// A single text is no chip: it stays in its field as it was typed.
let terms = [];
const PICTURE = "🖼";
const fields = [q, without].map((input) => {
  const list = el("ul", { class: "sv-query-terms", "aria-label": input === q ? "Terms to find" : "Terms to exclude", hidden: true });
  input.before(list);
  return { input, list, chips: [], hint: input.placeholder, excluded: input === without };
});
const isText = (term) => term.kind === "text" && term.weight === 1;
function drawTerms() {
  const focused = document.activeElement;
  const key = element.contains(focused) ? focused.dataset.key : "";
  const byKeyboard = key && focused.matches(":focus-visible");
  const { input: next } = fields.find(({ list }) => list.contains(focused)) ?? {};
  for (const field of fields) {
    const own = terms.filter((term) => term.excluded === field.excluded);
    const stays = own.length === 1 && (isText(own[0]) || (!field.excluded && !viewState.q));
    field.chips = stays ? [] : own;
    field.list.hidden = stays || !own.length;
    field.list.replaceChildren(...field.chips.map(chip));
    if (!stays) field.input.value = "";
    else if (isText(own[0])) field.input.value = own[0].edit;
    field.input.placeholder = own.length && !(stays && isText(own[0])) ? "add" : field.hint;
  }
  moveText.hidden = !terms.some((term) => term.excluded) || fields[1].chips.length > 0;
  const same = key && [...element.querySelectorAll("[data-key]")].find((node) => node.dataset.key === key);
  if (same) same.focus();
  else if (byKeyboard) next?.focus(); // its term was removed
}
// The chips stay until the answer, so that the focus does too.
function searchTerms(all) {
  own = all.some((term) => !term.excluded);
  return Sieve.searchTerms(all);
}
function chip(term) {
  const { label, kind, weight, value } = term;
  const id = `${kind} ${label}`;
  const others = terms.filter((one) => one !== term);
  const change = (values) => searchTerms(terms.map((one) => (one === term ? { ...one, ...values } : one)));
  const edit = () => {
    const field = fields[Number(term.excluded)];
    terms = others;
    drawTerms();
    if (!field.chips.length && field.input.value) field.input.value += term.excluded ? ", " : " + ";
    field.input.value += term.edit;
    field.input.focus();
    field.input.select();
  };
  const pressed = (event) => {
    const steps = { ArrowUp: 2, ArrowDown: 0.5 };
    if (event.key === "Delete" || event.key === "Backspace") searchTerms(others);
    else if (steps[event.key]) change({ weight: Math.min(Math.max(weight * steps[event.key], 0.06), 64) });
    else return;
    event.preventDefault();
  };
  const src = kind === "item" ? Sieve.thumbnail(value) : Sieve.previews.get(value);
  const picture = src ? el("img", { src, alt: "", width: 24, height: 24, draggable: "false" }) : kind === "image" && el("span", { "aria-hidden": "true" }, PICTURE);
  const times = weight === 1 ? "" : `${weight} × `;
  const node = el("li", { class: `sv-query-term${term.excluded ? " sv-query-term-off" : ""}`, draggable: "true", ondragstart: (event) => drag(event, term) },
    el("button", { type: "button", class: "sv-chip-label", "data-key": `edit ${id}`, onclick: edit, onkeydown: pressed,
      title: "Press to edit, or ↑ and ↓ to change its weight. Drag it to the other field." }, picture, el("span", {}, `${times}${label}`)),
    el("button", { type: "button", class: "sv-icon", "data-key": `move ${id}`, "aria-label": term.excluded ? `Find ${label}` : `Exclude ${label}`,
      title: term.excluded ? "Find it instead" : "Exclude it instead", onclick: () => change({ excluded: !term.excluded }) }, "⇄"),
    el("button", { type: "button", class: "sv-icon", "data-key": `remove ${id}`, "aria-label": `Remove ${label}`, title: "Remove", onclick: () => searchTerms(others) }, "×"));
  return node;
}
// Dragging between the fields.
const DRAGGED = "application/x-sieve-term";
let dragged = null;
function drag(event, term) {
  dragged = term;
  event.dataTransfer.setData(DRAGGED, "");
  event.dataTransfer.effectAllowed = "move";
}
const moveText = find(".sv-move-text");
const onlyExcluded = () => terms.find((term) => term.excluded);
const moved = (term) => searchTerms(terms.map((one) => (one === term ? { ...one, excluded: !one.excluded } : one)));
moveText.addEventListener("click", () => moved(onlyExcluded()));
moveText.addEventListener("dragstart", (event) => drag(event, onlyExcluded()));
for (const { input, excluded } of fields) {
  const box = input.closest(".sv-field");
  const accepts = (event) => dragged && dragged.excluded !== excluded && event.dataTransfer.types.includes(DRAGGED);
  box.addEventListener("dragover", (event) => {
    if (!accepts(event)) return;
    event.preventDefault();
    event.stopPropagation();
    box.classList.add("sv-drop-here");
  });
  box.addEventListener("dragleave", () => box.classList.remove("sv-drop-here"));
  box.addEventListener("drop", (event) => {
    box.classList.remove("sv-drop-here");
    if (!accepts(event)) return;
    event.preventDefault();
    event.stopPropagation();
    moved(dragged);
    dragged = null;
  });
  input.addEventListener("keydown", (event) => {
    const field = fields[Number(excluded)];
    if (event.key !== "Backspace" || input.value || !field.chips.length) return;
    event.preventDefault();
    field.list.lastChild.querySelector(".sv-chip-label").click();
  });
}

// The query as written: chips, then what is typed.
function written({ input, chips, excluded }) {
  const typed = input.value.trim();
  const parts = chips.map(Sieve.writeTerm);
  if (!excluded && !queryImage.hidden) parts.push(...terms.filter((term) => !term.excluded).map(Sieve.writeTerm));
  if (!parts.length) return typed;
  if (!excluded && /^[-−!+]/.test(typed)) return `${parts.join(" + ")} ${typed.replace(/^\+\s*/, "+ ")}`;
  return [...parts, ...(typed ? [typed] : [])].join(excluded ? ", " : " + ");
}
let own = false; // whether this form asked for the query that is awaited
function submit() {
  const [text, rest] = fields.map(written);
  own = true;
  if (text) return Sieve.search({ q: text, without: rest });
  q.focus();
  if (rest) return Sieve.refuse(Sieve.ONLY_EXCLUDES);
  return Sieve.clear().then(() => emit("notes", ["Enter something to find."]));
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

Sieve.acceptImages(form, upload, {
  busy: (is) => emit("busy", is),
  fault: (line) => emit("fault", line),
  // An image replaces what is found, or is added to several terms; in the other field, it is excluded.
  take: ({ key, preview }, target) => {
    Sieve.previews.set(key, preview);
    const excluded = Boolean(target?.closest?.(".sv-field-w")) && terms.length > 0;
    if (excluded || fields[0].chips.length || !queryImage.hidden) return Sieve.addTerm(`image:${key}`, excluded);
    return Sieve.search({ upload: key, preview, without: written(fields[1]) });
  },
});

queryImage.querySelector("button").addEventListener("click", () => {
  if (!Sieve.about.can.text_queries) return Sieve.clear();
  Object.assign(viewState, { item: "", upload: "" });
  terms = terms.filter((term) => term.excluded);
  queryImage.hidden = true;
  q.hidden = false;
  q.value = "";
  q.focus();
});

on("question", (now) => {
  tries.hidden = Sieve.hasQuery();
  if (!now.terms && own) return; // the form shows it already
  own = false;
  terms = now.terms ?? [];
  Sieve.showQuery(form, now, now.preview || Sieve.previews.get(now.upload), `like: ${now.like || "this image"}`);
  q.hidden = false;
  drawTerms();
  if (!now.terms) for (const { input, excluded } of fields) input.value = excluded ? now.without : now.q;
});
on("cleared", () => { own = false; });
on("fault", (line) => { fault.textContent = line; });
let repeat = null;
let before = null; // element that had the focus before the error
on("again", (ask) => {
  repeat = ask;
  if (ask && retry.hidden) before = document.activeElement;
  const hadFocus = !ask && document.activeElement === retry;
  retry.hidden = !ask;
  if (hadFocus) (before?.isConnected && before !== document.body ? before : find(".sv-primary")).focus({ preventScroll: true });
});
retry.addEventListener("click", () => repeat?.());
on("notes", (lines) => {
  // How a query is read is also shown by its chips; where there is little space, the note is hidden.
  const repeats = (line) => /^Read as /.test(line) && fields.every(({ chips, input }) => chips.length || input.value);
  notes.replaceChildren(...lines.map((line) => el("li", { class: repeats(line) && "sv-repeats" }, line)));
});
on("suggestion", (other) => {
  suggestion.hidden = !other;
  if (!other) return;
  suggestion.replaceChildren("Search ", other.query, el("span", { class: "sv-minus" }, " without "), other.without);
  suggestion.onclick = () => Sieve.search({ q: other.query, without: other.without });
});
on("busy", (busy) => form.toggleAttribute("aria-busy", busy));
on("about", ({ can }) => {
  find(".sv-pick").hidden = !can.image_queries;
  if (can.text_queries) return;
  for (const field of fields) field.input.title = sentence(can.no_text);
  fields[0].input.placeholder = fields[0].hint = "concept:17, or choose an image below";
  fields[1].input.placeholder = fields[1].hint = "concept:17";
  find(".sv-muted-text").textContent = sentence(can.no_text);
});
on("about", ({ examples }) => {
  if (!examples.length) return;
  tries.replaceChildren(
    el("span", { class: "sv-try-label" }, "Try"),
    ...examples.map((example) =>
      el("button", { type: "button", class: "sv-pill", onclick: () => Sieve.search(example) },
        example.q, example.without && el("span", { class: "sv-minus" }, " without "), example.without)),
  );
});
emit("filter-slot");
emit("saved-slot", find(".sv-saved"));
// Before the first query the text field has the focus, except on touch screens, where the on-screen
// keyboard would hide the page.
on("samples", () => {
  if (viewState.tab === "search" && document.activeElement === document.body && !matchMedia("(pointer: coarse)").matches) q.focus({ preventScroll: true });
});

Sieve.connect(server);
