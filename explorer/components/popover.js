// Popovers shared by all components: help bubbles and export menus. They use the popover API, so
// nothing clips them and the layout does not shift.
Object.assign(window.Sieve, (() => {
  const { el } = window.Sieve;
  const MARGIN = 8;

  // Place a box beside its anchor, on the first side where it fits, without covering the anchor.
  function putBeside(box, anchor, sides = ["below", "above"], gap = 8) {
    const about = anchor.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = box;
    const within = (value, size, room) => Math.max(MARGIN, Math.min(value, room - size - MARGIN));
    const start = about.left + width + MARGIN > innerWidth ? about.right - width : about.left;
    const [left, top] = [within(start, width, innerWidth), within(about.top, height, innerHeight)];
    const places = {
      below: [left, about.bottom + gap],
      above: [left, about.top - gap - height],
      right: [about.right + gap, top],
      left: [about.left - gap - width, top],
    };
    const fits = ([x, y]) => x >= 0 && y >= 0 && x + width <= innerWidth && y + height <= innerHeight;
    const [x, y] = places[sides.find((side) => fits(places[side])) ?? sides[0]];
    Object.assign(box.style, { left: `${x}px`, top: `${y}px` });
  }

  // One bubble per page. It closes on Escape, on a click elsewhere and on scroll.
  let bubble = null;
  let announcer = null;
  let owner = null;
  function makeBubble() {
    const home = document.querySelector(".gradio-container") ?? document.body;
    bubble = el("div", { class: "sv-bubble", popover: "manual" });
    announcer = el("div", { class: "sv-visually-hidden", role: "status" });
    home.append(bubble, announcer);
    addEventListener("keydown", (event) => { if (event.key === "Escape") closeBubble(); });
    addEventListener("pointerdown", ({ target }) => { if (!bubble.contains(target) && !owner?.contains(target)) closeBubble(); }, true);
    for (const moved of ["scroll", "resize"]) addEventListener(moved, () => closeBubble(), { capture: true, passive: true });
  }
  function explain(anchor, ...content) {
    if (!bubble) makeBubble();
    owner?.setAttribute("aria-expanded", "false");
    owner = anchor;
    if (anchor.classList.contains("sv-term")) anchor.setAttribute("aria-expanded", "true");
    bubble.replaceChildren(...content.filter(Boolean));
    if (!bubble.matches(":popover-open")) bubble.showPopover();
    putBeside(bubble, anchor, ["above", "below"]); // the content that a term names is below it
    announcer.textContent = bubble.textContent;
  }
  function closeBubble(of = owner) {
    if (!owner || of !== owner) return;
    if (owner.classList.contains("sv-term")) owner.setAttribute("aria-expanded", "false");
    owner = null;
    bubble.hidePopover();
    announcer.textContent = "";
  }

  // A term with a help bubble, opened by hover, touch, Enter or Space.
  function term(word, ...meaning) {
    let pointing = 0;
    let pinned = false;
    const open = () => explain(button, ...meaning);
    const button = el("button", {
      type: "button", class: "sv-term", "aria-expanded": "false",
      onclick: (event) => {
        event.preventDefault();
        event.stopPropagation();
        clearTimeout(pointing);
        pinned = !(owner === button && pinned);
        if (pinned) open();
        else closeBubble(button);
      },
      onpointerenter: ({ pointerType }) => {
        if (pointerType === "mouse" && owner !== button) pointing = setTimeout(() => { pinned = false; open(); }, 250);
      },
      onpointerleave: () => { clearTimeout(pointing); if (!pinned) closeBubble(button); },
      onblur: () => closeBubble(button),
    }, word);
    return button;
  }

  // Download a file that a server function made.
  async function save(made) {
    const url = URL.createObjectURL(await (await fetch(made.url)).blob());
    el("a", { href: url, download: made.name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  // Menu of export formats.
  let menus = 0;
  function exportMenu(what, make) {
    const id = `sv-export-${(menus += 1)}`;
    const fault = el("p", { class: "sv-menu-fault", role: "alert" });
    const kinds = ["csv", "json", "parquet"].map((kind) => el("button", {
      type: "button", class: "sv-menu-item",
      onclick: async ({ target }) => {
        target.setAttribute("aria-busy", "true");
        const made = await make(kind);
        target.removeAttribute("aria-busy");
        fault.textContent = made.error ?? "";
        if (made.error) return;
        await save(made);
        menu.hidePopover();
      },
    }, kind === "parquet" ? "Parquet" : kind.toUpperCase()));
    const command = Sieve.about.export_codes;
    const copy = command && el("button", {
      type: "button", class: "sv-copy", "aria-label": "Copy the command",
      onclick: async ({ target }) => { target.textContent = (await copied(command)) ? "Copied" : command; },
    }, command);
    const menu = el("div", { class: "sv-menu", id, popover: "auto", role: "group", "aria-label": `Export ${what}` },
      ...kinds, fault, copy && el("p", { class: "sv-menu-note" }, "To export the codes of all items, run: ", copy));
    const button = el("button", { type: "button", class: "sv-plain", popovertarget: id }, "Export");
    menu.addEventListener("beforetoggle", () => { menu.style.visibility = "hidden"; });
    menu.addEventListener("toggle", ({ newState }) => {
      if (newState !== "open") return;
      if (copy) copy.textContent = command;
      fault.textContent = "";
      putBeside(menu, button);
      menu.style.visibility = "";
    });
    return [button, menu];
  }

  // Copy to the clipboard; return whether the browser allowed it.
  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }

  return { putBeside, explain, closeBubble, term, save, exportMenu, copied };
})());
