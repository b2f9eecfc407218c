const { el, emit, capital, sentence, whole } = Sieve;
const find = (selector) => element.querySelector(selector);
const section = find(".sv-train");
const form = find("form");
const { collection, preset, m, k } = form.elements;
const start = find("form .sv-primary");
const status = find(".sv-train-state");
const fault = find(".sv-fault");
const RUNNING = ["starting", "training", "measuring"];
const TERMS = {
  contrast: "image–text contrast", reconstruct: "reconstruction", cross: "cross-modal reconstruction", presence: "word presence",
  narrow: "one dimension per word", assign: "assigned dimensions", concentrate: "concentrated words", exclude: "exclusion", balance: "modality balance", revive: "dead dimensions",
};
const LABELS = { k_text: "Max. active (text)" };
const SHARES = { live: "Live dimensions" };
const VALIDATION = { recall: "Recall@10", exclusion: "Exclusion AP@10" };
const CLOSE = "You can close this page. Training continues while “sieve explore” is running.";
let now = null;

// The template has the main options; the others are created from the schemas of the server.
const { options, maximum, presets } = Sieve.SETTINGS.training;
for (const [name, { type, description, enum: choices }] of Object.entries(options)) {
  if (!form.elements[name]) {
    const input = choices ? el("select", { name }, ...choices.map((choice) => el("option", { value: choice }, choice)))
      : type === "boolean" ? el("input", { type: "checkbox", name })
      : el("input", { type: "number", name, min: 0, step: type === "integer" ? 1 : "any", required: true });
    const group = presets.compact.losses.includes(name) ? "losses" : "others";
    find(`[data-options=${group}] .sv-form-fields`).append(el("label", {}, el("span", {}, LABELS[name] ?? capital(name.replaceAll("_", " "))), input));
  }
  form.elements[name].closest("label").title = description;
  form.elements[name].setAttribute("aria-description", description);
  if (form.elements[name].type === "number") form.elements[name].max = maximum;
}
function valueOf(input) {
  if (input.type === "checkbox") return input.checked;
  return input.type === "number" ? Number(input.value) : input.value;
}
const settings = () => Object.fromEntries([...form.elements].filter(({ name, disabled }) => name && !disabled).map((input) => [input.name, valueOf(input)]));
function fill(values) {
  for (const name of Object.keys(options)) {
    const input = form.elements[name];
    if (input.type === "checkbox") input.checked = values[name];
    else input.value = name === "epochs" ? values.epochs || "" : values[name];
  }
  // Show only the losses of the preset's objective.
  for (const input of element.querySelectorAll("[data-options=losses] input")) {
    input.disabled = !presets[preset.value].losses.includes(input.name);
    input.closest("label").hidden = input.disabled;
  }
  limit();
}
// Open the section if the browser finds an invalid value in it.
form.addEventListener("invalid", ({ target }) => { target.closest("details")?.setAttribute("open", ""); }, true);
const limit = () => { k.max = form.elements.k_text.max = m.value || maximum; };
preset.addEventListener("change", () => fill(presets[preset.value]));
m.addEventListener("input", limit);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  act("start", settings());
});
element.addEventListener("click", ({ target }) => {
  const what = target.dataset?.do;
  if (what === "discard" && !confirm("Discard this training and all its progress?")) return;
  if (what && !(what === "stop" && now.stopping)) act(what, null);
});

// One request at a time; user actions take precedence over polling.
let acting = false;
let refused = ""; // error of the last action, shown until the next action or change of state
async function act(what, payload) {
  if (acting) return;
  acting = true;
  section.setAttribute("aria-busy", "true");
  const answer = await Sieve.call(server[`sieve_training_${what}`], payload);
  refused = answer.error ?? "";
  show(answer);
  acting = false;
  section.removeAttribute("aria-busy");
}
async function poll() {
  if (!acting && !document.hidden && section.isConnected) {
    const answer = await Sieve.call(server.sieve_training_state, null);
    if (!acting) show(answer);
  }
  const shown = section.offsetParent !== null;
  if (section.isConnected) setTimeout(poll, now && !RUNNING.includes(now.state) && !now.opening ? 4000 : shown ? 1000 : 4000);
}

function show(answer) {
  if (now?.opening && answer.error) return; // the server is restarting
  if (!answer.error && answer.state !== now?.state) refused = "";
  write(fault, answer.error ?? (refused || sentence(answer.unopened || answer.fault || "")));
  if (answer.error) return;
  if (now?.offer && !answer.offer) return location.assign(location.pathname); // the checkpoint has been opened
  const first = now === null;
  now = answer;
  const hadFocus = section.contains(document.activeElement) && document.activeElement.matches(".sv-primary, [data-do]") && document.activeElement;
  if (first) showIntro();
  allow();
  write(status, heading());
  find(".sv-train-detail").replaceChildren(...detail());
  for (const button of element.querySelectorAll("[data-do]")) button.hidden = !offered(button.dataset.do);
  // The pressed button may be hidden now: move the focus to the next available one.
  if (hadFocus && !canPress(hadFocus)) [...element.querySelectorAll("[data-do]"), start].find(canPress)?.focus();
  find(".sv-train-body").hidden = !now.n_steps;
  if (now.n_steps) measure();
  if (now.opening) follow();
}
const canPress = (button) => !button.hidden && !button.disabled;
function allow() {
  const { refusal } = chosen();
  start.disabled = Boolean(refusal || now.elsewhere) || now.opening || RUNNING.includes(now.state);
  find(".sv-train-note").textContent = refusal ? sentence(refusal)
    : now.elsewhere ? `${capital(now.elsewhere)} is running. One job runs at a time; start this one when it is done.` : "";
}

// Available collections; the first is the open one, which is selected by default.
let collections = [];
const chosen = () => collections.find(({ word }) => word === collection.value) ?? { refusal: now.refusal, fits: true };
async function list() {
  const answer = await Sieve.call(server.sieve_training_collections, null);
  if (answer.error) { fault.textContent = answer.error; return; }
  const before = collection.value || (RUNNING.includes(now.state) ? now.of : "");
  collections = answer.collections;
  const titleOf = ({ name, backbone, fits }) => (fits || !backbone ? name : `${name} (${backbone})`);
  collection.replaceChildren(...collections.map((one) => el("option", { value: one.word }, titleOf(one))));
  collection.value = collections.some(({ word }) => word === before) ? before : collections[0].word;
  collection.disabled = false;
  explain();
}
function explain() {
  const { name, captions, backbone, fits, refusal } = chosen();
  if (now.offer && collection.value === collections[0].word) return describeOffer();
  const learns = `Training uses ${captions ? `the ${whole(captions)} captions of ${name}` : `the captions of ${name}, which is prepared first`}. It runs in the background; you can keep searching.`;
  const then = fits ? "" : ` The checkpoint will use ${backbone}, not the backbone that is open here. The command that opens it is shown when training is done.`;
  find(".sv-train-intro").textContent = refusal ? "" : `${learns}${then}`;
  allow();
}
collection.addEventListener("change", explain);
function describeOffer() {
  find(".sv-train-intro").textContent = `There is no checkpoint for ${now.about.backbone || "this collection"} yet. Train one on the ${whole(now.about.captions)} captions of ${now.about.collection}; this page then opens the explorer.`;
  allow();
}
function showIntro() {
  section.removeAttribute("aria-busy");
  if (now.offer) emit("about", now.about);
  find("form h2").textContent = now.offer ? "Train a checkpoint" : "Train a new checkpoint";
  list();
  preset.value = now.settings?.preset ?? "compact";
  fill(now.settings ?? presets.compact);
  for (const group of element.querySelectorAll("[data-options]")) {
    group.open = [...group.querySelectorAll("input:enabled, select")].some((input) => valueOf(input) !== presets[preset.value][input.name]);
  }
}
// Screen readers announce changes, so write only if the text differs.
function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
function heading() {
  if (now.opening) return "Opening the explorer …";
  if (now.stopping) return "Stopping …";
  const tenths = Math.floor((now.step / now.n_steps) * 10) * 10;
  return {
    none: "No training yet",
    starting: "Loading the backbone …",
    training: `Training, ${tenths}% done`,
    measuring: "Measuring and naming the dimensions …",
    stopped: "Stopped",
    failed: "Training failed",
    done: "Trained",
  }[now.state];
}
function detail() {
  const { state } = now;
  if (state === "none") return [now.refusal ? "" : `Press Start to begin. ${CLOSE}`];
  if (state === "training") return [CLOSE];
  if (now.stopping) return [now.step ? "The current step is finished and saved first." : CLOSE];
  if (state === "starting") return ["Loading the backbone and embedding the words of the captions."];
  if (state === "measuring") return ["All steps are done. This may take a minute."];
  if (state === "stopped") return [now.step ? `Progress is saved. Resume continues at step ${whole(now.step)}.` : "Training had not started."];
  if (state === "failed") return ["Resume continues from the last saved step. Or change the settings and start again."];
  if (state !== "done") return [];
  if (now.open) return [`${now.checkpoint} is saved, and open in all tabs.`];
  if (!now.fits) return [`Saved as ${now.checkpoint}. It uses another backbone than the one that is open here. To open it, run: `, el("code", {}, now.command)];
  return [`Saved as ${now.checkpoint}. To open it from the command line, run: `, el("code", {}, now.command)];
}
function offered(what) {
  if (now.opening) return false;
  if (what === "stop") return RUNNING.includes(now.state);
  if (what === "open") return now.state === "done" && now.fits && !now.open;
  return ["stopped", "failed"].includes(now.state) && !(what === "resume" && now.elsewhere);
}

function measure() {
  find("progress").value = now.step / now.n_steps;
  const facts = collections.length && now.of !== collections[0].word ? { Collection: now.of } : {};
  facts.Step = `${whole(now.step)} of ${whole(now.n_steps)}`;
  if (now.state === "training") facts["Time left"] = now.seconds_left === null ? "…" : duration(now.seconds_left);
  define(find(".sv-facts"), facts);
  const terms = Object.entries(now.losses).filter(([name]) => name !== "total");
  find(".sv-parts").hidden = !terms.length;
  find(".sv-train-validation").textContent = unvalidated();
  define(find(".sv-terms"), Object.fromEntries(terms.map(([name, value]) => [TERMS[name] ?? name, value.toFixed(3)])));
  for (const target of element.querySelectorAll("[data-curve]")) {
    const { curve } = target.dataset;
    target.closest("figure").hidden = curve in VALIDATION && !isExpected(curve);
    draw(target, curve);
  }
}
function unvalidated() {
  if (now.probe) return `Recall and exclusion cannot be measured: ${now.probe}.`;
  const measured = now.points.filter((point) => "recall" in point);
  return measured.length && !measured.some((point) => "exclusion" in point) ? "Exclusion cannot be measured: the validation items provide too few pairs." : "";
}
// Reserve the space of a validation curve until it is known that there is nothing to measure.
function isExpected(curve) {
  if (now.probe) return false;
  const measured = now.points.filter((point) => "recall" in point);
  return measured.length ? measured.some((point) => curve in point) : RUNNING.includes(now.state);
}
function define(list, facts) {
  list.replaceChildren(...Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}
function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// A line chart as SVG that fills its box.
const NS = "http://www.w3.org/2000/svg";
function svg(tag, attributes, ...children) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
// Round up to 1, 2, 5 or 10 times a power of ten, so that the axis does not change with every value.
function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((times) => times * power >= value * 0.9999);
}
function draw(target, name) {
  const width = target.clientWidth, height = 160, left = 44, bottom = 20;
  const points = now.points.map((point) => [point.step, point[name]]).filter(([, value]) => Number.isFinite(value));
  const values = points.map(([, value]) => value);
  const high = name in SHARES || !values.length ? 1 : roundedUp(Math.max(...values, 1e-6));
  const low = name in SHARES ? 0 : -roundedUp(Math.max(...values.map((value) => -value), 0));
  const label = (value) => (name in SHARES ? `${Math.round(value * 100)}%` : name in VALIDATION ? Sieve.number(value) : value.toFixed(high - low < 10 ? 1 : 0));
  const last = values.length ? (name in SHARES || name in VALIDATION ? label(values.at(-1)) : values.at(-1).toFixed(2)) : "";
  target.closest("figure").querySelector("b").textContent = last;
  if (!width) return target.replaceChildren();
  const x = (step) => left + (step / now.n_steps) * (width - left - 4);
  const y = (value) => 4 + (1 - (value - low) / (high - low)) * (height - bottom - 8);
  const lines = [low, (low + high) / 2, high].flatMap((value) => [
    svg("line", { x1: left, x2: width, y1: y(value), y2: y(value) }),
    values.length ? svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, label(value)) : "",
  ]);
  const steps = [
    svg("text", { x: left, y: height - 2 }, "0"),
    svg("text", { x: width, y: height - 2, "text-anchor": "end" }, `${whole(now.n_steps)} steps`),
  ];
  const drawn = values.length > 1 ? [svg("polyline", { points: points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ") })]
    : points.map(([step, value]) => svg("circle", { cx: x(step), cy: y(value), r: 2.5 }));
  const about = values.length ? `${label(values[0])} at the start, ${last} now` : "not measured yet";
  target.replaceChildren(svg("svg", { role: "img", "aria-label": `${SHARES[name] ?? VALIDATION[name] ?? "Loss"}: ${about}` }, ...lines, ...drawn, ...steps));
}
addEventListener("resize", () => { if (now?.n_steps) measure(); });

// The server restarts with the checkpoint at the same address; reload once it is available.
let following = false;
async function follow() {
  if (following) return;
  following = true;
  while (section.isConnected) {
    await new Promise((done) => setTimeout(done, 700));
    if (await Sieve.outdated()) return location.assign(location.pathname);
    if (now.unopened) break;
  }
  following = false;
}
poll();
