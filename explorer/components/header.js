const { el, on, emit } = Sieve;
const about = element.querySelector(".sv-about");
const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

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
element.querySelector(".sv-theme").addEventListener("click", () => {
  const theme = document.body.classList.contains("dark") ? "light" : "dark";
  wear(theme);
  try { localStorage.setItem(KEY, theme); } catch { /* as above */ }
});
