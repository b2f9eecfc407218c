// A tour of four steps, from a first query to the page of a dimension. Each card is placed beside the
// control that it describes and never covers it. The tour starts once on the first visit, and from the
// “?” in the header. Using a control directly also advances the tour.
const { on, viewState } = Sieve;
const card = element.querySelector(".sv-guide");
const text = card.querySelector(".sv-guide-text");
const count = card.querySelector(".sv-guide-step");
const next = card.querySelector(".sv-guide-next");
const KEY = "sieve-guide";
const shown = (selector) => [...document.querySelectorAll(selector)].find((node) => node.checkVisibility());
const hasCards = () => innerWidth > 900 || innerWidth <= 640; // else a group is marked as a whole
let example = null;
let at = -1;
let anchor = null;

const STEPS = [
  {
    at: () => shown("#sieve-search-bar"), sides: ["below"],
    text: () => `Describe what to find, for example “${example.q}”, or choose an example.`,
    does: () => `Search “${example.q}”`,
    act: () => Sieve.search({ q: example.q }),
    done: () => Sieve.hasQuery(),
  },
  {
    at: () => shown(hasCards() ? ".sv-group .sv-dim" : ".sv-group") ?? shown(".sv-list-head"), sides: ["below", "right", "above"],
    text: () => "Your query activates these concepts, each shown with its top images. Uncheck this one to lower the images that have it.",
    does: () => "Next",
    act: () => show(2),
    done: () => false,
  },
  {
    at: () => shown(".sv-field-w"), sides: ["below", "above"],
    text: () => `Or describe what to exclude: “${example.without}”. What matches it is then switched off.`,
    does: () => "Search without it",
    act: () => Sieve.search({ q: viewState.q || example.q, without: example.without }),
    done: () => Boolean(viewState.without),
  },
  {
    at: () => shown(hasCards() ? ".sv-group-off .sv-dim" : ".sv-group-off") ?? shown(".sv-dropped-out"),
    get sides() { return innerWidth > 640 ? ["below", "above"] : ["above", "below"]; }, // images that dropped out are below
    text: () => "This concept is off. Check it to bring its images back, or open its dimension to see what it means. Images that dropped out are shown above the results; “new” marks those that entered.",
    does: () => "Open a dimension",
    act: () => { const d = opened(); close(); Sieve.showDimension(d); },
    done: () => false,
  },
];
const opened = () => Number((shown(".sv-group-off .sv-dim") ?? shown(".sv-dim"))?.dataset.d ?? 0);

function show(step, { focus = false } = {}) {
  anchor?.classList.remove("sv-guided");
  at = step;
  const now = STEPS[step];
  anchor = now.at() ?? null;
  if (!anchor) return close();
  count.textContent = `${step + 1} of ${STEPS.length}`;
  text.textContent = now.text();
  next.textContent = now.does();
  card.querySelector(".sv-guide-close").textContent = step === STEPS.length - 1 ? "Done" : "Not now";
  anchor.classList.add("sv-guided");
  // With the “?” as its source, the card follows it in the order of Tab.
  if (!card.matches(":popover-open")) card.showPopover({ source: document.querySelector(".sv-help") });
  reveal();
  if (focus) next.focus();
}
// Scroll until the card fits beside its anchor without covering it.
function reveal() {
  anchor.scrollIntoView({ block: "nearest", behavior: "instant" });
  const room = card.offsetHeight + 16;
  const { top, bottom } = anchor.getBoundingClientRect();
  const below = innerHeight - bottom;
  if (innerWidth <= 900 && below < room && top < room) scrollBy({ top: room - below, behavior: "instant" });
  settle();
}
function settle() {
  if (at >= 0 && anchor?.isConnected) Sieve.putBeside(card, anchor, STEPS[at].sides, 12);
}
function close() {
  const had = card.contains(document.activeElement);
  at = -1;
  anchor?.classList.remove("sv-guided");
  anchor = null;
  if (card.matches(":popover-open")) card.hidePopover();
  if (had) document.getElementById("sv-q")?.focus({ preventScroll: true });
}
function start(focus) {
  remember();
  if (!example) return;
  Sieve.showTab("search");
  requestAnimationFrame(() => show(0, { focus }));
}
function remember() {
  try { localStorage.setItem(KEY, "seen"); } catch { /* storage may be blocked */ }
}
function isNew() {
  try { return localStorage.getItem(KEY) === null; } catch { return false; }
}

next.addEventListener("click", () => STEPS[at]?.act());
card.querySelector(".sv-guide-close").addEventListener("click", close);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && at >= 0 && !document.querySelector("dialog[open]")) close();
});
for (const moved of ["scroll", "resize"]) addEventListener(moved, settle, { capture: true, passive: true });

// A search can advance the tour; place the card after the page is laid out.
on("answer", () => {
  if (at < 0) return;
  const focus = card.contains(document.activeElement);
  // Skip the “without” step if the user has already used it.
  const step = at < 3 && viewState.without ? 3 : at === 0 || at === 2 ? at + (STEPS[at].done() ? 1 : 0) : at;
  requestAnimationFrame(() => {
    if (at < 0) return;
    if (step === at && anchor.isConnected) settle(); // a toggle must not scroll the page
    else show(step, { focus });
  });
});
on("tab", (tab) => { if (tab !== "search" && at >= 0) close(); });
on("dimension", (dimension) => { if (dimension !== null && viewState.tab !== "search") close(); });
on("guide", () => start(true));
on("about", ({ can, examples }) => {
  example = can.text_queries && card.showPopover ? (examples ?? []).find((one) => one.q && one.without) ?? null : null;
});
on("samples", () => { if (example && viewState.tab === "search" && isNew()) start(false); });
