// Plot of the Benchmark tab: AP@10 against violation@10 of each method. If there is room, method names
// are in a column on the right, each joined to its point by a line.
Object.assign(window.Sieve, (() => {
  const KINDS = {
    Sieve: ["--sv-accent", "circle", "●", "Sieve"], dense: ["--sv-off", "triangle-up", "▲", "rules on the backbone's embeddings"],
    trained: ["--sv-ink", "square", "■", "trained encoders"], other: ["--sv-faint", "diamond", "◆", "no exclusion"],
  };
  function spread(values, gap, low, high) {
    const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
    const places = [];
    let least = low;
    for (const i of order) { places[i] = Math.max(values[i], least); least = places[i] + gap; }
    let most = high;
    for (const i of order.reverse()) { places[i] = Math.min(places[i], most); most = places[i] - gap; }
    return places;
  }

  // Legend as one line of text.
  function methodsKey({ data }) {
    const kinds = new Set(data.map((one) => one.meta));
    return Object.entries(KINDS).filter(([kind]) => kinds.has(kind)).map(([, [, , sign, name]]) => `${sign} ${name}`).join("   ");
  }

  // Draw the figure, unless the target is hidden or another figure is wanted once Plotly is loaded.
  async function drawMethods(target, figure, isWanted) {
    const colour = (name) => getComputedStyle(target).getPropertyValue(name).trim();
    const traces = figure.data;
    const Plotly = await Sieve.plotly();
    if (!target.clientWidth || !isWanted()) return;
    const axis = { color: colour("--sv-muted"), gridcolor: colour("--sv-line"), zerolinecolor: colour("--sv-line"), linecolor: colour("--sv-line"), fixedrange: true };
    const wide = target.clientWidth > 560;
    const right = Math.max(...traces.map((one) => one.x[0] + one.error_x.array[0])) * 1.04 || 1;
    const low = Math.min(...traces.map((one) => one.y[0] - one.error_y.arrayminus[0]));
    const high = Math.max(...traces.map((one) => one.y[0] + one.error_y.array[0]));
    const margin = (high - low) * 0.05 || 0.05;
    const [bottom, top] = [low - margin, high + margin];
    const shades = traces.map((one) => colour(KINDS[one.meta]?.[0] ?? "--sv-muted"));
    const places = spread(traces.map((one) => one.y[0]), (top - bottom) / 18, bottom + margin / 2, top - margin / 2);
    const annotations = traces.map((one, i) => ({
      x: one.x[0], y: one.y[0], ax: right, ay: places[i], axref: "x", ayref: "y", xanchor: "left", text: one.name === "Sieve" ? `<b>${one.name}</b>` : one.name.replaceAll("<", "&lt;"),
      font: { color: shades[i], size: 12 }, showarrow: true, arrowhead: 0, arrowwidth: 0.6, arrowcolor: shades[i], standoff: 6,
    }));
    const data = traces.map((one, i) => ({
      ...one, marker: { color: shades[i], symbol: KINDS[one.meta]?.[1], size: one.name === "Sieve" ? 11 : 8 },
      error_x: { ...one.error_x, color: shades[i] }, error_y: { ...one.error_y, color: shades[i] },
    }));
    await Plotly.react(target, data, {
      ...figure.layout, paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { family: "system-ui, sans-serif", size: 12, color: colour("--sv-ink") },
      xaxis: { ...figure.layout.xaxis, ...axis, range: [0, right] }, yaxis: { ...figure.layout.yaxis, ...axis, range: [bottom, top] },
      annotations: wide ? annotations : [], margin: { ...figure.layout.margin, r: wide ? 112 : 16 },
      hoverlabel: { bgcolor: colour("--sv-raised"), bordercolor: colour("--sv-edge"), font: { color: colour("--sv-ink") } },
    }, { displayModeBar: false, responsive: false });
  }

  return { methodsKey, drawMethods };
})());
