// Rows of concepts, each with one checkbox for its dimensions, which open below it.
Object.assign(window.Sieve, (() => {
  const { el, bar, nameNode, dimensionLink } = Sieve;

  // The concepts of a list, each with its dimensions and the sums of their activations.
  function conceptsOf({ dimensions, concepts }) {
    const sum = (members, part) => members.reduce((total, one) => total + one[part], 0);
    return concepts.map((concept) => {
      const members = dimensions.filter((one) => one.concept === concept.d);
      return { ...concept, members, q: sum(members, "q"), b: sum(members, "b") };
    });
  }

  // A list of concepts that can be switched: `changed` is called with each concept that the user switches.
  function conceptSwitches(changed) {
    let boxes = new Map(); // the checkbox of each dimension
    let rows = [];
    const isOff = (d) => !boxes.get(d).checked;
    function show(row) {
      const off = row.members.filter(isOff).length;
      row.box.checked = off === 0;
      row.box.indeterminate = off > 0 && off < row.members.length;
      row.node.classList.toggle("sv-is-off", off === row.members.length);
      for (const [d, node] of row.parts) node.classList.toggle("sv-is-off", isOff(d));
    }
    function makeRow(concept, off, options) {
      const members = concept.members.map((one) => one.d);
      const row = { members, parts: new Map() };
      const switched = () => { show(row); changed(concept); };
      for (const d of members) {
        const box = el("input", { type: "checkbox", onchange: switched });
        box.checked = !off.has(d);
        boxes.set(d, box);
      }
      if (members.length === 1) {
        row.box = boxes.get(members[0]);
        row.node = conceptRow(concept, { ...options, box: row.box });
      } else {
        row.box = el("input", { type: "checkbox", onchange: () => {
          for (const d of members) boxes.get(d).checked = row.box.checked;
          switched();
        } });
        const member = (one) => el("li", { class: "sv-member" },
          el("label", { class: "sv-dim-name" }, boxes.get(one.d), el("span", { class: "sv-name" }, nameNode(one.label))),
          el("span", { class: "sv-value" }, options.amount(one)), linkOf(one));
        row.node = conceptRow(concept, { ...options, box: row.box, member });
        for (const [at, d] of members.entries()) row.parts.set(d, row.node.querySelectorAll(".sv-member")[at]);
      }
      row.set = (value) => { for (const d of members) boxes.get(d).checked = value(d); show(row); };
      show(row);
      rows.push(row);
      return row.node;
    }
    return {
      // Make the rows of concepts; `options` returns those of each row: see `conceptRow`.
      fill(concepts, off, options) {
        boxes = new Map();
        rows = [];
        const isInitiallyOff = new Set(off);
        return concepts.map((concept) => makeRow(concept, isInitiallyOff, options(concept)));
      },
      clear() { boxes = new Map(); rows = []; },
      setAll(isOn) { for (const row of rows) row.set(isOn); },
      get off() { return [...boxes.keys()].filter(isOff); },
    };
  }

  const linkOf = ({ d, label }) => dimensionLink(d, `#${d} ›`, { class: "sv-open", "aria-label": `Page of dimension ${d}, ${label}` });

  // A concept with its top images and caption. `bars` are kinds and shares of the largest activation, `value`
  // is their text, and `member` makes the row of one of several dimensions, which a button shows.
  function conceptRow(concept, { box = null, bars, value, source = "", from = {}, activation = {}, member = null, amount, ...listeners }) {
    const several = member !== null && concept.members.length > 1;
    const name = el("span", { class: "sv-name" }, nameNode(concept.name));
    const below = several && el("ul", { class: "sv-members", "aria-label": `Dimensions of ${concept.name}`, hidden: true }, ...concept.members.map(member));
    const opener = several && el("button", { type: "button", class: "sv-open sv-opener", "aria-expanded": "false",
      "aria-label": `${concept.members.length} dimensions of ${concept.name}`, title: "Show its dimensions", onclick: () => {
        below.hidden = !below.hidden;
        opener.setAttribute("aria-expanded", String(!below.hidden));
      } }, `${concept.members.length}`);
    return el("li", { class: "sv-dim", "data-d": concept.members.length > 1 ? concept.d : concept.members[0].d,
      "data-dimensions": concept.members.map((one) => one.d).join(" "), ...listeners },
      el(box ? "label" : "span", { class: "sv-dim-name" }, box, name),
      el("span", { class: "sv-source", ...from }, source),
      several ? opener : linkOf(concept.members[0]),
      el("span", { class: "sv-activation", ...activation }, ...bars.map(([kind, share]) => bar(`sv-bar-${kind}`, share))),
      el("span", { class: "sv-value" }, value),
      el("span", { class: "sv-thumbs" }, ...concept.items.map((id) => Sieve.image(id))),
      el("span", { class: "sv-caption", title: concept.caption }, concept.caption || "no caption activates it"),
      below);
  }

  // Contributions of one result summed by concept, the largest first: `parts` are pairs of a dimension and a value.
  function sumByConcept(parts, conceptOf, off) {
    const sums = new Map();
    for (const [d, value] of parts) {
      const concept = conceptOf[d] ?? d;
      if (!sums.has(concept)) sums.set(concept, { concept, value: 0, parts: [] });
      const one = sums.get(concept);
      one.value += value;
      one.parts.push([d, value]);
    }
    const found = [...sums.values()].map((one) => ({ ...one, isOff: one.parts.every(([d]) => off.has(d)), anyOff: one.parts.some(([d]) => off.has(d)) }));
    return found.sort((a, b) => b.value - a.value);
  }

  return { conceptsOf, conceptSwitches, conceptRow, sumByConcept };
})());
