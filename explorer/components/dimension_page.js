const { el, on, emit, viewState, number, percent, count } = Sieve;
const find = (selector) => element.querySelector(selector);
const body = find(".sv-page-body");
const [top, rest] = element.querySelectorAll(".sv-page-part");
const none = find(".sv-page-empty");
let wanted = null;
let plot = null;
let drawn = null;
let shown = null;
let asked = ""; // filter of the shown examples

const openItem = (example) => Sieve.openItem({ ...example, labels: [] });
function tile(example, side = 0) {
  const caption = example.captions[0] ?? "";
  return el("li", {}, el("button", { type: "button", class: "sv-example", "aria-label": caption || example.file, title: caption ? `${caption}\n${example.file}` : example.file, onclick: () => openItem(example) },
    Sieve.image(example.id), side ? null : el("span", { class: "sv-text" }, caption)));
}
const gallery = (examples, kind = "") => el("ol", { class: `sv-gallery ${kind}` }, ...examples.map((one) => tile(one, kind ? 1 : 0)));
const heading = (text, note = "") => el("h3", {}, text, note ? el("span", {}, note) : null);
function links(title, note, near, nameOf = (one) => one.name) {
  if (!near.length) return null;
  return el("section", {}, heading(title, note), el("ul", { class: "sv-rated-list" }, ...near.map((one) =>
    Sieve.rated(Sieve.dimensionLink(one.dimension, nameOf(one)), Math.min(one.similarity, 1), one.similarity))));
}
function fact(name, value, title) {
  return el("div", { title }, el("dt", {}, name), el("dd", {}, value));
}
const FALLS = "Change of the activation when this is removed from an otherwise identical image.";
const OTHERS = "Change of the activation when another object is removed, or the place changes.";
const about = (measure) => Sieve.MEASURES[measure].about;

const title = (name, dimension) => [Sieve.nameNode(name), name.startsWith(`#${dimension},`) ? null : el("span", {}, `#${dimension}`)].filter(Boolean);
const step = (by) => emit("walk", by, { keep: false });
function head(page) {
  const off = (viewState.off ?? []).includes(page.dimension);
  const exclude = Sieve.hasQuery() && el("button", {
    type: "button", class: "sv-plain sv-exclude", onclick: () => {
      const now = new Set(viewState.off ?? []);
      if (off) now.delete(page.dimension);
      else now.add(page.dimension);
      Sieve.showTab("search");
      Sieve.change({ off: [...now] }, { list: true });
    },
  }, off ? "Switch on in the search" : "Exclude from the search");
  return el("header", { class: "sv-page-head" },
    el("div", { class: "sv-steps" },
      el("button", { type: "button", class: "sv-plain sv-back", onclick: () => Sieve.showDimension(null) }, "← All"),
      el("button", { type: "button", class: "sv-icon", "aria-label": "Previous dimension in the table", onclick: () => step(-1) }, "‹"),
      el("button", { type: "button", class: "sv-icon", "aria-label": "Next dimension in the table", onclick: () => step(1) }, "›"),
      el("button", { type: "button", class: "sv-icon sv-random", "aria-label": "Open a random dimension from the table", title: "Random dimension", onclick: () => step("random") }, "⚄")),
    el("h2", { tabindex: "-1" }, ...title(page.name, page.dimension)),
    el("div", { class: "sv-page-actions" },
      page.search && el("button", { type: "button", class: "sv-plain", title: page.search, onclick: () => Sieve.search({ q: page.search }) },
        page.search.length > 24 ? "Search its top caption" : `Search “${page.search}”`),
      page.top_images.length > 0 && el("button", {
        type: "button", class: "sv-plain", title: "Show its top images in a paper figure",
        onclick: () => Sieve.showFigure({ dimension: page.dimension }),
      }, "Figure"),
      exclude || el("span", { class: "sv-first" }, "Search first to exclude it")));
}

// Source of the name, in one line; all suggestions are listed further down.
function naming({ name, suggested, naming: n }) {
  if (!n) return null;
  if (n.source === "given") return el("p", { class: "sv-hint sv-naming" }, "Named by the author of the codes");
  return el("p", { class: "sv-hint sv-naming", title: "How well the name fits the dimension, 0 to 1" },
    `${name !== suggested ? `Suggested name “${suggested}”,` : Sieve.isGuess(name) ? "Guessed" : "Named"} from ${n.source === "captions" ? "caption words" : "a vocabulary"} (${number(n.score)})${
      n.auc === null ? "" : n.auc <= 0.5 ? ". Not confirmed by other images" : `. Expected AUC on other images: ${number(n.auc)}`}`);
}
function scoredList(rows) {
  return el("ul", { class: "sv-rated-list" }, ...rows.map(([word, score, from]) =>
    Sieve.rated(el("span", { class: "sv-suggested" }, word, from && el("span", {}, from)), Math.min(score, 1), score)));
}
function suggestions({ naming: n }) {
  if (!n || n.source === "given") return null;
  const rows = [
    [n.name, n.score, n.source], [n.runner_up, n.runner_up_score, n.source],
    ...(n.source === "vocabulary" ? [] : [[n.vocabulary, n.vocabulary_score, "vocabulary"]]),
    [n.vocabulary_runner_up, n.vocabulary_runner_up_score, "vocabulary"],
  ];
  const distinct = rows.filter(([word, , from], i) => word && rows.findIndex((one) => one[0] === word && one[2] === from) === i);
  return el("section", { class: "sv-suggestions" }, heading("Suggested names", "with their fit"), scoredList(distinct));
}
const change = (fall) => `${fall > 0 ? "−" : "+"}${percent(Math.abs(fall))}`;
function statistics({ statistics: s, label }) {
  return el("dl", { class: "sv-facts" },
    fact("Active in images", percent(s.firing_images), about("images")),
    s.firing_texts !== undefined && fact("Active in captions", percent(s.firing_texts), about("texts")),
    s.agreement !== undefined && fact(Sieve.term("Agreement", about("agreement")), number(s.agreement)),
    s.monosemanticity !== undefined && fact(Sieve.term("Monosemanticity", about("mono")), number(s.monosemanticity)),
    label && s.label_auc !== undefined && fact(Sieve.term(`AUC for “${label}”`, about("auc")), number(s.label_auc)),
    s.own_fall !== undefined && fact(Sieve.term(`Without “${label}”`, FALLS), change(s.own_fall)),
    s.other_fall !== undefined && fact(Sieve.term("Without another object", OTHERS), change(s.other_fall)),
    s.stability !== undefined && fact(Sieve.term("Seed stability", about("stability")), number(s.stability)),
    fact("Mean activation", number(s.mean), "Over the images in which the dimension is active"),
    fact("Max. activation", number(s.max), "Over all images"));
}

function intervals(page) {
  return el("section", {}, heading("Activation ranges", "random images from each range"),
    ...page.intervals.map((one) => el("div", { class: "sv-interval" },
      el("p", {}, `${number(one.low)}–${number(one.high)}`, el("span", {}, count(one.count, "image"))),
      gallery(one.examples, "sv-small"))));
}

function words(page) {
  if (!page.words.length) return null;
  return el("section", {}, heading("Caption words", "by correlation"), scoredList(page.words.map((one) => [one.word, one.score])));
}
function captions(page) {
  if (!page.top_captions.length) return null;
  return el("section", {}, heading("Top captions"), el("ol", { class: "sv-top-captions" }, ...page.top_captions.map((one) =>
    el("li", {}, el("span", { title: one.text }, one.text), el("span", { class: "sv-value" }, number(one.value))))));
}
// A random sample of the images in which the dimension is active, which can be redrawn.
function sample(page) {
  let seed = 0;
  const having = page.intervals.reduce((sum, one) => sum + one.count, 0);
  const shown = el("div", {}, gallery(page.random_images, "sv-small"));
  const another = having > page.random_images.length && el("button", { type: "button", class: "sv-more", onclick: async () => {
    seed += 1;
    const { dimension } = page;
    const drawn = await Sieve.call(server.sieve_page, { dimension, seed, where: viewState.where });
    if (!drawn.error && wanted === dimension) shown.replaceChildren(gallery(drawn.random_images, "sv-small"));
  } }, "Another sample");
  return el("section", { class: "sv-sample" }, heading("A random sample", `of ${count(having, "image")} with this dimension`), another, shown);
}

// The effect of the ablation is loaded when the section is scrolled into view.
function probe(page) {
  if (!page.top_captions.length || !page.top_images.length) return null;
  const { dimension } = page;
  const answer = el("div", { "aria-live": "polite" }, el("p", { class: "sv-hint" }, "Switching the dimension off in up to 100 captions that activate it …"));
  const section = el("section", { class: "sv-probe" }, heading("Effect of switching it off"), answer);
  new IntersectionObserver(async (seen, observer) => {
    if (!seen.some((one) => one.isIntersecting)) return;
    observer.disconnect();
    const found = await Sieve.call(server.sieve_probe, { dimension });
    if (wanted !== dimension) return;
    answer.replaceChildren(...(found.error ? [el("p", { class: "sv-fault" }, found.error)] : probed(page, found)));
  }, { rootMargin: "160px" }).observe(section);
  return section;
}
function probed({ dimension }, { probes, changed, mean_left, changes }) {
  const queries = probes === 1 ? "the only caption that activates it" : `${probes} captions that activate it`;
  const text = changed === 0 ? `With ${queries} as ${probes === 1 ? "a query" : "queries"}, switching it off does not change the top 10.`
    : `With ${queries} as ${probes === 1 ? "a query" : "queries"}, switching it off changes the top 10 of ${changed === probes ? (probes === 1 ? "it" : "all of them") : changed}; on average ${number(mean_left)} of 10 images drop out.`;
  return [el("p", { class: "sv-hint" }, text), changes.length > 0 && el("p", { class: "sv-hint sv-probe-key" }, "Most changed:"), ...changes.map((change) => changedRow(dimension, change))].filter(Boolean);
}
function changedRow(dimension, { text, left, before, after }) {
  const [had, has] = [before, after].map((list) => new Set(list.map((one) => one.id)));
  const row = (name, list, other, kind, change) => el("div", { class: "sv-top-ten" }, el("span", {}, name), el("ol", {}, ...list.map((one) => {
    const odd = !other.has(one.id);
    const about = `${odd ? `${change}: ` : ""}${one.captions[0] ?? one.id}`;
    return el("li", { class: odd ? kind : "" }, el("button", { type: "button", class: "sv-example", "aria-label": about, title: `${about} · activation ${number(one.value)}`, onclick: () => openItem(one) }, Sieve.image(one.id)));
  })));
  const again = Sieve.about.can.text_queries && el("button", { type: "button", class: "sv-more", onclick: () => {
    Sieve.search({ q: text });
    Sieve.change({ off: [dimension] }, { list: true });
  } }, "Try this search");
  return el("div", { class: "sv-change" }, el("p", {}, el("span", { class: "sv-query-text", title: text }, `“${text}”`), el("span", { class: "sv-count" }, left ? `${left} of ${before.length} dropped out` : "only the order changes"), again),
    row("on", before, has, "sv-left-top", "dropped out"), row("off", after, had, "sv-entered-top", "entered"));
}

// Searches of this browser tab whose query activated the dimension.
function searches(page) {
  const mine = Sieve.searches().filter((one) => one.dimensions?.includes(page.dimension)).slice(0, 12);
  if (!mine.length) return null;
  return el("section", {}, heading("Searches with this dimension", "in this session"), el("ul", { class: "sv-used" }, ...mine.map((one) => {
    const { q, without, item } = one;
    const question = item ? { item, without } : { q, without };
    const words = [item ? `like ${one.like || "an image"}` : q, without && el("span", { class: "sv-minus" }, " without "), without];
    return el("li", {}, el("a", {
      href: `?${new URLSearchParams(Object.entries(question).filter(([, value]) => value))}`,
      onclick: (event) => { event.preventDefault(); Sieve.search(question); },
    }, ...words));
  })));
}

const examples = (page) => el("div", { class: "sv-two" }, el("section", {}, heading("Top images", page.passing === null ? "" : `${count(page.passing, "image")} with this dimension ${page.passing === 1 ? "passes" : "pass"} the filter`), gallery(page.top_images)), captions(page));
function measurements(page) {
  plot = el("div", { class: "sv-plot", role: "img", "aria-label": `Histogram of the activations of “${page.name}” in images and captions` });
  return [
    el("section", {}, heading("Activations", "share of images or captions with this dimension"), plot),
    page.random_images.length > 0 && sample(page),
    intervals(page),
    probe(page),
  ];
}
function fill(page) {
  plot = null;
  drawn = page.histogram;
  const silent = el("p", { class: "sv-hint" }, "This dimension is not active in any image or caption of this collection.");
  const slot = el("div", { class: "sv-notes-slot" });
  // Evidence before opinions: notes follow what the dimension shows.
  top.replaceChildren(...[head(page), naming(page)].filter(Boolean));
  rest.replaceChildren(...[drawn ? examples(page) : silent, statistics(page), slot, searches(page), ...(drawn ? measurements(page) : []),
    el("div", { class: "sv-two-lists" }, suggestions(page), words(page), links(`Concept “${page.concept_name}”`, "active together, with the same meaning", page.concept, (one) => one.name_in_concept), links("Co-active dimensions", "over the images", page.coactive)),
  ].filter(Boolean));
  shown = page;
  emit("page", { dimension: page.dimension, annotations: page.annotations, slot });
  draw();
}
on("marked", ({ dimension, name }) => {
  const heading = body.querySelector("h2");
  if (dimension !== shown?.dimension || !name || !heading) return;
  shown.name = name;
  heading.replaceChildren(...title(name, dimension));
  body.querySelector(".sv-naming")?.replaceWith(naming(shown));
});

async function draw() {
  if (!drawn || !plot) return;
  const [{ edges, images, captions }, target] = [drawn, plot];
  const colour = (name) => getComputedStyle(element).getPropertyValue(name).trim();
  const axis = { color: colour("--sv-muted"), gridcolor: colour("--sv-line"), zerolinecolor: colour("--sv-line"), linecolor: colour("--sv-line"), fixedrange: true };
  const x = images.map((_, i) => (edges[i] + edges[i + 1]) / 2);
  const trace = (name, counts, shade) => {
    const total = Math.max(counts.reduce((sum, n) => sum + n, 0), 1); // shares, not counts: an image has several captions
    return {
      type: "bar", name, x, y: counts.map((n) => n / total), customdata: counts, marker: { color: colour(shade) },
      hovertemplate: `%{customdata} ${name} around %{x:.2f}<extra></extra>`,
    };
  };
  try {
    const Plotly = await Sieve.plotly();
    if (!target.isConnected) return;
    await Plotly.react(target, [trace("images", images, "--sv-accent"), trace("captions", captions, "--sv-faint")], {
      height: 200, barmode: "group", bargap: 0.08, bargroupgap: 0, margin: { l: 40, r: 8, t: 8, b: 36 },
      legend: { orientation: "h", x: 1, xanchor: "right", y: 1.02, yanchor: "bottom" },
      paper_bgcolor: "transparent", plot_bgcolor: "transparent",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("--sv-ink") },
      xaxis: { ...axis, title: { text: "activation" }, rangemode: "tozero" }, yaxis: { ...axis, tickformat: ".0%", nticks: 4 },
    }, { displayModeBar: false, responsive: true });
  } catch {
    target.textContent = "The histogram could not be drawn.";
  }
}
on("theme", draw);

async function show(dimension) {
  wanted = dimension;
  element.closest(".sv-dimensions")?.classList.toggle("sv-has-page", dimension !== null);
  none.hidden = dimension !== null;
  body.hidden = dimension === null;
  if (dimension === null) return;
  body.setAttribute("aria-busy", "true");
  const { where } = viewState;
  const page = await Sieve.call(server.sieve_page, { dimension, where });
  if (wanted !== dimension || where !== viewState.where) return;
  body.removeAttribute("aria-busy");
  asked = where;
  if (!page.error) return fill(page);
  top.replaceChildren();
  rest.replaceChildren(el("p", { class: "sv-fault" }, page.error));
}
on("dimension", show);
on("filtered", (where) => { if (wanted !== null && where !== asked) show(wanted); });
emit("filter-slot");
