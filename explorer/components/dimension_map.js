const { el, on, emit, number, percent, viewState } = Sieve;
const find = (selector) => element.querySelector(selector);
const { plot, wait, tip, whole, select } = Sieve.parts(element, {
  plot: ".sv-map-plot", wait: ".sv-map-wait", tip: ".sv-map-tip", whole: ".sv-map-whole", select: "select",
});
const drags = [...element.querySelectorAll("[name=sv-drag]")];
const MANY = 2500; // above this number, points are drawn with WebGL if available
const N_LABELS = 28;
const RING = 3; // index of the trace that marks the open dimension
const WHOLE = [-1.06, 1.06];
// Cividis, cut to be visible on the page background; high values have the most contrast in both themes
// and for all kinds of colour vision.
const SCALES = {
  light: ["#cbba69", "#a69d75", "#7d7c78", "#4f576c", "#173770", "#00224e"],
  dark: ["#414d6b", "#666970", "#8a8678", "#b3a772", "#dec958", "#fee838"],
};
let points = null;
let listed = null;
let open = null;
let asking = false;
let shownColour = "";

const dark = () => document.body.classList.contains("dark");
const css = (name) => getComputedStyle(element).getPropertyValue(name).trim();
const valueText = (column, value) => (value === null ? "not measured" : listed.columns[column].share ? percent(value) : number(value));

// Firing rates span powers of ten, so they get a logarithmic colour scale.
function scaled(column) {
  const { table, columns, colour } = listed;
  const log = columns[column].share;
  const values = table[colour].map((value) => (value === null ? null : log ? Math.log10(Math.max(value, 1e-4)) : value));
  const sorted = points.id.map((id) => values[id]).filter((value) => value !== null).sort((a, b) => a - b);
  const low = sorted[Math.floor(0.02 * (sorted.length - 1))] ?? 0;
  const high = sorted[Math.ceil(0.98 * (sorted.length - 1))] ?? 1;
  const back = (value) => (log ? 10 ** value : value);
  return { values, low, high, ends: [valueText(column, back(low)), valueText(column, back(high))] };
}

const safe = (name) => name.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const short = (name) => (name.length > 18 ? `${name.slice(0, 17)}…` : name);
// A concept is labelled once, at its leading dimension.
const isLeading = (id) => listed.table.concept[id] === id;
// Label the most frequent dimensions without overlaps.
function labels(ids) {
  const { table } = listed;
  const [x, y] = [plot.layout?.xaxis.range ?? WHOLE, plot.layout?.yaxis.range ?? WHOLE];
  const [width, height] = [plot.clientWidth / (x[1] - x[0]), plot.clientHeight / (y[1] - y[0])];
  const taken = [];
  const found = [];
  const at = new Map(points.id.map((id, i) => [id, i]));
  for (const id of ids.filter((id) => !Sieve.isGuess(table.name[id]) && isLeading(id)).sort((a, b) => table.images[b] - table.images[a])) {
    const i = at.get(id);
    const [px, py] = [(points.x[i] - x[0]) * width, (points.y[i] - y[0]) * height];
    if (px < 0 || py < 0 || px > plot.clientWidth || py > plot.clientHeight) continue;
    const half = 3.4 * short(table.name[id]).length + 4;
    if (px < half || px > plot.clientWidth - half || py > plot.clientHeight - 20) continue;
    if (taken.some(([tx, ty, th]) => Math.abs(tx - px) < th + half && Math.abs(ty - py) < 17)) continue;
    taken.push([px, py, half]);
    found.push(i);
    if (found.length === N_LABELS) break;
  }
  return found;
}

const opened = () => points.id.flatMap((id, i) => (id === open ? [i] : []));
function traces() {
  const { table, colour, columns, order } = listed;
  const inList = new Set(order.map((i) => table.id[i]));
  const scale = scaled(colour);
  const kinds = { rest: [], unmeasured: [], measured: [] };
  points.id.forEach((id, i) => {
    kinds[!inList.has(id) ? "rest" : scale.values[id] === null ? "unmeasured" : "measured"].push(i);
  });
  const type = points.id.length > MANY && canDrawMany() ? "scattergl" : "scatter";
  const size = points.id.length > MANY ? 5 : 7;
  const trace = (chosen, marker) => ({
    type, mode: "markers", hoverinfo: "none", x: chosen.map((i) => points.x[i]), y: chosen.map((i) => points.y[i]),
    customdata: chosen.map((i) => points.id[i]), marker: { size, ...marker }, selected: {}, unselected: { marker: { opacity: 1 } },
  });
  const now = opened();
  const named = labels([...kinds.unmeasured, ...kinds.measured].map((i) => points.id[i]));
  showScale(scale.ends, colour, columns);
  return [
    trace(kinds.rest, { color: css("--sv-line"), size: size - 2 }),
    trace(kinds.unmeasured, { color: css("--sv-faint"), symbol: "circle-open", size: size - 1 }),
    trace(kinds.measured, {
      color: kinds.measured.map((i) => scale.values[points.id[i]]), cmin: scale.low, cmax: scale.high,
      colorscale: SCALES[dark() ? "dark" : "light"].map((one, i, all) => [i / (all.length - 1), one]),
      line: { width: type === "scatter" ? 0.75 : 0, color: css("--sv-page") },
    }),
    { ...trace(now, { size: size + 8, color: css("--sv-off"), symbol: "circle-open", line: { width: 3, color: css("--sv-off") } }), type: "scatter", hoverinfo: "skip" },
    {
      type: "scatter", mode: "text", hoverinfo: "skip", textposition: "top center", cliponaxis: true, x: named.map((i) => points.x[i]), y: named.map((i) => points.y[i]),
      text: named.map((i) => safe(short(table.name[points.id[i]]))), textfont: { size: 11, color: css("--sv-ink") },
    },
  ];
}
let many = null;
function canDrawMany() {
  many ??= Boolean(document.createElement("canvas").getContext("webgl"));
  return many;
}
function showScale([low, high], colour, columns) {
  const [first, bar, last] = find(".sv-scale").children;
  first.textContent = low;
  last.textContent = high;
  bar.style.background = `linear-gradient(90deg, ${SCALES[dark() ? "dark" : "light"].join(", ")})`;
  select.title = columns[colour].about;
}

const visible = () => listed?.view === "map" && viewState.tab === "dimensions" && !element.closest("[hidden]");
let drawing = null;
let drawings = 0; // each new revision clears the outline of the previous selection
async function draw() {
  find(".sv-map").hidden = listed?.view !== "map";
  if (!visible()) return;
  fillColours();
  if (!points) return ask();
  const Plotly = await Sieve.plotly().catch(() => null);
  if (!Plotly) {
    wait.textContent = "The map could not be drawn.";
    return;
  }
  if (!visible()) return;
  const axis = { visible: false, zeroline: false, range: [...WHOLE] };
  drawing = Plotly.react(plot, traces(), {
    autosize: true, margin: { l: 0, r: 0, t: 0, b: 0 }, xaxis: { ...axis }, yaxis: { ...axis }, showlegend: false, hovermode: "closest", hoverdistance: 12,
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", dragmode: drags.find((one) => one.checked).value, uirevision: "map", selections: [], selectionrevision: (drawings += 1),
    newselection: { line: { color: css("--sv-accent"), width: 2, dash: "solid" } }, font: { family: "system-ui, sans-serif", color: css("--sv-ink") },
  }, { displayModeBar: false, responsive: true, scrollZoom: true, doubleClick: false });
  const ringed = open;
  await drawing;
  if (open !== ringed) ring();
  listen(Plotly);
  wait.textContent = "";
  plot.dataset.drawn = String(listed.order.length);
  plot.setAttribute("aria-label", `Map of ${points.id.length} dimensions, coloured by ${listed.columns[listed.colour].name}; the table lists the same`);
}
function ring() {
  const now = opened();
  window.Plotly.restyle(plot, { x: [now.map((i) => points.x[i])], y: [now.map((i) => points.y[i])] }, [RING]);
}
let listens = false;
function listen(Plotly) {
  if (listens) return;
  listens = true;
  plot.on("plotly_click", ({ points: [point] }) => Sieve.showDimension(point.customdata));
  plot.on("plotly_selected", (event) => {
    const ids = (event?.points ?? []).map((point) => point.customdata).filter(Number.isInteger);
    if (ids.length) emit("choose", new Set(ids), { keep: false });
    else if (event) draw(); // remove an empty selection
  });
  plot.on("plotly_hover", ({ points: [point], event }) => showTip(point, event));
  plot.on("plotly_unhover", () => { tip.hidden = true; });
  plot.on("plotly_relayout", (changed) => {
    if (!Object.keys(changed).some((key) => key.startsWith("xaxis"))) return;
    whole.hidden = plot.layout.xaxis.range.every((end, i) => end === WHOLE[i]);
    draw();
  });
  new ResizeObserver(() => { if (visible() && plot.clientWidth) Plotly.Plots.resize(plot); }).observe(plot);
}
function showTip(point, event) {
  const id = point.customdata;
  tip.firstElementChild.textContent = listed.table.name[id];
  const { concept, name } = listed.table;
  const size = concept.filter((one) => one === concept[id]).length;
  const group = size > 1 ? ` · concept “${name[concept[id]]}”, ${size} dimensions` : "";
  tip.lastElementChild.textContent = `#${id}${group} · ${listed.columns[listed.colour].name.toLowerCase()} ${valueText(listed.colour, listed.table[listed.colour][id])}`;
  tip.hidden = false;
  const box = plot.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  tip.style.left = `${Math.max(0, Math.min(x + 12, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${y + 16 + tip.offsetHeight > box.height ? y - 12 - tip.offsetHeight : y + 16}px`;
}

// The first map of a checkpoint is computed once, which takes a while, so show the progress.
async function ask() {
  if (asking) return;
  asking = true;
  const started = Date.now();
  const showWait = () => {
    const seconds = Math.round((Date.now() - started) / 1000);
    wait.textContent = seconds < 1 ? "" : "Computing the map. This is done once per checkpoint.";
    wait.dataset.seconds = seconds < 2 ? "" : `${seconds} s`;
  };
  showWait();
  const timer = setInterval(showWait, 1000);
  const found = await Sieve.call(server.sieve_map, null);
  clearInterval(timer);
  wait.dataset.seconds = "";
  wait.textContent = found.error ?? "";
  asking = false;
  if (found.error) return;
  points = found;
  const total = listed.table.id.length;
  const n = Sieve.whole(found.id.length);
  find(".sv-map-note").textContent = `${n}${total > found.id.length ? ` of ${Sieve.whole(total)}` : ""} active dimensions, ${found.method} of their activations. Similar dimensions are close together. Drag to select some.`;
  draw();
}

function fillColours() {
  const names = Object.entries(listed.columns);
  if (shownColour !== names.map(([column]) => column).join()) {
    select.replaceChildren(...names.map(([column, { name }]) => el("option", { value: column }, name.toLowerCase())));
    shownColour = names.map(([column]) => column).join();
  }
  select.value = listed.colour;
}
select.addEventListener("change", () => emit("colour", select.value, { keep: false }));
for (const one of drags) one.addEventListener("change", async () => { if (drawing) (await Sieve.plotly()).relayout(plot, { dragmode: one.value }); });
whole.addEventListener("click", async () => {
  if (drawing) (await Sieve.plotly()).relayout(plot, { "xaxis.range": [...WHOLE], "yaxis.range": [...WHOLE] });
});
on("listed", (state) => {
  listed = state;
  draw();
});
on("dimension", (dimension) => {
  open = dimension;
  tip.hidden = true;
  if (plot.dataset.drawn && visible()) ring();
});
on("theme", () => { if (listed) draw(); });
on("tab", () => { if (listed) draw(); });
