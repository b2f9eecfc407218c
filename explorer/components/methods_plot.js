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
  function methodsKey(methods) {
    const kinds = new Set(methods.map((one) => one.kind));
    return Object.entries(KINDS).filter(([kind]) => kinds.has(kind)).map(([, [, , sign, name]]) => `${sign} ${name}`).join("   ");
  }

  const intervalText = (name, value, [low, high]) => `${name} ${value.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`;
  const intervalBar = (value, [low, high], color) => ({
    type: "data", symmetric: false, array: [high - value], arrayminus: [value - low], thickness: 1, width: 0, color,
  });

  // Draw the methods, unless the target is hidden or other ones are wanted once Plotly is loaded.
  async function drawMethods(target, methods, isWanted) {
    const colour = (name) => getComputedStyle(target).getPropertyValue(name).trim();
    const Plotly = await Sieve.plotly();
    if (!target.clientWidth || !isWanted()) return;
    const points = methods.map((one) => {
      const [shade, symbol] = KINDS[one.kind] ?? ["--sv-muted"];
      return { name: one.method, x: one["violation@10"], y: one["ap@10"], xs: one.violation_ci, ys: one.ci, color: colour(shade), symbol };
    });
    const axis = { color: colour("--sv-muted"), gridcolor: colour("--sv-line"), zerolinecolor: colour("--sv-line"), linecolor: colour("--sv-line"), fixedrange: true };
    const wide = target.clientWidth > 560;
    const right = Math.max(...points.map(({ xs }) => xs[1])) * 1.04 || 1;
    const low = Math.min(...points.map(({ ys }) => ys[0]));
    const high = Math.max(...points.map(({ ys }) => ys[1]));
    const margin = (high - low) * 0.05 || 0.05;
    const [bottom, top] = [low - margin, high + margin];
    const places = spread(points.map(({ y }) => y), (top - bottom) / 18, bottom + margin / 2, top - margin / 2);
    const annotations = points.map(({ name, x, y, color }, i) => ({
      x, y, ax: right, ay: places[i], axref: "x", ayref: "y", xanchor: "left", text: name === "Sieve" ? `<b>${name}</b>` : name.replaceAll("<", "&lt;"),
      font: { color, size: 12 }, showarrow: true, arrowhead: 0, arrowwidth: 0.6, arrowcolor: color, standoff: 6,
    }));
    const data = points.map(({ name, x, y, xs, ys, color, symbol }) => ({
      type: "scatter", mode: "markers", name, x: [x], y: [y], marker: { color, symbol, size: name === "Sieve" ? 11 : 8 },
      error_x: intervalBar(x, xs, color), error_y: intervalBar(y, ys, color),
      hovertemplate: `%{fullData.name}<br>${intervalText("AP@10", y, ys)}<br>${intervalText("violation@10", x, xs)}<extra></extra>`,
    }));
    await Plotly.react(target, data, {
      height: 380, showlegend: false, hovermode: "closest", margin: { l: 56, r: wide ? 136 : 16, t: 8, b: 48 },
      paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { family: "system-ui, sans-serif", size: 12, color: colour("--sv-ink") },
      xaxis: { ...axis, title: { text: "violation@10 (lower is better)" }, range: [0, right] },
      yaxis: { ...axis, title: { text: "AP@10 (higher is better)" }, nticks: 6, range: [bottom, top] },
      annotations: wide ? annotations : [],
      hoverlabel: { bgcolor: colour("--sv-raised"), bordercolor: colour("--sv-edge"), font: { color: colour("--sv-ink") } },
    }, { displayModeBar: false, responsive: false });
  }

  return { methodsKey, drawMethods };
})());
