const { el, on, emit, count } = Sieve;
const about = element.querySelector(".sv-about");

on("about", (facts) => {
  about.replaceChildren(...[
    el("strong", {}, facts.collection),
    el("span", {}, count(facts.items, "image")),
    facts.dimensions && el("span", {}, count(facts.dimensions, "dimension")),
    ...(facts.backbone ? [
      el("span", { title: "The frozen model that embeds images and texts" }, `backbone ${facts.backbone}`),
      el("span", { title: "The sparse encoder" }, facts.checkpoint ? `checkpoint ${facts.checkpoint}` : "no checkpoint yet"),
    ] : [el("span", { title: "There is no backbone: the codes came with the collection" }, "codes from elsewhere")]),
  ].filter(Boolean));
});

// Lines that hold for the whole page, on every tab: what of a link could not be used, and which
// checkpoint is open if another could be expected.
const banner = element.querySelector(".sv-banner");
const lines = { link: [], checkpoint: [] };
function tell(kind, told) {
  lines[kind] = told;
  banner.replaceChildren(...Object.entries(lines).flatMap(([of, texts]) => texts.map((text) => el("li", {},
    el("span", {}, text),
    el("button", { type: "button", class: "sv-icon", "aria-label": "Dismiss", onclick: () => tell(of, lines[of].filter((one) => one !== text)) }, "×")))));
}
on("link-notes", (told) => tell("link", told));
on("about", ({ checkpoint_note: note }) => tell("checkpoint", note ? [note] : []));

// Gradio follows the system; a choice made here is kept for the next visit.
const KEY = "sieve-theme";
function wear(theme) {
  document.body.classList.toggle("dark", theme === "dark");
  emit("theme", theme);
}
try {
  const kept = localStorage.getItem(KEY);
  if (kept && !new URLSearchParams(location.search).has("__theme")) wear(kept);
} catch { /* storage may be forbidden */ }
element.querySelector(".sv-light").addEventListener("click", () => {
  const theme = document.body.classList.contains("dark") ? "light" : "dark";
  wear(theme);
  try { localStorage.setItem(KEY, theme); } catch { /* as above */ }
});

// The address is kept up to date by whatever is done, so it is what is shared.
const share = element.querySelector(".sv-share");
share.addEventListener("click", async () => {
  const link = location.href;
  if (Sieve.place.upload && Sieve.place.tab === "search") {
    return Sieve.explain(share, "A search by an image of yours has no link: the image is not kept.");
  }
  if (await Sieve.copied(link)) return Sieve.explain(share, "Link copied. It leads to just this view.");
  const field = el("input", { type: "text", readonly: true, "aria-label": "Link to this view" });
  field.value = link;
  Sieve.explain(share, "Copy the link to this view:", field);
  field.select();
});

const help = element.querySelector(".sv-help");
help.addEventListener("click", () => emit("guide", null, { keep: false }));
on("about", ({ can, examples }) => { help.hidden = !can?.text_queries || !examples?.some((one) => one.without); });
