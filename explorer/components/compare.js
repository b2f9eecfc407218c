const { el, on, emit, place, number, percent, count, sentence } = Sieve;
const find = (selector) => element.querySelector(selector);
const [asks, sets] = element.querySelectorAll("form");
const { q, without } = asks.elements;
const { method, knob, track, a, b } = sets.elements;
const by = find(".sv-by");
const [fault, told, fromSearch] = [".sv-fault", ".sv-versus-told", ".sv-from-search"].map(find);
const MEASURED = 10;
const USUAL = "subtraction";
const ITEM_ID = /^[0-9a-f]{16}$/;
const PLAIN = { q: "", item: "", upload: "", without: "", off: null, strictness: 1, never: false };
const TRACKS = { label: "labels", caption: "captions" };
let options = null;
let state = { ...PLAIN, method: "", knob: null, track: "", a: "", b: "" };
let preview = ""; // of an image of the person's
let chosen = false; // whether a person chose the query; else it follows the search

const ask = Sieve.latest(server.sieve_compare, show);
async function compare() {
  fault.textContent = "";
  if (!(await ready())) return;
  if (place.tab === "compare") keep();
  offer();
  const nothing = !isAsked(state) || !state.method;
  find(".sv-versus-empty").hidden = !nothing;
  find(".sv-try").hidden = isAsked(state);
  find(".sv-mute").textContent = !can.text_queries ? sentence(can.no_text) : state.upload ? "An image of yours is in no link: the address leaves it out." : "";
  sets.hidden = nothing;
  if (nothing) {
    find(".sv-versus-columns").hidden = true;
    told.textContent = "";
    return;
  }
  const opening = state.method.startsWith("checkpoint ");
  if (opening) told.textContent = `Opening ${state.method} … The first time the codes of the whole collection are made with it, which takes a moment.`;
  element.setAttribute("aria-busy", "true");
  ask(state);
}
function keep() {
  const { q: query, item, upload: key, without: not, off, strictness, never, ...rest } = state;
  const asked = chosen && !key ? { q: query, item, without: not, off: Sieve.packOff(off), strictness: Sieve.packStrictness({ strictness, never }) } : {};
  Sieve.setTabText("compare", Sieve.pack({ ...asked, ...rest, method: rest.method === USUAL ? "" : rest.method }));
}

// What there is to compare with, asked once.
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
    if (state.method) fault.textContent = `There is no ${state.method} to compare with here.`;
    state.method = values.find((value) => value === USUAL) ?? values[0] ?? "";
  }
  if (!values.length) {
    for (const part of [asks, find(".sv-said")]) part.hidden = true;
    find(".sv-versus-empty").textContent = "There is nothing to compare with: these codes were made elsewhere, so there is no backbone, and no other checkpoint reads them.";
  }
  track.replaceChildren(...answer.tracks.map((name) => option(name, TRACKS[name])));
  find(".sv-versus-truth").hidden = !answer.tracks.length;
  fillKnob();
}
function fillKnob() {
  method.value = state.method;
  const about = options.methods.find(({ name }) => name === state.method);
  const label = find(".sv-versus-knob");
  label.hidden = !about?.knob;
  if (label.hidden) return;
  label.querySelector("span").textContent = about.knob;
  Object.assign(knob, { min: about.low, max: about.high, value: state.knob ?? about.value, title: `From ${about.low} to ${about.high}` });
}

// The question.
const isAsked = (one) => Boolean(one.q || one.item || one.upload);
let can = {};
let searched = ""; // what shows the image that is searched by
on("question", (now) => { searched = now.preview; });
const ofSearch = () => {
  const { q: query, item, upload: key, without: not, off, strictness, never } = place;
  return { q: query, item, upload: key, without: not, off, strictness, never, preview: searched };
};
const same = (one, other) => Object.keys(PLAIN).every((name) => String(one[name]) === String(other[name]));
function offer() {
  fromSearch.hidden = !Sieve.asked() || same(state, ofSearch());
}
function use({ preview: picture = "", ...asked }, { own = true } = {}) {
  chosen = own;
  preview = picture;
  Object.assign(state, PLAIN, asked, { a: "", b: "", track: "" });
  write();
  compare();
}
function write(like = null) {
  const pictured = Boolean(state.item || state.upload);
  by.hidden = !pictured;
  q.hidden = pictured;
  if (pictured) {
    by.querySelector("img").src = preview || Sieve.thumbnail(state.item);
    by.querySelector("span").textContent = state.upload ? "your image" : `like: ${like?.captions[0] ?? state.item}`;
  }
  [q.value, without.value] = [state.q, state.without];
}
by.querySelector("button").addEventListener("click", () => {
  by.hidden = true;
  q.hidden = false;
  q.value = "";
  q.focus();
});
Sieve.acceptImages(asks, upload, {
  busy: (is) => (is ? element.setAttribute("aria-busy", "true") : element.removeAttribute("aria-busy")),
  fault: (line) => { fault.textContent = line; },
  take: (found) => use({ ...PLAIN, upload: found.key, preview: found.preview, without: without.value.trim() }),
});
function words() {
  const text = q.value.trim();
  if (!by.hidden) return { q: "", item: state.item, upload: state.upload };
  return ITEM_ID.test(text) ? { q: "", item: text, upload: "" } : { q: text, item: "", upload: "" };
}
asks.addEventListener("submit", (event) => {
  event.preventDefault();
  const now = { ...words(), without: without.value.trim() };
  if (!isAsked(now) && now.without) {
    show({ error: Sieve.ONLY_EXCLUDES });
    q.focus();
    return;
  }
  if (same({ ...state, ...now }, state)) compare();
  else use({ ...now, preview: now.upload && preview, strictness: state.strictness, never: state.never });
});
fromSearch.addEventListener("click", () => use(ofSearch(), { own: false }));
sets.addEventListener("submit", (event) => event.preventDefault());
sets.addEventListener("change", ({ target }) => {
  if (target === method) Object.assign(state, { method: method.value, knob: null });
  if (target === knob) state.knob = knob.value === "" ? null : Number(knob.value);
  if (target === track) Object.assign(state, { track: track.value, a: "", b: "" });
  if (target === a || target === b) Object.assign(state, { track: track.value, a: a.value, b: b.value });
  fillKnob();
  compare();
});

// The answer.
function show(answer) {
  element.removeAttribute("aria-busy");
  fault.textContent = answer.error ?? "";
  if (answer.error) {
    told.textContent = "";
    find(".sv-notes").replaceChildren();
    find(".sv-versus-columns").hidden = true;
    return;
  }
  Object.assign(state, { q: answer.q, without: answer.without });
  write(answer.like[0]);
  offer();
  find(".sv-notes").replaceChildren(...answer.notes.map((line) => el("li", {}, line)));
  fillTruth(answer.truth);
  told.textContent = `${rightness(answer)} ${answer.both} of the first ${answer.columns[0].results.length} stand in both.`;
  const [left, right] = answer.columns;
  find(".sv-versus-columns").hidden = false;
  element.querySelectorAll(".sv-versus-columns > section").forEach((section, at) => fillColumn(section, [left, right][at], [right, left][at], answer.truth));
}
function fillTruth({ track: now, a: first, b: second, names }) {
  track.value = now;
  for (const [select, value] of [[a, first], [b, second]]) {
    select.replaceChildren(option("", "choose …"), ...names.map((name) => option(name)));
    select.value = value;
  }
}
function flattered(columns) {
  const told = columns.filter(({ trained }) => trained > 0).map(({ title, trained }) => `${title.split(" · ")[1]} was trained on ${percent(trained)} of the items`);
  return told.length ? ` ${told.join(", ")}: that flatters; “sieve evaluate” leaves such items out.` : "";
}
function rightness({ truth, without: not, columns }) {
  if (!truth.track) return "This collection has no labels and no captions: nothing tells what is right.";
  if (truth.relevant === undefined && !truth.a && !state.q) return "Choose above what counts as right: an image alone does not say it.";
  if (truth.relevant === undefined) return `Choose above what counts as right: no ${truth.track === "label" ? "label" : "noun of the benchmark"} is called ${not && truth.a ? `“${not}”` : "like the query"}.`;
  const said = truth.b ? `has ${truth.a}, not ${truth.b}` : `has ${truth.a}`;
  return `Right: ${said}, by ${TRACKS[truth.track]}: ${count(truth.relevant, "image")}${truth.b ? `; ${count(truth.violating, "image")} ${truth.violating === 1 ? "has" : "have"} both` : ""}.${flattered(columns)}`;
}
function fillColumn(section, column, other, truth) {
  section.querySelector("h2").textContent = column.title;
  section.querySelector(".sv-versus-how").textContent = column.how;
  const rows = [["AP@10", "ap", 1, "Mean precision at the places of right results, among the first ten"], ["P@10", "precision", 1, "Share of the first ten that is right"], ["violation@10", "violation", -1, "Share of the first ten that has both"]];
  section.querySelector("dl").replaceChildren(...rows.map(([name, key, sign, title]) => {
    const [here, there] = [column.measures?.[key], other.measures?.[key]];
    const better = sign * (here - there) > 1e-9;
    return el("div", { title, class: better ? "sv-better" : "" }, el("dt", {}, name), el("dd", {}, here === undefined ? "–" : number(here)));
  }));
  const ranks = new Map(other.results.map((item) => [item.id, item.rank]));
  const tiles = column.results.map((item) => el("li", {}, tileOf(item, ranks.get(item.id), truth)));
  if (tiles.length > MEASURED && column.measures) tiles.splice(MEASURED, 0, el("li", { class: "sv-versus-line" }, "below the top 10 (not scored)"));
  section.querySelector("ol").replaceChildren(...tiles);
}
function tileOf(item, there, truth) {
  const title = Sieve.titleOf(item);
  const marks = { right: "✓ right", both: `✗ has ${truth.b}`, other: `no ${truth.a}` };
  const where = there ? (there === item.rank ? "= both" : `rank ${there} there`) : "only here";
  const point = (is) => () => {
    for (const twin of element.querySelectorAll(`[data-id="${item.id}"]`)) twin.classList.toggle("sv-is-twin", is && Boolean(there));
  };
  return el("button", {
    type: "button", "data-id": item.id, class: `${there ? "" : "sv-is-only"} sv-mark-${item.mark || "none"}`, title,
    "aria-label": `${item.rank}, ${there ? `number ${there} in the other` : "only here"}${item.mark ? `, ${marks[item.mark].replace(/^[✓✗] /, "")}` : ""}: ${title}`,
    onmouseenter: point(true), onmouseleave: point(false), onfocus: point(true), onblur: point(false),
    onclick: () => emit("detail", { id: item.id, captions: item.captions, labels: item.labels }, { keep: false }),
  }, Sieve.image(item.id), el("span", { class: "sv-meta" }, el("span", { class: "sv-rank" }, String(item.rank)), el("span", { class: "sv-versus-where" }, where)),
  item.mark ? el("span", { class: "sv-versus-mark" }, marks[item.mark]) : null);
}

// What the tab opens with.
function follow() {
  if (place.tab !== "compare") return;
  if (chosen || !Sieve.asked() || same(state, ofSearch())) return compare();
  use(ofSearch(), { own: false });
}
on("about", ({ can: able, examples }) => {
  can = able;
  find(".sv-pick").hidden = !Sieve.canTake();
  if (!can.text_queries) {
    for (const field of [q, without]) field.disabled = true;
    find(".sv-go").disabled = true;
    find(".sv-mute").textContent = sentence(can.no_text);
  }
  find(".sv-try").replaceChildren(...(can.text_queries && examples.length ? [el("span", { class: "sv-try-word" }, "Try")] : []),
    ...(can.text_queries ? examples : []).map((example) => el("button", { type: "button", class: "sv-pill", onclick: () => use(example) },
      example.q, example.without && el("span", { class: "sv-minus" }, " without "), example.without)));
});
on("versus", (text) => {
  const now = Sieve.unpack(text);
  if (!Object.keys(now).length) return;
  chosen = Boolean(now.q || now.item);
  const { preview: picture = "", ...asked } = chosen ? {
    q: now.item ? "" : now.q, item: now.item ?? "", without: now.without ?? "", off: Sieve.unpackOff(now.off), ...Sieve.unpackStrictness(now.strictness),
  } : ofSearch();
  Object.assign(state, PLAIN, asked, {
    method: now.method ?? USUAL, knob: now.knob ? Number(now.knob) : null, track: now.track ?? "", a: now.a ?? "", b: now.b ?? "",
  });
  preview = picture;
  write();
  if (options) fillKnob();
  compare();
});
on("tab", follow);
follow();
