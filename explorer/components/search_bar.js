const { el, on, emit, viewState, sentence } = Sieve;
const find = (selector) => element.querySelector(selector);
const { form, q, without, queryImage, fault, retry, notes, suggestion, tries } = Sieve.parts(element, {
  form: "form", q: "#sv-q", without: "#sv-w", queryImage: ".sv-query-image", fault: ".sv-fault", retry: ".sv-again",
  notes: ".sv-notes", suggestion: ".sv-suggestion", tries: ".sv-try-examples",
});

function submit() {
  const text = q.value.trim();
  const rest = { without: without.value.trim() };
  if (!queryImage.hidden) {
    const { item, upload } = viewState;
    return Sieve.search({ item, upload, preview: queryImage.querySelector("img").src, ...rest });
  }
  if (text) return Sieve.search({ q: text, ...rest });
  q.focus();
  if (!rest.without) return Sieve.clear();
  return Sieve.refuse(Sieve.ONLY_EXCLUDES);
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

Sieve.acceptImages(form, upload, {
  busy: (is) => emit("busy", is),
  fault: (line) => emit("fault", line),
  take: ({ key, preview }) => Sieve.search({ upload: key, preview, without: without.value.trim() }),
});

queryImage.querySelector("button").addEventListener("click", () => {
  if (!Sieve.about.can.text_queries) return Sieve.clear();
  Object.assign(viewState, { item: "", upload: "" });
  queryImage.hidden = true;
  q.hidden = false;
  q.value = "";
  q.focus();
});

on("question", (now) => {
  Sieve.showQuery(form, now, now.preview, `like: ${now.like || "this image"}`);
  tries.hidden = Sieve.hasQuery();
});
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
on("notes", (lines) => notes.replaceChildren(...lines.map((line) => el("li", {}, line))));
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
  for (const field of [q, without]) Object.assign(field, { disabled: true, placeholder: "", title: sentence(can.no_text) });
  q.placeholder = "choose an image below";
  find(".sv-primary").disabled = true;
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
emit("saved-slot", find(".sv-saved"));
// Before the first query the text field has the focus, except on touch screens, where the on-screen
// keyboard would hide the page.
on("samples", () => {
  if (viewState.tab === "search" && document.activeElement === document.body && !matchMedia("(pointer: coarse)").matches) q.focus({ preventScroll: true });
});

Sieve.connect(server);
