// Map of the images, coloured by a concept or a facet. A selection on it is a facet of its own.
const { el, on, emit, viewState, whole, percent, count } = Sieve;
const find = (selector) => element.querySelector(selector);
const { section, plot, wait, tip, whole: unzoom, colour, options, fault, selection, note } = Sieve.parts(element, {
  section: ".sv-item-map", plot: ".sv-map-plot", wait: ".sv-map-wait", tip: ".sv-map-tip", whole: ".sv-map-whole",
  colour: ".sv-map-colour input", options: "datalist", fault: ".sv-fault", selection: ".sv-selection", note: ".sv-map-note",
});
const home = section.parentNode;
const drags = [...element.querySelectorAll("[name=sv-item-drag]")];
const WHOLE = [-1.06, 1.06];
const MAX_CORNERS = 48; // of a selection, which is stored in the URL
const SCALES = { light: ["#d3d6db", "#7d93c4", "#00224e"], dark: ["#3a3f49", "#8a8678", "#fee838"] };
let points = null;
let shown = null; // the colours on the map
let listed = null;
let asking = false;
let opened = viewState.dimension; // the open dimension
let selected = ""; // facet of the selection
let corners = [];

const css = (name) => getComputedStyle(element).getPropertyValue(name).trim();
const scale = () => SCALES[document.body.classList.contains("dark") ? "dark" : "light"];
const visible = () => listed?.view === "items" && viewState.tab === "dimensions" && !element.closest("[hidden]");
function bytes(text) {
  return Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
}

// The first map of a checkpoint is computed once, which takes a while, so show the progress.
async function load() {
  if (asking) return;
  asking = true;
  const started = Date.now();
  const timer = setInterval(() => {
    wait.textContent = "Computing the map of images. This is done once per checkpoint.";
    wait.dataset.seconds = `${Math.round((Date.now() - started) / 1000)} s`;
  }, 1000);
  const [found, facets] = await Promise.all([Sieve.call(server.sieve_item_map, null), Sieve.call(server.sieve_facets, {})]);
  clearInterval(timer);
  asking = false;
  wait.dataset.seconds = "";
  wait.textContent = found.error ?? "";
  if (found.error) return;
  options.replaceChildren(...(facets.facets ?? []).map((one) => el("option", { value: one.facet.replace(/>0.5$/, "") })));
  const [x, y] = [found.x, found.y].map((text) => Float32Array.from(new Int16Array(bytes(text).buffer), (one) => one / 32767));
  points = { x, y };
  note.textContent = `${count(x.length, "image")}, t-SNE of their codes. Similar images are close together. Point at one to see it; drag to select some.`;
  update();
}

// Without a choice, the images are coloured by the concept of the open dimension.
const wanted = () => listed.colouring || `concept:${opened ?? listed.table.first ?? listed.order[0] ?? 0}`;
const askColours = Sieve.latest(server.sieve_item_colours, (answer, sent) => {
  fault.textContent = answer.error ?? "";
  if (answer.error) return;
  const values = bytes(answer.values);
  const order = Uint32Array.from(values.keys()).sort((a, b) => values[a] - values[b]); // the strongest on top
  shown = { ...answer, where: sent.where, order, values: Uint8Array.from(order, (row) => values[row]) };
  draw();
});
function update() {
  if (listed?.view !== "items") section.remove(); // so that the page has one map at a time
  else if (!section.isConnected) home.append(section);
  if (!visible()) return;
  if (document.activeElement !== colour) colour.value = listed.colouring;
  if (!points) return load();
  if (shown?.where !== wanted()) return askColours({ where: wanted() });
  draw();
}

let drawing = null;
async function draw() {
  if (!points || !shown || !visible()) return;
  const Plotly = await Sieve.plotly().catch(() => null);
  if (!Plotly) {
    wait.textContent = "The map could not be drawn.";
    return;
  }
  if (!visible()) return;
  const axis = { visible: false, zeroline: false, range: [...WHOLE] };
  const n = points.x.length;
  const colours = scale();
  drawing = Plotly.react(plot, [{
    type: "scattergl", mode: "markers", hoverinfo: "none", x: Float32Array.from(shown.order, (row) => points.x[row]), y: Float32Array.from(shown.order, (row) => points.y[row]),
    marker: {
      size: n > 20000 ? 3 : n > 2500 ? 5 : 7, color: shown.values, cmin: 0, cmax: 255,
      colorscale: colours.map((one, i) => [i / (colours.length - 1), one]),
    },
  }], {
    autosize: true, margin: { l: 0, r: 0, t: 0, b: 0 }, xaxis: axis, yaxis: { ...axis, range: [...WHOLE] }, showlegend: false, hovermode: "closest", hoverdistance: 12,
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", dragmode: false, uirevision: "items", shapes: shapes(),
  }, { displayModeBar: false, responsive: true, scrollZoom: true, doubleClick: false });
  await drawing;
  listen(Plotly);
  wait.textContent = "";
  plot.dataset.drawn = String(n);
  plot.setAttribute("aria-label", `Map of ${count(n, "image")}, coloured by ${shown.name}`);
  const [low, bar, high] = find(".sv-scale").children;
  low.textContent = shown.kind === "concept" ? "0" : "others";
  high.textContent = shown.kind === "concept" ? `${shown.name} (${Sieve.number(shown.high)})` : count(shown.items, "image");
  bar.style.background = `linear-gradient(90deg, ${colours.join(", ")})`;
}
let listens = false;
function listen(Plotly) {
  if (listens) return;
  listens = true;
  plot.on("plotly_hover", ({ points: [point], event }) => hover(shown.order[point.pointNumber], event));
  plot.on("plotly_unhover", () => { pointed = -1; tip.hidden = true; });
  plot.on("plotly_click", ({ points: [point] }) => !dragging && openAt(shown.order[point.pointNumber]));
  plot.on("plotly_relayout", (changed) => {
    if (Object.keys(changed).some((key) => key.startsWith("xaxis"))) unzoom.hidden = plot.layout.xaxis.range.every((end, i) => end === WHOLE[i]);
  });
  new ResizeObserver(() => { if (visible() && plot.clientWidth) Plotly.Plots.resize(plot); }).observe(plot);
}

// At each step of a pan or a selection, Plotly draws all points again, which takes too long for many
// without a GPU. So a pan moves the drawn points until its end, and selections are drawn here.
const mode = () => drags.find((one) => one.checked).value;
let dragging = false;
plot.addEventListener("pointerdown", (start) => {
  if (start.button || !drawing) return;
  const box = plot.getBoundingClientRect();
  const at = ({ clientX, clientY }) => [clientX - box.left, clientY - box.top];
  const step = mode() === "pan" ? pan(at(start)) : outline(at(start), mode() === "select");
  const move = (event) => {
    dragging = true;
    tip.hidden = true;
    step.move(at(event));
  };
  const end = (event) => {
    removeEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) removeEventListener(name, end);
    step.end(at(event), event.type === "pointercancel"); // a touch that scrolls the page is canceled
    setTimeout(() => { dragging = false; }); // after the click
  };
  addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, end);
});
function pan([x, y]) {
  const layer = plot.querySelector(".gl-container");
  const moved = (range, share) => range.map((one) => one - share * (range[1] - range[0]));
  return {
    move: ([left, top]) => { layer.style.transform = `translate(${left - x}px, ${top - y}px)`; },
    end: async ([left, top], isCanceled) => {
      const { xaxis, yaxis } = plot.layout;
      if (dragging && !isCanceled) await window.Plotly.relayout(plot, { "xaxis.range": moved(xaxis.range, (left - x) / plot.clientWidth), "yaxis.range": moved(yaxis.range, (y - top) / plot.clientHeight) });
      layer.style.transform = "";
    },
  };
}
function outline(first, isBox) {
  const polygon = find("polygon");
  let path = [first];
  return {
    move: ([x, y]) => {
      path = isBox ? [first, [x, first[1]], [x, y], [first[0], y]] : [...path, [x, y]];
      polygon.setAttribute("points", path.join(" "));
    },
    end: (_, isCanceled) => {
      polygon.setAttribute("points", "");
      if (isCanceled || path.length < 3) return;
      const { xaxis: { range: [left, right] }, yaxis: { range: [bottom, top] } } = plot.layout;
      const every = Math.max(1, path.length / MAX_CORNERS);
      const corners = Array.from({ length: Math.floor(path.length / every) }, (_, i) => path[Math.floor(i * every)]);
      select(corners.map(([x, y]) => [left + (x / plot.clientWidth) * (right - left), top - (y / plot.clientHeight) * (top - bottom)].map((one) => Number(one.toFixed(3)))));
    },
  };
}

let pointed = -1;
const askItem = Sieve.latest(server.sieve_item_at, (item, { row }) => {
  if (row !== pointed || item.error) return;
  const picture = Sieve.image(item.id);
  picture.loading = "eager";
  tip.replaceChildren(picture, el("span", {}, Sieve.titleOf(item)));
});
function hover(row, event) {
  if (dragging) return;
  pointed = row;
  tip.replaceChildren();
  askItem({ row });
  tip.hidden = false;
  const box = plot.getBoundingClientRect();
  const [x, y, size] = [event.clientX - box.left, event.clientY - box.top, 150];
  tip.style.left = `${x + size + 12 > box.width ? x - size - 12 : x + 12}px`;
  tip.style.top = `${Math.max(0, Math.min(y + 12, box.height - size))}px`;
}
async function openAt(row) {
  const item = await Sieve.call(server.sieve_item_at, { row });
  if (!item.error) Sieve.openItem(item);
}

// A selection as the facet `map:x,y,x,y,…`.
const shapes = () => (corners.length ? [{
  type: "path", path: `M${corners.map((one) => one.join(",")).join("L")}Z`, line: { color: css("--sv-accent"), width: 2 },
}] : []);
async function select(chosen) {
  const report = await Sieve.call(server.sieve_facets, { where: `map:${chosen.join()}` });
  if (report.error) return clear();
  corners = chosen;
  selected = report.where;
  selection.hidden = false;
  find(".sv-selection [role=status]").textContent = `${count(report.passing, "image")} selected`;
  (await Sieve.plotly()).relayout(plot, { shapes: shapes() });
}
async function clear() {
  [selected, corners] = ["", []];
  selection.hidden = true;
  if (drawing) (await Sieve.plotly()).relayout(plot, { shapes: [] });
}
find("[data-clear]").addEventListener("click", clear);
find("[data-filter]").addEventListener("click", () => {
  emit("filter-by", selected, { keep: false });
  Sieve.showTab("search", { push: true });
});
find("[data-compare]").addEventListener("click", () => {
  Sieve.setTabText("compare", Sieve.pack({ ...Sieve.unpack(viewState.versus), set: selected, other: "" }));
  emit("show-sets", selected);
  emit("versus", viewState.versus);
  Sieve.showTab("compare", { push: true });
});

colour.addEventListener("change", () => emit("colouring", colour.value.trim(), { keep: false }));
unzoom.addEventListener("click", async () => {
  if (drawing) (await Sieve.plotly()).relayout(plot, { "xaxis.range": [...WHOLE], "yaxis.range": [...WHOLE] });
});
section.remove();
on("listed", (state) => {
  listed = state;
  update();
});
on("dimension", (dimension) => {
  opened = dimension;
  if (listed) update();
});
on("theme", draw);
on("tab", () => { if (listed) update(); });
