const { el, on, viewState, whole, count, capital, sentence } = Sieve;
const find = (selector) => element.querySelector(selector);
const { section, evaluationSelect, baselineSelect, fault, status, body, empty, chart } = Sieve.parts(element, {
  section: ".sv-bench", evaluationSelect: "[name=evaluation]", baselineSelect: "[name=baseline]", fault: ".sv-fault",
  status: ".sv-bench-status", body: ".sv-bench-body", empty: ".sv-bench-empty", chart: ".sv-bench-chart",
});
const [start, stop] = ["start", "stop"].map((what) => find(`[data-do=${what}]`));
const canRun = Boolean(server.sieve_evaluation_start);
let list = null; // available evaluations and the state of the quick run
let shown = null; // the evaluation that is open
let chosen = { id: "", track: "", pair: "", baseline: "" };
let sort = { by: "", down: true };
let pairs = null;

const track = () => shown?.tracks.find((one) => one.track === chosen.track) ?? shown?.tracks[0];
const digits = (value) => value.toFixed(3);
const span = (ci) => (ci ? `[${digits(ci[0])}, ${digits(ci[1])}]` : "");
function showStatus(text) {
  if (status.textContent !== text) status.textContent = text;
}

// URL: evaluation,track,pair,baseline. Values that do not exist are ignored.
function read(text) {
  const [id = "", name = "", pair = "", ...baseline] = text.split(",");
  return { id, track: name, pair, baseline: baseline.join(",") };
}
function write() {
  Sieve.setTabText("benchmark", shown ? [chosen.id, chosen.track, chosen.pair, chosen.baseline].join(",") : "");
}

// Poll the list of evaluations and the state of the quick run.
let polls = 0;
async function poll() {
  const mine = (polls += 1);
  const answer = await Sieve.call(server.sieve_evaluations, null);
  if (mine === polls) take(answer); // otherwise a newer request is running
}
function take(answer) {
  section.removeAttribute("aria-busy");
  fault.textContent = answer.error ?? "";
  if (answer.error) return pollLater();
  const before = list;
  list = answer;
  find(".sv-bench-faults").replaceChildren(...(list.faults ?? []).map((line) => el("li", {}, `Not shown: ${line}`)));
  showRun();
  if (JSON.stringify(before?.evaluations) !== JSON.stringify(list.evaluations)) fillEvaluations();
  const made = list.run?.made;
  const isNew = before?.run?.running && made && list.evaluations.some((one) => one.id === made);
  if (isNew) chosen = { id: made, track: chosen.track, pair: "", baseline: "" };
  if (isNew || (list.evaluations.length && (!shown || shown.id !== chosen.id))) openChosen();
  pollLater();
}
let timer = 0;
function pollLater() {
  clearTimeout(timer);
  if (section.isConnected && viewState.tab === "benchmark" && (list?.run?.running || list?.elsewhere)) timer = setTimeout(poll, list.run?.running ? 1000 : 4000);
}
function showRun() {
  const { run, elsewhere, refusal } = list;
  const isRunning = Boolean(run?.running);
  const hadFocus = document.activeElement?.dataset?.do && section.contains(document.activeElement);
  find(".sv-bench-run").hidden = !canRun || !list.evaluations.length && !isRunning;
  start.hidden = isRunning;
  stop.hidden = !isRunning;
  const first = find(".sv-bench-empty [data-do=start]");
  for (const button of [start, first]) if (button) button.disabled = isRunning || Boolean(elsewhere || refusal);
  if (isRunning) showStatus(run.of ? `Evaluating ${list.checkpoint}: ${run.done} of ${run.of} done, now ${run.doing}. You can close this page.` : `Preparing to evaluate ${list.checkpoint} …`);
  else if (elsewhere) showStatus(`${capital(elsewhere)} is running. One job runs at a time; start the quick benchmark when it is done.`);
  else if (run?.state === "failed") showStatus(`The last quick benchmark failed: ${run.fault}`);
  else if (run?.state === "stopped") showStatus(run.fault ? `The last quick benchmark stopped: ${run.fault}` : "The quick benchmark was stopped; its results were discarded.");
  else showStatus("");
  showEmpty(isRunning);
  if (hadFocus) [stop, start, find(".sv-bench-empty [data-do=start]")].find((button) => button?.checkVisibility() && !button.disabled)?.focus();
}
function showEmpty(isRunning) {
  const isEmpty = !list.evaluations.length;
  body.hidden = isEmpty || !shown;
  empty.hidden = !isEmpty;
  if (!isEmpty || empty.childElementCount) return;
  empty.replaceChildren(...[
    el("p", {}, `The collection “${list.collection}” has not been evaluated yet.`),
    list.command ? el("p", {}, "To run the full benchmark, which also trains baselines: ", el("code", {}, list.command)) : null,
    canRun ? el("p", {}, `Or run the quick benchmark: it compares the checkpoint “${list.checkpoint}” with the baselines that need no training, in a minute or two.`) : null,
    canRun ? el("button", { type: "button", class: "sv-primary", "data-do": "start", disabled: isRunning || Boolean(list.elsewhere || list.refusal) }, "Run quick benchmark") : null,
    list.refusal ? el("p", {}, sentence(list.refusal)) : null,
  ].filter(Boolean));
}
let asking = false; // a disabled button would lose the focus
element.addEventListener("click", async ({ target }) => {
  const what = target.dataset?.do;
  if (!what || asking) return;
  asking = true;
  polls += 1;
  const answer = await Sieve.call(server[`sieve_evaluation_${what}`], null);
  asking = false;
  take(answer.error && list ? { ...list, error: answer.error } : answer);
});

// One evaluation.
const when = (made) => {
  const date = new Date(made);
  return Number.isNaN(date.getTime()) ? made : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
};
const origin = (one) => (one.code ? " · ships with Sieve" : one.short ? " · quick" : "");
const measured = (one) => one.checkpoint || `trained on ${one.train}, ${count(one.seeds, "seed")}`;
function fillEvaluations() {
  evaluationSelect.replaceChildren(...list.evaluations.map((one) =>
    el("option", { value: one.id }, `${when(one.made)} · ${measured(one)} · ${one.names.join(" and ")}${origin(one)}`)));
  evaluationSelect.value = chosen.id;
}
async function openChosen() {
  const known = list.evaluations.some((one) => one.id === chosen.id);
  if (!known && chosen.id) fault.textContent = "The evaluation of this link was not found; the newest is shown.";
  if (!known) chosen = { ...chosen, id: list.evaluations[0]?.id ?? "", pair: "" };
  if (!chosen.id) return;
  evaluationSelect.value = chosen.id;
  const { id } = chosen;
  const answer = await Sieve.call(server.sieve_evaluation, { id });
  if (chosen.id !== id) return;
  if (answer.error) { fault.textContent = answer.error; return; }
  shown = answer;
  body.hidden = false;
  empty.hidden = true;
  fill();
}
evaluationSelect.addEventListener("change", () => {
  chosen = { id: evaluationSelect.value, track: chosen.track, pair: "", baseline: chosen.baseline };
  openChosen();
});
const TRACKS = {
  label: { name: "Label track", title: "A and B are labels", source: "their labels" },
  caption: { name: "Caption track", title: "A and B are nouns in captions; a caption may not mention everything in its image", source: "their captions" },
  queries: { name: "Query file", title: "Queries with relevance judgments from a file", source: "the file" },
};
function fill() {
  const now = track();
  chosen.track = now?.track ?? "";
  find(".sv-bench-tracks").replaceChildren(...shown.tracks.map(({ track: name }) => el("button", {
    type: "button", "aria-pressed": String(name === chosen.track), title: TRACKS[name]?.title ?? "",
    onclick: () => { chosen = { ...chosen, track: name, pair: "" }; fill(); },
  }, TRACKS[name]?.name ?? name)));
  if (!now) return;
  find(".sv-bench-about").replaceChildren(...about(now));
  find(".sv-bench-verdicts").replaceChildren(...now.verdicts.map((line) => el("li", {}, line)));
  find(".sv-bench-limits").hidden = !now.limits.length;
  find(".sv-bench-limits ul").replaceChildren(...now.limits.map((line) => el("li", {}, line)));
  fillTable();
  fillVariants();
  draw();
  fillBaselines();
  fillFailures();
}
function about(now) {
  const texts = [`${whole(now.pairs)} pairs with ${whole(now.a_words)} different A, over ${whole(now.items)} test images. Hyperparameters were tuned on ${whole(now.tuning.pairs)} other pairs over ${whole(now.tuning.items)} validation images${now.left_out}${now.criteria}. `];
  if (now.notes.length) texts.push(`${now.notes.join(" ")} `);
  if (shown.code) texts.push(`Measured before release, with version ${shown.code}. `);
  if (shown.short) texts.push(`Quick benchmark: trained baselines are not included${list.command ? "; run " : "."}`, list.command ? el("code", {}, list.command) : "", list.command ? " to include them. " : " ");
  if (!shown.checkpoint) texts.push(el("b", {}, `These results are for encoders trained for this evaluation (${measured(shown)}), not for the open checkpoint (${list.checkpoint}).`));
  else if (!shown.is_open) texts.push(el("b", {}, `These results are for another checkpoint (${shown.checkpoint}), not for the open one (${list.checkpoint}).`));
  return texts;
}

// The table, with the columns of the terminal report.
const COLUMNS = [
  ["method", "Method", "Rules on the backbone's embeddings, trained encoders, and Sieve"],
  ["ap@10", "AP@10", "Average precision of the top 10 for “A without B”, with its 95% confidence interval; higher is better"],
  ["ratio", "Sieve / method", "AP@10 of Sieve divided by that of this method, with its paired 95% interval; above 1, Sieve is better"],
  ["violation@10", "Violation@10", "Share of the top 10 that show both A and B; lower is better"],
  ["p@10", "P@10", "Share of the top 10 that show A and not B"],
  ["ndcg@10", "nDCG@10", "Normalised discounted cumulative gain of the top 10"],
  ["plain_ap@10", "AP@10 of A", "AP@10 of the query A without exclusion"],
  ["kept", "A kept", "AP@10 of A while B is excluded, divided by AP@10 of A without exclusion"],
  ["spread", "Seeds ±", "Standard deviation over training seeds"],
  ["wording_spread", "Wordings ±", "Standard deviation over five other wordings of A and B, such as “dog”, “a photo of a dog” and “dogs”"],
];
const VERDICTS = { wins: "beats Sieve", even: "not significantly different", loses: "" };
find(".sv-scores thead tr").replaceChildren(...COLUMNS.map(([by, name, title]) => el("th", { scope: "col", "aria-sort": "none" }, el("button", {
  type: "button", title, "data-by": by, onclick: () => { sort = { by, down: sort.by === by ? !sort.down : by !== "method" }; fillTable(); },
}, name))));
function interval(value, ci) {
  const bar = el("i");
  bar.style.left = `${100 * ci[0]}%`;
  bar.style.width = `${100 * (ci[1] - ci[0])}%`;
  const dot = el("b");
  dot.style.left = `${100 * value}%`;
  return el("span", { class: "sv-ci", "aria-hidden": "true" }, bar, dot);
}
function makeRow(one) {
  const cell = (value, ci) => el("td", {}, value === null ? "" : digits(value), ci ? el("small", {}, ` ${span(ci)}`) : null);
  const verdict = VERDICTS[one.stand] ? el("span", { class: `sv-verdict sv-verdict-${one.stand}` }, VERDICTS[one.stand]) : null;
  const ratio = one.method === "Sieve" ? el("td") : cell(one.ratio, one.ratio_ci);
  if (verdict) ratio.append(verdict);
  const ap = cell(one["ap@10"], one.ci);
  ap.append(interval(one["ap@10"], one.ci));
  const violation = cell(one["violation@10"], one.violation_ci);
  violation.append(interval(one["violation@10"], one.violation_ci));
  return el("tr", { class: one.method === "Sieve" ? "sv-own" : "" }, el("th", { scope: "row" }, one.method), ap, ratio, violation,
    cell(one["p@10"]), cell(one["ndcg@10"]), cell(one["plain_ap@10"]), cell(one.kept), cell(one.spread), cell(one.wording_spread));
}
const withKept = (one) => ({ ...one, kept: one["plain_ap@10"] ? one["kept_ap@10"] / one["plain_ap@10"] : null });
function fillTable() {
  const rows = track().methods.map(withKept);
  const { by, down } = sort;
  const compare = by === "method" ? (a, b) => a.method.localeCompare(b.method) : (a, b) => (a[by] ?? -1) - (b[by] ?? -1);
  if (by) rows.sort((a, b) => (down ? -compare(a, b) : compare(a, b)));
  find(".sv-bench-scroll > .sv-scores tbody").replaceChildren(...rows.map(makeRow));
  for (const head of element.querySelectorAll("[aria-sort]")) {
    head.setAttribute("aria-sort", head.firstElementChild.dataset.by !== by ? "none" : down ? "descending" : "ascending");
  }
}

function fillVariants() {
  const { variants } = track();
  find(".sv-bench-variants").hidden = !variants.length;
  const head = el("thead", {}, el("tr", {}, ...COLUMNS.map(([, name, title]) => el("th", { scope: "col", title }, name))));
  find(".sv-bench-variants .sv-scores").replaceChildren(head, el("tbody", {}, ...variants.map(withKept).map(makeRow)));
}

// Draw one plot at a time: if Plotly is called again while it draws, it keeps the first width.
let drawing = Promise.resolve();
function draw() {
  const now = track();
  const methods = now.methods.filter((one) => one.method !== "oracle");
  find(".sv-bench-key").textContent = Sieve.methodsKey(methods);
  drawing = drawing.then(() => Sieve.drawMethods(chart, methods, () => now === track()))
    .catch(() => { chart.textContent = "The plot could not be drawn; the table shows the same numbers."; });
}
on("theme", () => { if (shown && viewState.tab === "benchmark") draw(); });
let resizing = 0;
new ResizeObserver(() => {
  clearTimeout(resizing);
  resizing = setTimeout(() => { if (shown && chart.clientWidth) draw(); }, 150);
}).observe(chart);

// The pairs.
function fillBaselines() {
  const { baselines, methods } = track();
  find(".sv-bench-pairs").hidden = !baselines.length;
  if (!baselines.length) return write();
  baselineSelect.replaceChildren(...baselines.map((name) => el("option", { value: name }, name)));
  if (!baselines.includes(chosen.baseline)) {
    const dense = methods.filter((one) => baselines.includes(one.method));
    chosen.baseline = dense.reduce((best, one) => (one["ap@10"] > best["ap@10"] ? one : best)).method;
  }
  baselineSelect.value = chosen.baseline;
  loadPairs();
}
baselineSelect.addEventListener("change", () => {
  chosen = { ...chosen, baseline: baselineSelect.value, pair: "" };
  loadPairs();
});
async function loadPairs() {
  const request = { id: chosen.id, track: chosen.track, baseline: chosen.baseline };
  write();
  const answer = await Sieve.call(server.sieve_evaluation_pairs, request);
  if (Object.entries(request).some(([name, value]) => chosen[name] !== value)) return;
  if (answer.error) { fault.textContent = answer.error; return; }
  pairs = answer;
  const all = [...pairs.wins, ...pairs.losses];
  if (!all.some((one) => String(one.pair) === chosen.pair)) chosen.pair = String(all[0]?.pair ?? "");
  const even = pairs.pairs - pairs.n_wins - pairs.n_losses;
  find(".sv-bench-count").textContent = `By AP@10, Sieve is ahead of ${chosen.baseline} on ${whole(pairs.n_wins)} of ${whole(pairs.pairs)} pairs, behind on ${whole(pairs.n_losses)} and equal on ${whole(even)}.`
    + (pairs.seeds > 1 ? ` Scores are means over ${pairs.seeds} seeds; images are from the first seed.` : "");
  fillLists();
}
const queryText = (one) => `${one.a} without ${one.b}`;
function fillLists() {
  const button = (one) => el("li", {}, el("button", {
    type: "button", "aria-pressed": String(String(one.pair) === chosen.pair), "data-pair": one.pair,
    onclick: () => { chosen.pair = String(one.pair); mark(); showPair(); },
  }, el("span", {}, queryText(one)), el("span", { title: `AP@10 of Sieve and of ${chosen.baseline}` }, `${digits(one.sides[0].ap)} vs. ${digits(one.sides[1].ap)}`)));
  const column = (title, some, otherwise) => el("div", {}, el("h4", {}, title), some.length ? el("ol", {}, ...some.map(button)) : el("p", { class: "sv-hint" }, otherwise));
  find(".sv-bench-lists").replaceChildren(
    column("Sieve wins most", pairs.wins, "None."), column("Sieve loses most", pairs.losses, "None."));
  showPair();
}
function mark() {
  for (const button of element.querySelectorAll(".sv-bench-lists button")) button.setAttribute("aria-pressed", String(button.dataset.pair === chosen.pair));
}
function showPair() {
  write();
  const one = [...pairs.wins, ...pairs.losses].find((pair) => String(pair.pair) === chosen.pair);
  find(".sv-bench-pair").replaceChildren(...(one ? [
    describePair(one), el("div", { class: "sv-bench-sides" }, ...one.sides.map((side) => sideOf(one, side))),
  ] : []));
}
function describePair(one) {
  return el("div", { class: "sv-bench-query" }, el("h3", {}, queryText(one)),
    el("p", {}, `According to ${TRACKS[chosen.track]?.source ?? "the judgments"}, ${whole(one.relevant)} test images have “${one.a}” but not “${one.b}”; ${whole(one.violating)} have both.`),
    el("button", { type: "button", class: "sv-plain", onclick: () => Sieve.search({ q: one.a, without: one.b }) }, "Try this search"));
}
function sideOf(one, side) {
  const broken = side.results.filter((item) => item.mark === "both").length;
  return el("div", {}, el("h4", {}, side.method, el("span", {}, `  AP@10 ${digits(side.ap)}, ${broken} of ${side.results.length} violate`)),
    el("ol", { class: "sv-bench-found" }, ...side.results.map((item, rank) => tile(one, item, rank + 1))));
}
function tile(one, item, rank) {
  const word = { fits: `✓ ${one.a}`, both: `✗ ${one.b} too`, neither: `no ${one.a}` }[item.mark];
  const spoken = { fits: "fits", both: `violates: ${one.b} too`, neither: `no ${one.a}` }[item.mark];
  const caption = item.captions[0] ?? "";
  return el("li", { class: `sv-bench-${item.mark}` }, el("button", {
    type: "button", "aria-label": `${rank}, ${spoken}: ${caption || item.id}`, title: caption,
    onclick: () => Sieve.openItem({ id: item.id, captions: item.captions, labels: [] }),
  }, Sieve.image(item.id), el("span", {}, word)));
}

// The failures of Sieve, by kind.
const failures = find(".sv-bench-failures");
function fillFailures() {
  const { n_failures: n } = track();
  failures.hidden = !n;
  failures.open = false;
  failures.querySelector("summary").textContent = `Where Sieve fails: its ${whole(n)} worst pairs, by likely cause`;
  failures.querySelector(".sv-bench-kinds").replaceChildren();
  failures.querySelector(".sv-bench-pair").replaceChildren();
}
failures.addEventListener("toggle", async () => {
  if (!failures.open || failures.querySelector(".sv-bench-kinds").childElementCount) return;
  const asked = { id: chosen.id, track: chosen.track };
  const kinds = await Sieve.call(server.sieve_evaluation_failures, asked);
  if (asked.id !== chosen.id || asked.track !== chosen.track) return;
  if (kinds.error) { fault.textContent = kinds.error; return; }
  failures.querySelector(".sv-bench-kinds").replaceChildren(...kinds.filter((one) => one.pairs.length).map(kindOf));
});
function kindOf({ kind, rule, pairs: some }) {
  const button = (one) => el("li", {}, el("button", { type: "button", "aria-pressed": "false", onclick: ({ currentTarget }) => showFailure(one, currentTarget) },
    el("span", {}, queryText(one)), el("span", { title: "AP@10 of Sieve" }, digits(one.sides[0].ap))));
  return el("div", {}, el("h4", {}, `${capital(kind)}: ${count(some.length, "pair")}`), el("p", { class: "sv-hint" }, rule),
    some.length ? el("ol", {}, ...some.map(button)) : null);
}
function showFailure(one, pressed) {
  for (const button of failures.querySelectorAll("[aria-pressed]")) button.setAttribute("aria-pressed", String(button === pressed));
  const target = failures.querySelector(".sv-bench-pair");
  target.replaceChildren(describePair(one), sideOf(one, one.sides[0]));
  target.scrollIntoView({ block: "nearest" });
}

// Load when the tab is first shown.
on("benchmark", (text) => {
  if (!text || text === [chosen.id, chosen.track, chosen.pair, chosen.baseline].join(",")) return;
  chosen = read(text);
  if (list && viewState.tab === "benchmark") openChosen();
});
on("tab", (tab) => { if (tab === "benchmark") poll(); });
if (viewState.tab === "benchmark") poll();
