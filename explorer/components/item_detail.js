const { el, on, emit, number, percent } = Sieve;
const LEAST = 0.1; // smallest share of an activation that is shown
const dialog = element.querySelector("dialog");
const body = element.querySelector(".sv-detail-body");
let shownId = "";
const where = { id: "", found: null, concept: null }; // regions of the shown item

// Regions: where the image shows a concept. The rest of the image is darkened.
async function showRegion(button, concept, name) {
  const isShown = where.concept === concept;
  for (const one of body.querySelectorAll(".sv-where")) one.setAttribute("aria-pressed", String(!isShown && one.dataset.concept === String(concept)));
  where.concept = isShown ? null : concept;
  drawRegion(null);
  if (isShown) return;
  body.querySelector(".sv-detail-picture").scrollIntoView({ block: "nearest" }); // on a narrow screen it is above
  const id = shownId;
  if (where.id !== id) {
    legend().textContent = "Covering one part of the image at a time …";
    const found = await Sieve.call(server.sieve_regions, id);
    if (shownId !== id) return;
    if (found.error) {
      legend().textContent = found.error;
      return;
    }
    Object.assign(where, { id, found: found.concepts });
  }
  if (where.concept !== concept) return;
  const region = where.found.find((one) => one.concept === concept);
  const most = region ? Math.max(...region.cells.flat()) : 0;
  if (most < LEAST) legend().textContent = `No single part of the image shows “${name}”.`;
  else {
    drawRegion(region.cells.map((row) => row.map((cell) => Math.max(cell, 0) / most)));
    legend().replaceChildren(el("i", { class: "sv-where-scale", "aria-hidden": "true" }), `Bright: without this part, “${name}” is up to ${percent(most)} weaker.`);
  }
}
const canvas = () => body.querySelector("canvas");
const legend = () => body.querySelector(".sv-where-legend");
function drawRegion(cells) {
  const drawing = canvas();
  drawing.hidden = !cells;
  legend().replaceChildren();
  if (!cells) return;
  [drawing.width, drawing.height] = [cells[0].length, cells.length];
  const context = drawing.getContext("2d");
  for (const [y, row] of cells.entries()) for (const [x, cell] of row.entries()) {
    context.fillStyle = `rgb(8 10 14 / ${0.78 * (1 - cell)})`;
    context.fillRect(x, y, 1, 1);
  }
}
function whereButton(concept, name) {
  if (!Sieve.about.can.image_queries || !server.sieve_regions) return null;
  const button = el("button", { type: "button", class: "sv-where", "data-concept": String(concept), "aria-pressed": "false", title: `Show where the image has “${name}”`,
    "aria-label": `Show where the image has “${name}”`, onclick: () => showRegion(button, concept, name) }, "where");
  return button;
}

// A click outside the panel closes it.
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

// Terms of the query, each with a colour, and their parts of contributions.
function colourOf(terms, at) {
  const same = terms.filter((term) => term.excluded === terms[at].excluded);
  return `var(--sv-${terms[at].excluded ? "not" : "term"}-${same.indexOf(terms[at]) % 4})`;
}
function sumByTerm(parts, { terms, shares }) {
  const sums = terms.map(() => 0);
  for (const [d, value] of parts) for (const [at, share] of shares[d].entries()) sums[at] += share * value;
  return sums;
}
function stack(track, parts, item, widest) {
  const sums = sumByTerm(parts, item);
  track.classList.add("sv-stack");
  track.replaceChildren(...sums.flatMap((value, at) => {
    if (!value) return [];
    const node = Sieve.bar("", Math.abs(value) / widest);
    node.style.background = colourOf(item.terms, at);
    node.title = `${item.terms[at].label}: ${number(value)}`;
    return [node];
  }));
}
function termLegend(item) {
  const total = sumByTerm(item.parts, item);
  const left = item.parts.reduce((sum, [, value]) => sum + value, 0) - total.reduce((sum, value) => sum + value, 0);
  const rows = item.terms.map((term, at) => {
    const swatch = el("i", {});
    swatch.style.background = colourOf(item.terms, at);
    return el("li", {}, swatch, `${term.excluded ? "without " : ""}${term.label} `, el("b", {}, number(total[at])));
  });
  if (Math.abs(left) > 5e-4) rows.push(el("li", {}, el("i", {}), "switched off ", el("b", {}, number(left))));
  return el("ul", { class: "sv-term-legend", "aria-label": "Score by term" }, ...rows);
}

// Bars of concepts; one with several dimensions opens to theirs.
function bars(sums, names, finds, item = null) {
  const widest = Math.max(...sums.flatMap(({ value, parts }) => [value, ...parts.map(([, part]) => part)]).map(Math.abs), 1e-9);
  const link = (dimension, name, isOff) => {
    const open = (event) => { event.preventDefault(); dialog.close(); Sieve.showDimension(dimension); };
    return Sieve.dimensionLink(dimension, name, { class: isOff ? "sv-off-name" : "", onclick: open });
  };
  const rated = (label, value, isOff, inside, ...more) => {
    const node = Sieve.rated(label, Math.abs(value) / widest, value, value < 0 || isOff ? "sv-bar-b" : "sv-bar-q");
    if (item?.shares && inside.some(([d]) => item.shares[d].some(Boolean))) stack(node.querySelector(".sv-track"), inside, item, widest);
    node.append(...more.filter(Boolean));
    return node;
  };
  return el("ul", { class: "sv-bars" }, ...sums.flatMap(({ concept, value, parts, isOff }) => {
    const find = finds && whereButton(concept, names[concept]);
    if (parts.length === 1) return [rated(link(parts[0][0], names[concept], isOff), value, isOff, parts, find)];
    const inner = parts.map(([d, part]) => {
      const node = rated(link(d, names[d], isOff), part, isOff, [[d, part]]);
      node.classList.add("sv-bars-member");
      node.hidden = true;
      return node;
    });
    const opener = el("button", { type: "button", class: `sv-opener${isOff ? " sv-off-name" : ""}`, "aria-expanded": "false", title: "Show its dimensions", onclick: () => {
      const shown = opener.getAttribute("aria-expanded") === "false";
      opener.setAttribute("aria-expanded", String(shown));
      for (const node of inner) node.hidden = !shown;
    } }, Sieve.nameNode(names[concept]), el("span", { class: "sv-number" }, String(parts.length)));
    return [rated(opener, value, isOff, parts, find), ...inner];
  }));
}

function longList(sums, names, shown = 10, finds = false, item = null) {
  const box = el("div", {}, bars(sums.slice(0, shown), names, finds, item));
  if (sums.length > shown + 1) {
    box.append(el("button", { type: "button", class: "sv-more", onclick: () => box.replaceChildren(bars(sums, names, finds, item)) }, `Show all ${sums.length}`));
  }
  return box;
}

function scoreOf(item) {
  if (!item.parts) return null;
  const sums = Sieve.sumByConcept(item.parts, item.concept_of, new Set(item.off));
  sums.sort((a, b) => b.isOff - a.isOff || Math.abs(b.value) - Math.abs(a.value));
  const lead = item.rank ? `Why it ranks number ${item.rank}` : `Why it dropped out: it was number ${item.before}`;
  const visible = sums.filter(({ value }) => Math.abs(value) >= 0.0005).length; // the others are shown as 0.000
  return el("section", {}, el("h3", {}, lead, el("span", { class: "sv-sum" }, `score ${number(item.score)}`)), item.shares && termLegend(item), longList(sums, item.names, Math.min(12, Math.max(3, visible)), false, item));
}
function codeOf(code, off) {
  const names = Object.fromEntries(code.flatMap((part) => [[part.dimension, part.name], [part.concept, part.concept_name]]));
  const conceptOf = Object.fromEntries(code.map((part) => [part.dimension, part.concept]));
  return longList(Sieve.sumByConcept(code.map((part) => [part.dimension, part.value]), conceptOf, new Set(off)), names, 8, true);
}

// Explain the rank of a result compared with the next one.
function explain(item) {
  dialog.close();
  emit("why", { ...(item.query ?? Sieve.query()), a: item.id, b: item.next ?? "" });
  Sieve.showTab("inspect", { push: true });
}
function inspect(id) {
  dialog.close();
  emit("inspect-item", id);
  Sieve.showTab("inspect", { push: true });
}

function copyText(text, about) {
  const button = el("button", { type: "button", class: "sv-copy", title: about, onclick: async () => {
    await navigator.clipboard?.writeText(text).catch(() => {});
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = text; }, 1200);
  } }, text);
  return button;
}
// Other items with the same picture; results show only one of them.
function copiesOf({ copies }) {
  if (!copies?.length) return null;
  return el("section", {}, el("h3", {}, `The same picture · ${copies.length}`),
    el("ul", { class: "sv-copies-list" }, ...copies.map((copy) => el("li", {}, el("button", {
      type: "button", class: "sv-example", title: copy.file, onclick: () => Sieve.openItem(copy),
    }, Sieve.image(copy.id), el("span", { class: "sv-text" }, copy.file))))));
}

async function show(item) {
  shownId = item.id;
  where.concept = null;
  const code = el("section", {}, el("h3", {}, "Active concepts"), el("p", { class: "sv-hint" }, "…"));
  const labels = item.labels ?? [];
  const file = el("p", { class: "sv-id" }, ...(item.file ? ["file ", copyText(item.file, "Copy the file name")] : []));
  const copies = el("div", {});
  body.replaceChildren(
    el("div", { class: "sv-detail-side" },
      el("div", { class: "sv-detail-picture" }, Sieve.image(item.id, item.captions[0] ?? ""), el("canvas", { hidden: true, "aria-hidden": "true" })),
      el("p", { class: "sv-hint sv-where-legend", "aria-live": "polite" }),
      el("button", { type: "button", class: "sv-primary", onclick: () => { dialog.close(); Sieve.search({ item: item.id }); } }, "More like this"),
      el("div", { class: "sv-detail-actions" },
        ...(Sieve.terms.length ? [["Add", "Also search by this image", false], ["Exclude", "Exclude what this image shows", true]] : []).map(([words, title, excluded]) =>
          el("button", { type: "button", class: "sv-plain", title, onclick: () => { dialog.close(); Sieve.addTerm(`item:${item.id}`, excluded); } }, words)),
        el("button", { type: "button", class: "sv-plain", title: "Show its dimensions, and compare it with a text or another image", onclick: () => inspect(item.id) }, "Inspect"),
        item.parts && el("button", { type: "button", class: "sv-plain", title: "Explain its rank compared with the next result", onclick: () => explain(item) }, "Why this rank?")),
      file, el("p", { class: "sv-id" }, "ID ", copyText(item.id, "Copy the ID"))),
    el("div", { class: "sv-detail-main" },
      el("h2", { id: "sv-detail-title" }, item.captions[0] || "Image without captions"),
      el("ul", { class: "sv-captions" }, ...item.captions.slice(1).map((text) => el("li", {}, text))),
      labels.length ? el("p", { class: "sv-labels" }, ...labels.map((label) => el("span", { class: "sv-chip" }, label))) : null,
      scoreOf(item), code, copies));
  if (!dialog.open) dialog.showModal();
  body.scrollTop = 0;
  const found = await Sieve.call(Sieve.server.sieve_item, item.id);
  if (shownId !== item.id) return;
  if (found.file) file.replaceChildren("file ", copyText(found.file, "Copy the file name"));
  copies.replaceChildren(...[copiesOf(found)].filter(Boolean));
  code.replaceChildren(el("h3", {}, "Active concepts"),
    found.error ? el("p", { class: "sv-fault" }, found.error) : codeOf(found.code, item.off ?? []));
}
on("detail", show);
