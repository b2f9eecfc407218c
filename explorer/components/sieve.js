// Shared by all components: the view state, events, requests of which only the latest matters, and DOM
// helpers that never parse text as HTML. Gradio mounts the components of a tab when it is first shown,
// so the latest event of each name is replayed to late listeners.
window.Sieve ??= (() => {
  const heard = new Map();
  const last = new Map();

  function on(name, listener) {
    if (!heard.has(name)) heard.set(name, new Set());
    heard.get(name).add(listener);
    if (last.has(name)) listener(last.get(name));
    return () => heard.get(name).delete(listener);
  }
  function emit(name, data, { keep = true } = {}) {
    if (keep) last.set(name, data);
    for (const listener of heard.get(name) ?? []) listener(data);
  }

  const SETTINGS = window.sieveSettings;
  const EMPTY_QUERY = { q: "", without: "", item: "", upload: "", off: null, strictness: 1, never: false, limit: SETTINGS.presence_limit };
  const viewState = {
    ...EMPTY_QUERY, where: "",
    compare: false, tab: "search", dimension: null,
    atlas: "", inspect: "", versus: "", figure: "", benchmark: "",
  };
  // URL parameter of each tab.
  const TAB_TEXTS = {
    dimensions: "atlas", inspect: "inspect", compare: "versus", figure: "figure", benchmark: "benchmark",
  };
  let server = null;
  let searchLink = "";
  let preview = "";
  let title = "";
  let terms = []; // of the query
  const previews = new Map(); // of uploaded images
  let proposed = [];

  // One request at a time. While it runs, only the latest change is remembered, so fast clicks end in
  // the last state and never queue up.
  let busy = false;
  let next = null;
  async function ask(options) {
    next = { ...options, list: options.list || next?.list, push: options.push || next?.push };
    if (busy || !server) return;
    busy = true;
    emit("busy", true);
    while (next) {
      const now = next;
      next = null;
      const answer = await Sieve.call(server.sieve_ask, { ...viewState, list: now.list === true }, () => next !== null);
      if (next && answer.busy) next = { list: next.list || now.list, push: next.push || now.push };
      if (next?.list || (next && answer.busy)) continue;
      take(answer, now);
      emit("again", answer.busy || answer.gone ? () => ask(now) : null);
    }
    busy = false;
    emit("busy", false);
  }

  function take(answer, { list = false, push = false } = {}) {
    if (answer.error) {
      if (list && !answer.busy && !answer.gone) return refuse(answer.error);
      emit("outdated", true);
      return emit("fault", answer.error);
    }
    emit("outdated", false);
    emit("fault", "");
    if (list) {
      Object.assign(viewState, { q: answer.q, without: answer.without, item: answer.item, upload: answer.upload, off: answer.off });
      ({ proposed, terms, title } = answer);
      preview = answer.upload ? previews.get(answer.upload) ?? preview : "";
      emit("question", { ...viewState, preview, like: answer.like, title, terms });
      emit("notes", answer.notes);
      emit("suggestion", answer.suggestion);
      emit("dimensions", answer);
      remember(answer);
    }
    emit("answer", answer);
    searchLink = answer.link;
    updateTitle();
    writeAddress(push);
  }

  // Clear the previous results if a query is refused.
  function refuse(line) {
    for (const name of ["answer", "dimensions"]) last.delete(name);
    Object.assign(viewState, { q: "", item: "", upload: "", off: null });
    searchLink = "";
    terms = [];
    emit("outdated", false);
    emit("cleared");
    emit("notes", []);
    emit("suggestion", null);
    emit("fault", line);
    updateTitle();
    writeAddress(false);
  }

  // Searches of this browser tab, listed on the pages of the dimensions that they used.
  const MAX_SEARCHES = 50;
  const searchesKey = () => `sieve-searches ${about.collection} ${about.checkpoint}`;
  function searches() {
    try { return JSON.parse(sessionStorage.getItem(searchesKey())) ?? []; } catch { return []; }
  }
  function remember({ q, without, like, dimensions }) {
    const { item } = viewState;
    if (hasUpload()) return; // the image is lost when the page is closed
    const now = { q, without, item, like, dimensions: dimensions.map((row) => row.d) };
    const same = (one) => one.q === q && one.without === without && one.item === item;
    const recent = [now, ...searches().filter((one) => !same(one))].slice(0, MAX_SEARCHES);
    try { sessionStorage.setItem(searchesKey(), JSON.stringify(recent)); } catch { /* storage may be blocked or full */ }
  }

  function updateTitle() {
    const query = (viewState.q && (title || viewState.q)) || (viewState.item || viewState.upload ? "like an image" : "");
    const without = query && viewState.without ? ` without ${viewState.without}` : "";
    document.title = `${query ? `${query}${without}` : about.collection} · Sieve`;
  }

  function search(query, { push = true } = {}) {
    const { preview: shown = "", ...fields } = query;
    preview = shown;
    [title, terms] = ["", []];
    Object.assign(viewState, { q: "", without: "", item: "", upload: "" }, fields, { off: null });
    emit("question", { ...viewState, preview });
    showTab("search");
    return ask({ list: true, push });
  }
  // Search for terms, each with a sign and a weight.
  const writeTerm = ({ text, weight = 1 }) => `${weight === 1 ? "" : `${weight}:`}${text}`;
  function searchTerms(all) {
    const written = (excluded) => all.filter((term) => Boolean(term.excluded) === excluded).map(writeTerm);
    return search({ q: written(false).join(" + "), without: written(true).join(", ") });
  }
  const addTerm = (text, excluded = false) => searchTerms([...terms, { text, excluded }]);
  function clear() {
    Object.assign(viewState, { q: "", without: "", item: "", upload: "", off: null });
    preview = "";
    const kept = viewState.where ? `?${new URLSearchParams({ where: viewState.where })}` : "";
    history.pushState(null, "", location.pathname + kept);
    return open(kept);
  }
  function change(values, options = {}) {
    Object.assign(viewState, values);
    emit("switches", { ...viewState });
    if (values.where !== undefined) emit("filtered", viewState.where);
    if (hasQuery()) return ask(options);
    if (values.where !== undefined) writeAddress(Boolean(options.push));
  }
  const hasQuery = () => Boolean(viewState.q || viewState.item || viewState.upload);

  // The query of the Search tab, for tabs that follow it.
  function query() {
    const { q, item, upload, without, off, strictness, never, limit } = viewState;
    return { q, item, upload, without, off, strictness, never, limit, preview: upload ? preview : "" };
  }
  const sameQuery = (a, b) => Object.keys(query()).every((name) => name === "preview" || String(a[name]) === String(b[name]));

  const hasUpload = () => Boolean(viewState.upload) || terms.some((term) => term.kind === "image");
  // A URL cannot contain an uploaded image, so the history state holds the search and the previews.
  function uploadState() {
    const { preview: _, ...search } = query();
    return { search, previews: [...previews].filter(([key]) => key === search.upload || `${search.q} ${search.without}`.includes(key)) };
  }
  // URL: the search as serialised by the server, plus the tab and dimension.
  function writeAddress(push) {
    const old = new URLSearchParams(location.search);
    const now = new URLSearchParams(searchLink);
    if (old.has("__theme")) now.set("__theme", old.get("__theme"));
    if (viewState.tab !== "search") now.set("tab", viewState.tab);
    if (viewState.dimension !== null && viewState.tab === "dimensions") {
      now.set("dimension", viewState.dimension);
      for (const name of ["collection", "checkpoint"]) now.set(name, about[name]);
    }
    const text = TAB_TEXTS[viewState.tab];
    for (const name of ["where", text]) {
      if (!viewState[name]) continue;
      now.set(name, viewState[name]);
      for (const name of ["collection", "checkpoint"]) now.set(name, about[name]);
    }
    const link = now.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
    const address = location.pathname + (link ? `?${link}` : "");
    const state = hasUpload() ? uploadState() : null;
    if (address === location.pathname + location.search && same(state, history.state)) return;
    history[push ? "pushState" : "replaceState"](state, "", address);
  }

  let about = {};
  let opened = false;
  async function open(link) {
    opened = false;
    const uploaded = history.state?.search && history.state;
    const found = await Sieve.call(server.sieve_open, link);
    emit("again", found.busy || found.gone ? () => open(link) : null);
    if (!found.place) return emit("fault", found.error);
    about = found.about;
    document.documentElement.style.setProperty("--sv-aspect", about.aspect);
    emit("about", about);
    const before = viewState.tab;
    Object.assign(viewState, found.place, { upload: "" }, uploaded?.search);
    for (const [key, image] of uploaded?.previews ?? []) previews.set(key, image);
    if (found.error) viewState.item = ""; // the item may not exist
    preview = previews.get(viewState.upload) ?? "";
    terms = [];
    searchLink = found.answer?.link ?? "";
    emit("question", { ...viewState, preview });
    emit("switches", { ...viewState });
    emit("where", found.facets);
    emit("filtered", viewState.where);
    if (uploaded) updateTitle();
    else if (found.answer) take(found.answer, { list: true });
    else {
      emit("samples", found.samples);
      updateTitle();
    }
    emit("link-notes", found.notes);
    emit("notes", found.answer?.notes ?? []);
    emit("suggestion", found.answer?.suggestion ?? null);
    emit("fault", found.error ?? "");
    emit("dimension", viewState.dimension);
    for (const name of Object.values(TAB_TEXTS)) emit(name, viewState[name]);
    showTab(viewState.tab);
    if (viewState.tab !== before) emit("tab", viewState.tab);
    if (uploaded) await ask({ list: true });
    else writeAddress(false);
    opened = true;
  }
  function connect(functions) {
    server = functions;
    addEventListener("popstate", () => open(location.search));
    // Chromium keeps the state also when the same address is entered again.
    if (performance.getEntriesByType("navigation")[0]?.type === "navigate") history.replaceState(null, "");
    return open(location.search);
  }

  // Click Gradio's tab button, so that both states agree. `push` adds a history entry, so that Back
  // returns to the previous tab.
  function showTab(tab, { push = false } = {}) {
    const button = document.getElementById(`tab-${tab}-button`);
    if (!button && tab === "train") return showTab("search"); // a server without training
    const moved = viewState.tab !== tab;
    viewState.tab = tab;
    if (moved && push) writeAddress(true);
    if (button && button.getAttribute("aria-selected") !== "true") button.click();
    button?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
    if (!moved) return;
    emit("tab", tab);
    writeAddress(false);
  }
  function showDimension(dimension, { push = true } = {}) {
    viewState.dimension = dimension;
    viewState.tab = "dimensions";
    const button = document.getElementById("tab-dimensions-button");
    if (button?.getAttribute("aria-selected") !== "true") button?.click();
    writeAddress(push);
    emit("dimension", dimension);
  }

  // State of one tab, serialised. Only the visible tab writes to the URL.
  const MAX_TAB_TEXT = 6000;
  function setTabText(tab, text) {
    viewState[TAB_TEXTS[tab]] = text.length > MAX_TAB_TEXT ? "" : text;
    if (viewState.tab === tab) writeAddress(false);
  }

  // Return a function that sends one request at a time; while one runs, only the latest is remembered.
  let asking = 0;
  function latest(method, show) {
    let now = false;
    let next = null;
    return async (data) => {
      next = { data };
      if (now) return;
      now = true;
      asking += 1;
      while (next) {
        const { data: sent } = next;
        next = null;
        const answer = await Sieve.call(method, sent, () => next !== null);
        if (!next) show(answer, sent);
      }
      asking -= 1;
      now = false;
    };
  }

  // The search as a row of a figure, or null.
  function row() {
    if ((!viewState.q && !viewState.item) || terms.some((term) => term.kind === "image")) return null;
    const now = viewState.item ? { image: viewState.item } : { query: viewState.q };
    if (viewState.without) now.without = viewState.without;
    if (viewState.where) now.where = viewState.where;
    const off = [...(viewState.off ?? proposed)].sort((a, b) => a - b);
    if (String(off) !== String([...proposed].sort((a, b) => a - b))) now.off = off;
    if (off.length && viewState.never) now.strictness = Sieve.packStrictness(viewState);
    else if (off.length && viewState.strictness !== 1) now.strictness = viewState.strictness;
    return now;
  }
  function showFigure(row) {
    emit("figure-row", row);
    showTab("figure", { push: true });
  }

  // Plotly is large, so it is loaded (from this server) when the first figure is shown.
  let library = null;
  function plotly() {
    library ??= new Promise((resolve, reject) => {
      const script = el("script", { src: about.plotly, onload: () => resolve(window.Plotly), onerror: reject });
      document.head.append(script);
    });
    return library;
  }
  // Plotly prevents any touch from scrolling the page, so it gets only those that start sideways.
  let touched = null;
  addEventListener("touchstart", (event) => {
    touched = event.isTrusted && event.target.closest?.(".js-plotly-plot") ? event : null;
    if (touched) event.stopPropagation();
  }, { capture: true, passive: true });
  addEventListener("touchmove", ({ changedTouches: [now] }) => {
    if (!touched) return;
    const { target, touches, targetTouches, changedTouches } = touched;
    const [first] = changedTouches;
    touched = null;
    if (Math.abs(now.clientX - first.clientX) <= Math.abs(now.clientY - first.clientY)) return;
    const lists = { touches: [...touches], targetTouches: [...targetTouches], changedTouches: [...changedTouches] };
    target.dispatchEvent(new TouchEvent("touchstart", { ...lists, bubbles: true, cancelable: true }));
  }, { capture: true, passive: true });

  let used = false; // whether the user has interacted with this page
  for (const kind of ["keydown", "pointerdown"]) addEventListener(kind, () => { used = true; }, { once: true, capture: true });

  // Text is only set as text nodes, so captions, names and labels cannot inject markup.
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "class") node.className = value;
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child || child === 0));
    return node;
  }
  // Elements of a component by name, each found by its selector.
  const parts = (element, selectors) =>
    Object.fromEntries(Object.entries(selectors).map(([name, selector]) => [name, element.querySelector(selector)]));
  const thumbnail = (id) => `${about.thumbnails}${id.slice(0, 2)}/${id}.webp`;
  function image(id, alt = "") {
    const node = el("img", { alt, loading: "lazy", decoding: "async", draggable: "false" });
    node.src = thumbnail(id);
    return node;
  }

  // Bar whose width is a share of its track.
  function bar(kind, share) {
    const node = el("i", { class: kind });
    node.style.width = `${100 * share}%`;
    return node;
  }
  // List item with a bar and a number.
  const rated = (label, share, value, kind = "sv-bar-q") => el("li", {}, label,
    el("span", { class: "sv-track" }, bar(kind, share)), el("span", { class: "sv-value" }, Sieve.number(value)));
  // Names that did not pass their test are grey, and so are dimensions without a name.
  const isGuess = (name) => /^(#\d+, perhaps |dimension \d+$)/.test(name);
  const nameNode = (name) => (isGuess(name) ? el("span", { class: "sv-guess" }, name) : name);
  function dimensionLink(dimension, words, attributes = {}) {
    const open = (event) => { event.preventDefault(); showDimension(dimension); };
    return el("a", { href: `?tab=dimensions&dimension=${dimension}`, onclick: open, ...attributes }, nameNode(words));
  }
  // A paragraph that explains a word.
  const definition = (word, meaning) => el("p", {}, el("strong", {}, word), ` ${meaning}`);
  const openItem = (item) => emit("detail", item, { keep: false });
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  const titleOf = (item) => item.captions[0] || item.labels.join(", ") || item.file || item.id;

  return {
    SETTINGS, EMPTY_QUERY, on, emit, viewState, search, searchTerms, addTerm, writeTerm, previews, refuse, clear, change, hasQuery, hasUpload, query, sameQuery, open, connect, showTab, showDimension,
    setTabText, latest, row, showFigure, searches, plotly,
    el, parts, image, thumbnail, titleOf, bar, rated, isGuess, nameNode, dimensionLink, definition, openItem, same,
    get idle() { return opened && !busy && !asking && heard.has("answer"); }, // and the results are mounted
    get about() { return about; },
    get used() { return used; },
    get server() { return server; },
    get terms() { return terms; },
  };
})();
