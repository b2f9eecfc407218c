const { el, on, emit, place, number, percent } = Sieve;
const find = (selector) => element.querySelector(selector);
const body = find(".sv-page-body");
const none = find(".sv-page-empty");
let wanted = null;
let order = [];
let plot = null;
let drawn = null;

const openItem = (example) => emit("detail", { ...example, labels: [] }, { keep: false });
function tile(example, side = 0) {
  const caption = example.captions[0] ?? "";
  return el("li", {}, el("button", { type: "button", class: "sv-example", "aria-label": caption || example.id, title: caption, onclick: () => openItem(example) },
    Sieve.image(example.id), side ? null : el("span", { class: "sv-text" }, caption)));
}
const gallery = (examples, kind = "") => el("ol", { class: `sv-gallery ${kind}` }, ...examples.map((one) => tile(one, kind ? 1 : 0)));
const heading = (text, note = "") => el("h3", {}, text, note ? el("span", {}, note) : null);
function links(title, note, near) {
  if (!near.length) return null;
  return el("section", {}, heading(title, note), el("ul", { class: "sv-near" }, ...near.map((one) => {
    const bar = el("i", { class: "sv-bar-q" });
    bar.style.width = `${100 * Math.min(one.similarity, 1)}%`;
    return el("li", {}, el("a", {
      href: `?tab=dimensions&dimension=${one.dimension}`,
      onclick: (event) => { event.preventDefault(); Sieve.showDimension(one.dimension); },
    }, one.name), el("span", { class: "sv-track" }, bar), el("span", { class: "sv-value" }, number(one.similarity)));
  })));
}
function fact(name, value, title) {
  return el("div", { title }, el("dt", {}, name), el("dd", {}, value));
}

function step(by) {
  const at = order.indexOf(wanted);
  const next = order[at < 0 ? 0 : (at + by + order.length) % order.length];
  if (next !== undefined) Sieve.showDimension(next, { push: false });
}
function head(page) {
  const off = (place.off ?? []).includes(page.dimension);
  const exclude = Sieve.asked() && el("button", {
    type: "button", class: "sv-plain sv-exclude", onclick: () => {
      const now = new Set(place.off ?? []);
      if (off) now.delete(page.dimension);
      else now.add(page.dimension);
      Sieve.showTab("search");
      Sieve.change({ off: [...now] }, { list: true });
    },
  }, off ? "Switch it on again" : "Exclude it from the search");
  return el("header", { class: "sv-page-head" },
    el("div", { class: "sv-steps" },
      el("button", { type: "button", class: "sv-plain sv-back", onclick: () => Sieve.showDimension(null) }, "← All"),
      el("button", { type: "button", class: "sv-icon", "aria-label": "Previous dimension in the table", onclick: () => step(-1) }, "‹"),
      el("button", { type: "button", class: "sv-icon", "aria-label": "Next dimension in the table", onclick: () => step(1) }, "›")),
    el("h2", { tabindex: "-1" }, page.name, el("span", {}, `#${page.dimension}`)),
    el("div", { class: "sv-page-do" },
      page.search && el("button", { type: "button", class: "sv-plain", title: page.search, onclick: () => Sieve.search({ q: page.search }) },
        page.search.length > 24 ? "Search its top caption" : `Search “${page.search}”`),
      page.top_images.length > 0 && el("button", {
        type: "button", class: "sv-plain", title: "Show its top images in a figure for a paper",
        onclick: () => Sieve.showFigure({ dimension: page.dimension }),
      }, "Figure"),
      exclude || el("span", { class: "sv-first" }, "Search first to exclude it")));
}

function naming({ name, naming: n }) {
  if (!n) return null;
  if (n.source === "given") return el("p", { class: "sv-hint sv-naming" }, "Named by whoever made the codes");
  const said = name.split(" · ")[0];
  const others = [n.runner_up, n.source === "captions" ? n.vocabulary : ""].filter((word, i, all) => word && word !== said && all.indexOf(word) === i);
  return el("p", { class: "sv-hint sv-naming", title: "How well the word fits the dimension, 0 to 1" },
    `Named after ${n.source === "captions" ? "words of captions" : "a vocabulary"} (${number(n.score)})`,
    others.length ? `; next best: ${others.map((word) => `“${word}”`).join(", ")}` : "");
}
function statistics({ statistics: s, label }) {
  return el("dl", { class: "sv-facts" },
    fact("images have it", percent(s.firing_images), "Share of the images"),
    s.firing_texts !== undefined && fact("captions have it", percent(s.firing_texts), "Share of the captions"),
    s.agreement !== undefined && fact("agreement", number(s.agreement), "How far it fires on the same items in images and captions, 0 to 1"),
    s.monosemanticity !== undefined && fact("one meaning", number(s.monosemanticity), "Monosemanticity: how alike the images are that have it, against any two images, up to 1"),
    label && s.label_auc !== undefined && fact(`AUC for “${label}”`, number(s.label_auc), "How well it tells images with its best label from others, on test images; 0.5 is chance"),
    fact("mean where it fires", number(s.mean), "Of the images that have it"),
    fact("strongest", number(s.max), "Over all images"));
}

function intervals(page) {
  return el("section", {}, heading("From strongest to weakest", "a random few of each stretch"),
    ...page.intervals.map((one) => el("div", { class: "sv-interval" },
      el("p", {}, `${number(one.low)}–${number(one.high)}`, el("span", {}, `${one.count.toLocaleString("en")} image${one.count === 1 ? "" : "s"}`)),
      gallery(one.examples, "sv-small"))));
}

function words(page) {
  if (!page.words.length) return null;
  return el("p", { class: "sv-labels" }, el("span", { class: "sv-try-word" }, "words "),
    ...page.words.map((one) => el("span", { class: "sv-chip" }, el("span", {}, one.word), ` ${number(one.score)}`)));
}
function captions(page) {
  if (!page.top_captions.length) return null;
  return el("section", {}, heading("Top captions"), el("ol", { class: "sv-top-captions" }, ...page.top_captions.map((one) =>
    el("li", {}, el("span", {}, one.text), el("span", { class: "sv-value" }, number(one.value))))));
}
function evidence(page) {
  plot = el("div", { class: "sv-plot", role: "img", "aria-label": `How strongly images and captions have “${page.name}”` });
  return [
    el("div", { class: "sv-two" }, el("section", {}, heading("Top images"), gallery(page.top_images)), captions(page)),
    el("section", {}, heading("Activations", "share of those that have it"), plot),
    el("section", {}, heading("A random sample", "of all images that have it"), gallery(page.random_images, "sv-small")),
    intervals(page),
  ];
}
function fill(page) {
  plot = null;
  drawn = page.histogram;
  const silent = el("p", { class: "sv-hint" }, "It fires on no image and no caption of this collection.");
  body.replaceChildren(...[head(page), naming(page), statistics(page), words(page), ...(drawn ? evidence(page) : [silent]),
    el("div", { class: "sv-halves" }, links("Similar", "by direction", page.similar), links("Fires together with", "over the images", page.coactive)),
  ].filter(Boolean));
  draw();
}

async function draw() {
  if (!drawn || !plot) return;
  const [figure, target] = [drawn, plot];
  const colour = (name) => getComputedStyle(element).getPropertyValue(name).trim();
  const axis = { color: colour("--sv-muted"), gridcolor: colour("--sv-line"), zerolinecolor: colour("--sv-line"), linecolor: colour("--sv-line") };
  const { layout } = figure;
  try {
    const Plotly = await Sieve.plotly();
    if (!target.isConnected) return;
    const data = figure.data.map((trace, i) => ({ ...trace, marker: { color: colour(i ? "--sv-faint" : "--sv-accent") } }));
    await Plotly.react(target, data, {
      ...layout, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("--sv-ink") },
      xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis },
    }, { displayModeBar: false, responsive: true });
  } catch {
    target.textContent = "The histogram could not be drawn.";
  }
}
on("theme", draw);
on("order", (ids) => { order = ids; });

async function show(dimension) {
  wanted = dimension;
  element.closest(".sv-atlas")?.classList.toggle("sv-has-page", dimension !== null);
  none.hidden = dimension !== null;
  body.hidden = dimension === null;
  if (dimension === null) return;
  body.setAttribute("aria-busy", "true");
  const page = await Sieve.call(server.sieve_page, { dimension });
  if (wanted !== dimension) return;
  body.removeAttribute("aria-busy");
  if (page.error) body.replaceChildren(el("p", { class: "sv-fault" }, page.error));
  else fill(page);
}
on("dimension", show);
