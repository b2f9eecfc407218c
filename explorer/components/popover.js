// What floats over the page, for all components: a bubble that explains a word, and a menu of files to
// take away. Both are popovers of the browser, so nothing clips them and the page does not move.
Object.assign(window.Sieve, (() => {
  const { el } = window.Sieve;
  const MARGIN = 8;

  // Puts a box beside what it is about, on the first side where it fits whole; never over it.
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

  // The bubble: one for the page. It closes by Escape, by a click elsewhere and when the page moves.
  let bubble = null;
  let told = null;
  let owner = null;
  function makeBubble() {
    const home = document.querySelector(".gradio-container") ?? document.body;
    bubble = el("div", { class: "sv-bubble", popover: "manual" });
    told = el("div", { class: "sv-unseen", role: "status" });
    home.append(bubble, told);
    addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });
    addEventListener("pointerdown", ({ target }) => { if (!bubble.contains(target) && !owner?.contains(target)) hush(); }, true);
    for (const moved of ["scroll", "resize"]) addEventListener(moved, () => hush(), { capture: true, passive: true });
  }
  function explain(anchor, ...content) {
    if (!bubble) makeBubble();
    owner?.setAttribute("aria-expanded", "false");
    owner = anchor;
    if (anchor.classList.contains("sv-term")) anchor.setAttribute("aria-expanded", "true");
    bubble.replaceChildren(...content.filter(Boolean));
    if (!bubble.matches(":popover-open")) bubble.showPopover();
    putBeside(bubble, anchor, ["above", "below"]); // what a word names stands below it
    told.textContent = bubble.textContent;
  }
  function hush(of = owner) {
    if (!owner || of !== owner) return;
    if (owner.classList.contains("sv-term")) owner.setAttribute("aria-expanded", "false");
    owner = null;
    bubble.hidePopover();
    told.textContent = "";
  }

  // A word that explains itself: by pointing, by touch, and by Enter or Space.
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
        else hush(button);
      },
      onpointerenter: ({ pointerType }) => {
        if (pointerType === "mouse" && owner !== button) pointing = setTimeout(() => { pinned = false; open(); }, 250);
      },
      onpointerleave: () => { clearTimeout(pointing); if (!pinned) hush(button); },
      onblur: () => hush(button),
    }, word);
    return button;
  }

  // A file that a server function made: handed over as the browser does with downloads.
  async function save(made) {
    const url = URL.createObjectURL(await (await fetch(made.url)).blob());
    el("a", { href: url, download: made.name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  // A quiet menu of the kinds of file that something can be taken away as.
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
      onclick: async ({ target }) => { target.textContent = (await copied(command)) ? "copied" : command; },
    }, command);
    const menu = el("div", { class: "sv-menu", id, popover: "auto", role: "group", "aria-label": `Export ${what}` },
      ...kinds, fault, copy && el("p", { class: "sv-menu-note" }, "Codes of all items, on the command line: ", copy));
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

  // Copies where the browser lets us; tells whether it did.
  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }

  return { putBeside, explain, hush, term, save, exportMenu, copied };
})());
