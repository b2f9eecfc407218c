// Keyboard pattern of ARIA tabs: the tab list is one Tab stop, arrows move within it, Enter opens.
addEventListener("keydown", (event) => {
  const list = event.target.closest?.("#sieve-tabs [role=tablist]");
  if (!list || event.target.getAttribute("role") !== "tab") return;
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const at = tabs.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  tabs.at(to % tabs.length).focus();
});
// The open tab is the Tab stop.
let typing = false;
addEventListener("keydown", () => { typing = true; }, true);
addEventListener("pointerdown", () => { typing = false; }, true);
Sieve.on("tab", () => requestAnimationFrame(setTabStop));
Sieve.on("about", () => requestAnimationFrame(setTabStop));
function setTabStop() {
  for (const tab of document.querySelectorAll("#sieve-tabs [role=tablist] [role=tab]")) {
    tab.tabIndex = tab.getAttribute("aria-selected") === "true" ? 0 : -1;
  }
}
// The focused element may be hidden with its tab: move the focus to the new tab.
Sieve.on("tab", () => requestAnimationFrame(() => {
  if (!typing) return; // the keyboard is not in use, or a link was just opened
  const at = document.activeElement;
  if (at && at !== document.body && at.checkVisibility()) return;
  document.getElementById(`tab-${Sieve.viewState.tab}-button`)?.focus({ preventScroll: true });
}));
