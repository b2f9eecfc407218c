const { el, on, emit, viewState, number, percent, count, capital, sentence } = Sieve;
const find = (selector) => element.querySelector(selector);
const [queryForm, settingsForm] = element.querySelectorAll("form");
const { q, without } = queryForm.elements;
const { method, hyperparameter, track, a, b } = settingsForm.elements;
const queryImage = find(".sv-query-image");
const [fault, summary, fromSearch] = [".sv-fault", ".sv-compare-summary", ".sv-from-search"].map(find);
const MEASURED = 10;
const USUAL = "subtraction";
const ITEM_ID = /^[0-9a-f]{16}$/;
const PLAIN = Sieve.EMPTY_QUERY;
const TRACKS = { label: "labels", caption: "captions" };
let options = null;
let state = { ...PLAIN, method: "", hyperparameter: null, track: "", a: "", b: "" };
let preview = ""; // of an uploaded image
let chosen = false; // whether the user chose the query; otherwise it follows the search

const ask = Sieve.latest(server.sieve_compare, show);
async function compare() {
  fault.textContent = "";
  if (!(await ready())) return;
  if (viewState.tab === "compare") saveState();
  offer();
  const nothing = !isAsked(state) || !state.method;
  find(".sv-compare-empty").hidden = !nothing;
  find(".sv-try-examples").hidden = isAsked(state);
  find(".sv-muted-text").textContent = !can.text_queries ? sentence(can.no_text) : state.upload ? "Links to this view do not include your image." : "";
  settingsForm.hidden = nothing;
  if (nothing) {
    find(".sv-compare-columns").hidden = true;
    summary.textContent = "";
    return;
  }
  const opening = state.method.startsWith("checkpoint ");
  if (opening) summary.textContent = `Opening ${state.method} … The first time, it encodes the whole collection, which takes a moment.`;
  element.setAttribute("aria-busy", "true");
  ask({ ...state, where: viewState.where });
}
function saveState() {
  const { q: query, item, upload: key, without: not, off, strictness, never, limit, hyperparameter: knob, ...rest } = state; // links say “knob”
  const fields = chosen && !key ? { q: query, item, without: not, off: Sieve.packOff(off), strictness: Sieve.packStrictness({ strictness, never, limit }) } : {};
  const { set, other } = Sieve.unpack(viewState.versus); // of the sets of images below
  Sieve.setTabText("compare", Sieve.pack({ set, other, ...fields, method: rest.method === USUAL ? "" : rest.method, knob, track: rest.track, a: rest.a, b: rest.b }));
}

// Methods to compare with, loaded once.
let asking = null;
function ready() {
  asking ??= Sieve.call(server.sieve_compare_options, null).then((answer) => {
    if (answer.error) { fault.textContent = answer.error; asking = null; return false; }
    fill(answer);
    return true;
  });
  return asking;
}
const option = (value, words = value) => el("option", { value }, words);
function fill(answer) {
  options = answer;
  const dense = answer.methods.map(({ name }) => option(name));
  const others = answer.checkpoints.map((name) => option(`checkpoint ${name}`, name));
  const group = (label, list) => list.length && el("optgroup", { label }, ...list);
  method.replaceChildren(...[group("The backbone alone", dense), group("Another checkpoint", others)].filter(Boolean));
  const values = [...method.options].map((one) => one.value);
  if (!values.includes(state.method)) {
    if (state.method) fault.textContent = `The method “${state.method}” is not available here.`;
    state.method = values.find((value) => value === USUAL) ?? values[0] ?? "";
  }
  if (!values.length) {
    for (const part of [queryForm, find(".sv-messages")]) part.hidden = true;
    find(".sv-compare-empty").textContent = "There is nothing to compare with: external codes have no backbone and no other checkpoints.";
  }
  track.replaceChildren(...answer.tracks.map((name) => option(name, TRACKS[name])));
  find(".sv-compare-relevance").hidden = !answer.tracks.length;
  fillHyperparameter();
}
function fillHyperparameter() {
  method.value = state.method;
  const about = options.methods.find(({ name }) => name === state.method);
  const label = find(".sv-compare-parameter");
  label.hidden = !about?.hyperparameter;
  if (label.hidden) return;
  label.querySelector("span").textContent = capital(about.hyperparameter);
  Object.assign(hyperparameter, { min: about.low, max: about.high, value: state.hyperparameter ?? about.value, title: `From ${about.low} to ${about.high}` });
}

// The query.
const isAsked = (one) => Boolean(one.q || one.item || one.upload);
let can = {};
const { query: ofSearch, sameQuery: same } = Sieve;
function offer() {
  fromSearch.hidden = !Sieve.hasQuery() || same(state, ofSearch());
}
function use({ preview: picture = "", ...fields }, { own = true } = {}) {
  chosen = own;
  preview = picture;
  Object.assign(state, PLAIN, fields, { a: "", b: "", track: "" });
  write();
  compare();
}
function write(like = null) {
  Sieve.showQuery(queryForm, state, preview, `like: ${like?.captions[0] ?? state.item}`);
}
queryImage.querySelector("button").addEventListener("click", () => {
  queryImage.hidden = true;
  q.hidden = false;
  q.value = "";
  q.focus();
});
Sieve.acceptImages(queryForm, upload, {
  busy: (is) => (is ? element.setAttribute("aria-busy", "true") : element.removeAttribute("aria-busy")),
  fault: (line) => { fault.textContent = line; },
  take: (found) => use({ ...PLAIN, upload: found.key, preview: found.preview, without: without.value.trim() }),
});
function words() {
  const text = q.value.trim();
  if (!queryImage.hidden) return { q: "", item: state.item, upload: state.upload };
  return ITEM_ID.test(text) ? { q: "", item: text, upload: "" } : { q: text, item: "", upload: "" };
}
queryForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const now = { ...words(), without: without.value.trim() };
  if (!isAsked(now) && now.without) {
    show({ error: Sieve.ONLY_EXCLUDES });
    q.focus();
    return;
  }
  if (same({ ...state, ...now }, state)) compare();
  else use({ ...now, preview: now.upload && preview, strictness: state.strictness, never: state.never, limit: state.limit });
});
fromSearch.addEventListener("click", () => use(ofSearch(), { own: false }));
settingsForm.addEventListener("submit", (event) => event.preventDefault());
settingsForm.addEventListener("change", ({ target }) => {
  if (target === method) Object.assign(state, { method: method.value, hyperparameter: null });
  if (target === hyperparameter) state.hyperparameter = hyperparameter.value === "" ? null : Number(hyperparameter.value);
  if (target === track) Object.assign(state, { track: track.value, a: "", b: "" });
  if (target === a || target === b) Object.assign(state, { track: track.value, a: a.value, b: b.value });
  fillHyperparameter();
  compare();
});

// The answer.
function show(answer) {
  element.removeAttribute("aria-busy");
  fault.textContent = answer.error ?? "";
  if (answer.error) {
    summary.textContent = "";
    find(".sv-notes").replaceChildren();
    find(".sv-compare-columns").hidden = true;
    return;
  }
  Object.assign(state, { q: answer.q, without: answer.without });
  write(answer.like[0]);
  offer();
  find(".sv-notes").replaceChildren(...answer.notes.map((line) => el("li", {}, line)));
  fillRelevance(answer.relevance);
  const filtered = answer.passing === null ? "" : ` Of the ${count(answer.passing, "image")} that ${answer.passing === 1 ? "passes" : "pass"} the filter,`;
  summary.textContent = `${relevanceText(answer)}${filtered} ${answer.both} of the top ${answer.columns[0].results.length} are in both lists.`;
  const [left, right] = answer.columns;
  find(".sv-compare-columns").hidden = false;
  element.querySelectorAll(".sv-compare-columns > section").forEach((section, at) => fillColumn(section, [left, right][at], [right, left][at], answer.relevance));
}
function fillRelevance({ track: now, a: first, b: second, names }) {
  track.value = now;
  for (const [select, value] of [[a, first], [b, second]]) {
    select.replaceChildren(option("", "choose …"), ...names.map((name) => option(name)));
    select.value = value;
  }
}
function trainedOn(columns) {
  const parts = columns.filter(({ trained }) => trained > 0).map(({ title, trained }) => `${title.split(" · ")[1]} was trained on ${percent(trained)} of the items`);
  return parts.length ? ` ${parts.join(", ")}, which favours it; “sieve evaluate” excludes such items.` : "";
}
function relevanceText({ relevance, without: not, columns }) {
  if (!relevance.track) return "This collection has no labels or captions, so results cannot be scored.";
  if (relevance.relevant === undefined && !relevance.a && !state.q) return "Choose above what counts as relevant; it cannot be derived from an image.";
  if (relevance.relevant === undefined) return `Choose above what counts as relevant: no ${relevance.track === "label" ? "label" : "caption noun"} matches ${not && relevance.a ? `“${not}”` : "the query"}.`;
  const judged = relevance.b ? `has ${relevance.a}, not ${relevance.b}` : `has ${relevance.a}`;
  return `Relevant: ${judged}, judged by ${TRACKS[relevance.track]}: ${count(relevance.relevant, "image")}${relevance.b ? `; ${count(relevance.violating, "image")} ${relevance.violating === 1 ? "has" : "have"} both` : ""}.${trainedOn(columns)}`;
}
function fillColumn(section, column, other, relevance) {
  section.querySelector("h2").textContent = column.title;
  section.querySelector(".sv-compare-description").textContent = column.how;
  const rows = [["AP@10", "ap", 1, "Average precision of the top 10"], ["P@10", "precision", 1, "Share of relevant images in the top 10"], ["Violation@10", "violation", -1, "Share of images in the top 10 that have both"]];
  section.querySelector("dl").replaceChildren(...rows.map(([name, key, sign, title]) => {
    const [here, there] = [column.measures?.[key], other.measures?.[key]];
    const better = sign * (here - there) > 1e-9;
    return el("div", { title, class: better ? "sv-better" : "" }, el("dt", {}, name), el("dd", {}, here === undefined ? "–" : number(here)));
  }));
  const ranks = new Map(other.results.map((item) => [item.id, item.rank]));
  const tiles = column.results.map((item) => el("li", {}, tileOf(item, ranks.get(item.id), relevance)));
  if (tiles.length > MEASURED && column.measures) tiles.splice(MEASURED, 0, el("li", { class: "sv-compare-line" }, "below the top 10 (not scored)"));
  section.querySelector("ol").replaceChildren(...tiles);
}
function tileOf(item, there, relevance) {
  const title = Sieve.titleOf(item);
  const marks = { right: "✓ relevant", both: `✗ has ${relevance.b}`, other: `no ${relevance.a}` };
  const where = there ? (there === item.rank ? "same rank" : `rank ${there} there`) : "only here";
  const point = (is) => () => {
    for (const twin of element.querySelectorAll(`[data-id="${item.id}"]`)) twin.classList.toggle("sv-is-twin", is && Boolean(there));
  };
  return el("button", {
    type: "button", "data-id": item.id, class: `${there ? "" : "sv-is-only"} sv-mark-${item.mark || "none"}`, title,
    "aria-label": `${item.rank}, ${there ? `number ${there} in the other list` : "only here"}${item.mark ? `, ${marks[item.mark].replace(/^[✓✗] /, "")}` : ""}: ${title}`,
    onmouseenter: point(true), onmouseleave: point(false), onfocus: point(true), onblur: point(false),
    onclick: () => Sieve.openItem({ id: item.id, captions: item.captions, labels: item.labels }),
  }, Sieve.image(item.id), el("span", { class: "sv-meta" }, el("span", { class: "sv-rank" }, String(item.rank)), el("span", { class: "sv-compare-rank" }, where)),
  item.mark ? el("span", { class: "sv-compare-mark" }, marks[item.mark]) : null);
}

// What the tab opens with.
function follow() {
  if (viewState.tab !== "compare") return;
  if (chosen || !Sieve.hasQuery() || same(state, ofSearch())) return compare();
  use(ofSearch(), { own: false });
}
on("about", ({ can: able, examples }) => {
  can = able;
  find(".sv-pick").hidden = !Sieve.canTake();
  if (!can.text_queries) {
    q.placeholder = "concept:17, or an item ID";
    without.placeholder = "concept:17";
    find(".sv-muted-text").textContent = sentence(can.no_text);
  }
  find(".sv-try-examples").replaceChildren(...(can.text_queries && examples.length ? [el("span", { class: "sv-try-label" }, "Try")] : []),
    ...(can.text_queries ? examples : []).map((example) => el("button", { type: "button", class: "sv-pill", onclick: () => use(example) },
      example.q, example.without && el("span", { class: "sv-minus" }, " without "), example.without)));
});
on("versus", (text) => {
  const now = Sieve.unpack(text);
  if (!Object.keys(now).some((name) => name !== "set" && name !== "other")) return;
  chosen = Boolean(now.q || now.item);
  const { preview: picture = "", ...fields } = chosen ? {
    q: now.item ? "" : now.q, item: now.item ?? "", without: now.without ?? "", off: Sieve.unpackOff(now.off), ...Sieve.unpackStrictness(now.strictness),
  } : ofSearch();
  Object.assign(state, PLAIN, fields, {
    method: now.method ?? USUAL, hyperparameter: now.knob ? Number(now.knob) : null, track: now.track ?? "", a: now.a ?? "", b: now.b ?? "",
  });
  preview = picture;
  write();
  if (options) fillHyperparameter();
  compare();
});
on("tab", follow);
on("filtered", () => { if (viewState.tab === "compare") compare(); });
emit("filter-slot");
follow();
