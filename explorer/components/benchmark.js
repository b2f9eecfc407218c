const { el, on, place, whole, count, sentence } = Sieve;
const find = (selector) => element.querySelector(selector);
const section = find(".sv-bench");
const which = find("[name=evaluation]");
const against = find("[name=peer]");
const fault = find(".sv-fault");
const nowSaid = find(".sv-bench-now");
const body = find(".sv-bench-body");
const none = find(".sv-bench-none");
const plot = find(".sv-bench-drawn");
const [start, stop] = ["start", "stop"].map((what) => find(`[data-do=${what}]`));
const mayRun = Boolean(server.sieve_evaluation_start);
let list = null; // what there is
let shown = null; // the evaluation that is open
let chosen = { id: "", track: "", pair: "", peer: "" };
let sort = { by: "", down: true };
let pairs = null;

const track = () => shown?.tracks.find((one) => one.track === chosen.track) ?? shown?.tracks[0];
const digits = (value) => value.toFixed(3).replace(/^0/, "");
const span = (ci) => (ci ? `[${digits(ci[0])}, ${digits(ci[1])}]` : "");
function say(text) {
  if (nowSaid.textContent !== text) nowSaid.textContent = text;
}

// The address: evaluation,track,pair,peer. A link may say anything; what does not exist is passed over.
function read(text) {
  const [id = "", name = "", pair = "", ...peer] = text.split(",");
  return { id, track: name, pair, peer: peer.join(",") };
}
function write() {
  Sieve.setTabText("benchmark", shown ? [chosen.id, chosen.track, chosen.pair, chosen.peer].join(",") : "");
}

// What there is: the list of evaluations, and the quick one that may be under way.
let looks = 0;
async function look() {
  const mine = (looks += 1);
  const answer = await Sieve.call(server.sieve_evaluations, null);
  if (mine === looks) take(answer); // else something newer was asked meanwhile
}
function take(answer) {
  section.removeAttribute("aria-busy");
  fault.textContent = answer.error ?? "";
  if (answer.error) return again();
  const before = list;
  list = answer;
  find(".sv-bench-faults").replaceChildren(...(list.faults ?? []).map((line) => el("li", {}, `Not shown: ${line}`)));
  tellRun();
  if (JSON.stringify(before?.evaluations) !== JSON.stringify(list.evaluations)) fillWhich();
  const made = list.run?.made;
  const isNew = before?.run?.under_way && made && list.evaluations.some((one) => one.id === made);
  if (isNew) chosen = { id: made, track: chosen.track, pair: "", peer: "" };
  if (isNew || (list.evaluations.length && (!shown || shown.id !== chosen.id))) openChosen();
  again();
}
let timer = 0;
function again() {
  clearTimeout(timer);
  if (section.isConnected && place.tab === "benchmark" && (list?.run?.under_way || list?.elsewhere)) timer = setTimeout(look, list.run?.under_way ? 1000 : 4000);
}
function tellRun() {
  const { run, elsewhere, refusal } = list;
  const under = Boolean(run?.under_way);
  const held = document.activeElement?.dataset?.do && section.contains(document.activeElement);
  find(".sv-bench-run").hidden = !mayRun || !list.evaluations.length && !under;
  start.hidden = under;
  stop.hidden = !under;
  const first = find(".sv-bench-none [data-do=start]");
  for (const button of [start, first]) if (button) button.disabled = under || Boolean(elsewhere || refusal);
  if (under) say(run.of ? `Measuring ${list.checkpoint}: ${run.done} of ${run.of} done, now ${run.doing}. You may close this page.` : `Preparing to measure ${list.checkpoint} …`);
  else if (elsewhere) say(`${sentence(elsewhere)} is under way. One job runs at a time; a quick evaluation can start when it is done.`);
  else if (run?.state === "failed") say(`The last quick benchmark failed: ${run.fault}`);
  else if (run?.state === "stopped") say(run.fault ? `The last quick benchmark stopped: ${run.fault}` : "The quick benchmark was stopped; its results were discarded.");
  else say("");
  showNone(under);
  if (held) [stop, start, find(".sv-bench-none [data-do=start]")].find((button) => button?.checkVisibility() && !button.disabled)?.focus();
}
function showNone(under) {
  const empty = !list.evaluations.length;
  body.hidden = empty || !shown;
  none.hidden = !empty;
  if (!empty || none.childElementCount) return;
  none.replaceChildren(...[
    el("p", {}, `${list.collection} has not been evaluated yet.`),
    list.command ? el("p", {}, "The whole table, with encoders trained for it: ", el("code", {}, list.command)) : null,
    mayRun ? el("p", {}, `Or the short one: ${list.checkpoint}, against the baselines that need no training, in a minute or two.`) : null,
    mayRun ? el("button", { type: "button", class: "sv-go", "data-do": "start", disabled: under || Boolean(list.elsewhere || list.refusal) }, "Run quick benchmark") : null,
    list.refusal ? el("p", {}, `${sentence(list.refusal)}.`) : null,
  ].filter(Boolean));
}
let asking = false; // a button that is switched off would lose the focus
element.addEventListener("click", async ({ target }) => {
  const what = target.dataset?.do;
  if (!what || asking) return;
  asking = true;
  looks += 1;
  const answer = await Sieve.call(server[`sieve_evaluation_${what}`], null);
  asking = false;
  take(answer.error && list ? { ...list, error: answer.error } : answer);
});

// One evaluation.
const when = (made) => {
  const date = new Date(made);
  return Number.isNaN(date.getTime()) ? made : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
};
const measured = (one) => one.checkpoint || `trained on ${one.train}, ${count(one.seeds, "seed")}`;
function fillWhich() {
  which.replaceChildren(...list.evaluations.map((one) =>
    el("option", { value: one.id }, `${when(one.made)} · ${measured(one)} · ${one.names.join(" and ")}${one.short ? " · short" : ""}`)));
  which.value = chosen.id;
}
async function openChosen() {
  const known = list.evaluations.some((one) => one.id === chosen.id);
  if (!known && chosen.id) fault.textContent = "The evaluation of this link is not here; the newest is shown.";
  if (!known) chosen = { ...chosen, id: list.evaluations[0]?.id ?? "", pair: "" };
  if (!chosen.id) return;
  which.value = chosen.id;
  const { id } = chosen;
  const answer = await Sieve.call(server.sieve_evaluation, { id });
  if (chosen.id !== id) return;
  if (answer.error) { fault.textContent = answer.error; return; }
  shown = answer;
  body.hidden = false;
  none.hidden = true;
  fill();
}
which.addEventListener("change", () => {
  chosen = { id: which.value, track: chosen.track, pair: "", peer: chosen.peer };
  openChosen();
});
function fill() {
  const now = track();
  chosen.track = now?.track ?? "";
  find(".sv-bench-tracks").replaceChildren(...shown.tracks.map(({ track: name }) => el("button", {
    type: "button", "aria-pressed": String(name === chosen.track), title: name === "label" ? "A and B are labels" : "A and B are nouns of captions; absence in captions is not absence in the picture",
    onclick: () => { chosen = { ...chosen, track: name, pair: "" }; fill(); },
  }, `${sentence(name)} track`)));
  if (!now) return;
  find(".sv-bench-of").replaceChildren(...about(now));
  find(".sv-bench-says").replaceChildren(...now.verdicts.map((line) => el("li", {}, line)));
  fillTable();
  fillVariants();
  draw();
  fillPeers();
}
function about(now) {
  const says = [`${whole(now.pairs)} pairs of ${whole(now.a_words)} A-words over ${whole(now.items)} test images; hyperparameters tuned on ${whole(now.tuning.pairs)} other pairs over ${whole(now.tuning.items)} validation images${now.left_out}. `];
  if (shown.short) says.push(`The short table: baselines that have to be trained are left out${list.command ? "; " : "."}`, list.command ? el("code", {}, list.command) : "", list.command ? " measures them too. " : " ");
  if (!shown.checkpoint) says.push(el("b", {}, `Sieve here is encoders trained for this evaluation (${measured(shown)}), not ${list.checkpoint}, which is open.`));
  else if (!shown.is_open) says.push(el("b", {}, `This is of another checkpoint (${shown.checkpoint}) than the one that is open (${list.checkpoint}).`));
  return says;
}

// The table, as the terminal has it.
const COLUMNS = [
  ["method", "method", "Rules on the backbone's own embeddings, trained codes, and Sieve"],
  ["ap@10", "AP@10", "Average precision of the first ten for A without B, with its 95 % interval; higher is better"],
  ["ratio", "Sieve ÷ it", "Sieve's AP@10 over this method's, with its own paired interval: above 1, Sieve is better"],
  ["violation@10", "viol@10", "Share of the first ten that show both A and B; lower is better"],
  ["p@10", "P@10", "Share of the first ten that show A and not B"],
  ["ndcg@10", "nDCG@10", "Discounted gain of the first ten"],
  ["plain_ap@10", "AP@10 for A", "AP@10 of A alone, without any B"],
  ["kept", "A kept", "Share of A's AP@10 without exclusion that is kept while B is excluded"],
  ["spread", "seeds ±", "Standard deviation over training seeds"],
];
const STANDS = { wins: "beats Sieve", even: "not significantly different", loses: "" };
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
  const stand = STANDS[one.stand] ? el("span", { class: `sv-stand sv-stand-${one.stand}` }, STANDS[one.stand]) : null;
  const ratio = one.method === "Sieve" ? el("td") : cell(one.ratio, one.ratio_ci);
  if (stand) ratio.append(stand);
  const ap = cell(one["ap@10"], one.ci);
  ap.append(interval(one["ap@10"], one.ci));
  const violation = cell(one["violation@10"], one.violation_ci);
  violation.append(interval(one["violation@10"], one.violation_ci));
  return el("tr", { class: one.method === "Sieve" ? "sv-own" : "" }, el("th", { scope: "row" }, one.method), ap, ratio, violation,
    cell(one["p@10"]), cell(one["ndcg@10"]), cell(one["plain_ap@10"]), cell(one.kept), cell(one.spread));
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

// One drawing at a time: Plotly, asked anew while it draws, stays at the first one's width.
let drawing = Promise.resolve();
function draw() {
  const { figure } = track();
  find(".sv-bench-key").textContent = Sieve.methodsKey(figure);
  drawing = drawing.then(() => Sieve.drawMethods(plot, figure, () => figure === track()?.figure))
    .catch(() => { plot.textContent = "The plot could not be drawn; the table has its numbers."; });
}
on("theme", () => { if (shown && place.tab === "benchmark") draw(); });
let resizing = 0;
new ResizeObserver(() => {
  clearTimeout(resizing);
  resizing = setTimeout(() => { if (shown && plot.clientWidth) draw(); }, 150);
}).observe(plot);

// The pairs.
function fillPeers() {
  const { peers, methods } = track();
  find(".sv-bench-pairs").hidden = !peers.length;
  if (!peers.length) return write();
  against.replaceChildren(...peers.map((name) => el("option", { value: name }, name)));
  if (!peers.includes(chosen.peer)) {
    const dense = methods.filter((one) => peers.includes(one.method));
    chosen.peer = dense.reduce((best, one) => (one["ap@10"] > best["ap@10"] ? one : best)).method;
  }
  against.value = chosen.peer;
  loadPairs();
}
against.addEventListener("change", () => {
  chosen = { ...chosen, peer: against.value, pair: "" };
  loadPairs();
});
async function loadPairs() {
  const asked = { id: chosen.id, track: chosen.track, peer: chosen.peer };
  write();
  const answer = await Sieve.call(server.sieve_evaluation_pairs, asked);
  if (Object.entries(asked).some(([name, value]) => chosen[name] !== value)) return;
  if (answer.error) { fault.textContent = answer.error; return; }
  pairs = answer;
  const all = [...pairs.wins, ...pairs.losses];
  if (!all.some((one) => String(one.pair) === chosen.pair)) chosen.pair = String(all[0]?.pair ?? "");
  const even = pairs.pairs - pairs.n_wins - pairs.n_losses;
  find(".sv-bench-count").textContent = `By AP@10 Sieve is ahead of ${chosen.peer} on ${whole(pairs.n_wins)} of ${whole(pairs.pairs)} pairs, behind on ${whole(pairs.n_losses)}, and even on ${whole(even)}.`
    + (pairs.seeds > 1 ? ` Numbers are means over ${pairs.seeds} seeds, images the first seed's.` : "");
  fillLists();
}
const asks = (one) => `${one.a} without ${one.b}`;
function fillLists() {
  const button = (one) => el("li", {}, el("button", {
    type: "button", "aria-pressed": String(String(one.pair) === chosen.pair), "data-pair": one.pair,
    onclick: () => { chosen.pair = String(one.pair); mark(); showPair(); },
  }, el("span", {}, asks(one)), el("span", { title: `AP@10 of Sieve, and of ${chosen.peer}` }, `${digits(one.sides[0].ap)} against ${digits(one.sides[1].ap)}`)));
  const column = (title, some, empty) => el("div", {}, el("h4", {}, title), some.length ? el("ol", {}, ...some.map(button)) : el("p", { class: "sv-hint" }, empty));
  find(".sv-bench-lists").replaceChildren(
    column("Sieve wins most", pairs.wins, "On no pair."), column("Sieve loses most", pairs.losses, "On no pair."));
  showPair();
}
function mark() {
  for (const button of element.querySelectorAll(".sv-bench-lists button")) button.setAttribute("aria-pressed", String(button.dataset.pair === chosen.pair));
}
function showPair() {
  write();
  const one = [...pairs.wins, ...pairs.losses].find((pair) => String(pair.pair) === chosen.pair);
  const told = chosen.track === "caption" ? "by their captions" : "by their labels";
  find(".sv-bench-pair").replaceChildren(...(one ? [
    el("div", { class: "sv-bench-asked" }, el("h3", {}, asks(one)),
      el("p", {}, `${whole(one.relevant)} test images have “${one.a}” and not “${one.b}” ${told}, ${whole(one.violating)} have both.`),
      el("button", { type: "button", class: "sv-plain", onclick: () => Sieve.search({ q: one.a, without: one.b }) }, "Search it")),
    el("div", { class: "sv-bench-sides" }, ...one.sides.map((side) => sideOf(one, side))),
  ] : []));
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
    onclick: () => Sieve.emit("detail", { id: item.id, captions: item.captions, labels: [] }, { keep: false }),
  }, Sieve.image(item.id), el("span", {}, word)));
}

// Nothing is asked before the tab is shown; a link says what to show.
on("benchmark", (text) => {
  if (!text || text === [chosen.id, chosen.track, chosen.pair, chosen.peer].join(",")) return;
  chosen = read(text);
  if (list && place.tab === "benchmark") openChosen();
});
on("tab", (tab) => { if (tab === "benchmark") look(); });
if (place.tab === "benchmark") look();
