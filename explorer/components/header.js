const { el, on, emit, count } = Sieve;
const about = element.querySelector(".sv-about");

on("about", (facts) => {
  about.replaceChildren(...[
    el("strong", {}, facts.collection),
    el("span", {}, count(facts.items, "image")),
    facts.dimensions && el("span", {}, count(facts.dimensions, "dimension")),
    ...(facts.backbone ? [
      el("span", { title: "Frozen model that embeds images and text" }, `backbone ${facts.backbone}${facts.can?.texts_by_captions || facts.can?.no_text ? " (unavailable)" : ""}`),
      facts.checkpoint ? el("button", { type: "button", class: "sv-about-checkpoint", title: "How good this trained sparse encoder is", onclick: () => emit("checkpoint-panel", null, { keep: false }) }, `checkpoint ${facts.checkpoint}`)
        : el("span", { title: "Trained sparse encoder" }, "no checkpoint yet"),
    ] : [el("span", { title: "The collection provides its own codes, so there is no backbone" }, "external codes")]),
  ].filter(Boolean));
});

// Messages shown on every tab: parts of a link that could not be used, the open checkpoint if
// another could be expected, and once, why texts are not encoded by the backbone.
const banner = element.querySelector(".sv-banner");
const shown = { link: [], checkpoint: [], reading: [] };
function showMessages(kind, lines) {
  shown[kind] = lines;
  banner.replaceChildren(...Object.entries(shown).flatMap(([of, texts]) => texts.map(([text, ...offer]) => el("li", {},
    el("span", {}, text, ...offer),
    el("button", { type: "button", class: "sv-icon", "aria-label": "Dismiss", onclick: () => showMessages(of, shown[of].filter(([one]) => one !== text)) }, "×")))));
}
on("link-notes", (lines) => showMessages("link", lines.map((line) => [line])));
const readingNotes = new Set();
on("reading-note", (line) => {
  if (readingNotes.has(line)) return; // it is shown already, or was dismissed
  readingNotes.add(line);
  showMessages("reading", [[line]]);
});
on("about", ({ collection, checkpoint_choice: choice }) => {
  const { reason, other } = choice ?? {};
  const canOpen = server?.sieve_checkpoint_open;
  const offer = other && (canOpen
    ? el("button", { type: "button", class: "sv-link", onclick: ({ target }) => change(other, target) }, `Open ${other}`)
    : el("code", {}, `sieve explore ${collection} --checkpoint ${other}`));
  showMessages("checkpoint", reason ? [[reason, ...(offer ? [" ", offer] : [])]] : []);
});

// The server opens the other checkpoint at the same address, and the page comes back with it.
async function change(other, button) {
  Object.assign(button, { disabled: true, textContent: `Opening ${other} …` });
  const answer = await Sieve.call(server.sieve_checkpoint_open, other);
  if (answer.error) return showMessages("checkpoint", [[answer.error]]);
  for (let tries = 0; tries < 120; tries += 1) {
    await new Promise((done) => { setTimeout(done, 700); });
    if (await Sieve.outdated()) return location.reload();
  }
  showMessages("checkpoint", [[`${other} could not be opened. See the output of “sieve explore” for the reason.`]]);
}

// Gradio follows the system theme; a choice made here is stored for the next visit.
const KEY = "sieve-theme";
function applyTheme(theme) {
  document.body.classList.toggle("dark", theme === "dark");
  emit("theme", theme);
}
try {
  const stored = localStorage.getItem(KEY);
  if (stored && !new URLSearchParams(location.search).has("__theme")) applyTheme(stored);
} catch { /* storage may be blocked */ }
element.querySelector(".sv-light").addEventListener("click", () => {
  const theme = document.body.classList.contains("dark") ? "light" : "dark";
  applyTheme(theme);
  try { localStorage.setItem(KEY, theme); } catch { /* as above */ }
});

// The URL always describes the view, so it is the link to share.
const share = element.querySelector(".sv-share");
share.addEventListener("click", async () => {
  const link = location.href;
  if (Sieve.hasUpload() && Sieve.viewState.tab === "search") {
    return Sieve.explain(share, "A search by an uploaded image cannot be shared, because the image is not stored.");
  }
  if (await Sieve.copied(link)) return Sieve.explain(share, "Link copied. It opens exactly this view.");
  const field = el("input", { type: "text", readonly: true, "aria-label": "Link to this view" });
  field.value = link;
  Sieve.explain(share, "Copy the link to this view:", field);
  field.select();
});

// Beside Export and Save, where there are results and room.
const actions = share.parentElement;
const wide = matchMedia("(min-width: 641px)");
let head = null;
function placeShare() {
  const beside = head && wide.matches && Sieve.viewState.tab === "search" && Sieve.hasQuery();
  if (beside && share.parentElement !== head) head.append(share);
  if (!beside && share.parentElement !== actions) actions.prepend(share);
}
on("results-head", (found) => { head = found; placeShare(); });
for (const event of ["answer", "cleared", "samples", "tab"]) on(event, placeShare);
wide.addEventListener("change", placeShare);

const help = element.querySelector(".sv-help");
help.addEventListener("click", () => emit("guide", null, { keep: false }));
on("about", ({ can, examples }) => { help.hidden = !can?.text_queries || !examples?.some((one) => one.without); });
