// How good the open checkpoint is. The server computes most measures in the background when the panel
// is first opened; until then they are shown as placeholders.
const { el, on } = Sieve;
const { dialog, hint, list, status } = Sieve.parts(element, {
  dialog: "dialog", hint: ".sv-hint", list: "dl", status: ".sv-checkpoint-status",
});
const POLL = 2000;
const PENDING = 6; // placeholders for measures that are still computed
let waiting = 0;

const VERDICTS = { true: ["sv-good", "✓", "reaches the target"], false: ["sv-short", "!", "below the target"] };
function row({ name, value, good, meaning }) {
  const [kind, sign, words] = VERDICTS[good] ?? ["", "", ""];
  return el("div", {},
    el("dt", {}, name),
    el("dd", { class: "sv-checkpoint-value" }, value, sign && el("span", { class: kind, role: "img", "aria-label": words, title: words }, sign)),
    el("dd", {}, meaning));
}
const placeholder = () => el("div", { class: "sv-pending", "aria-hidden": "true" }, el("dt", {}, el("i", {})), el("dd", { class: "sv-checkpoint-value" }, el("i", {})), el("dd", {}, el("i", {})));

async function load() {
  clearTimeout(waiting);
  const answer = await Sieve.call(server.sieve_checkpoint_report, null);
  if (!dialog.open) return;
  if (answer.error) {
    status.textContent = answer.error;
    return;
  }
  const { findings, computing, fault } = answer;
  list.replaceChildren(...findings.map(row), ...Array.from({ length: computing ? PENDING : 0 }, placeholder));
  const short = findings.filter(({ good }) => good === false).length;
  const measured = findings.filter(({ good }) => good !== null).length;
  status.textContent = fault || (computing ? "Computing the other measures. This takes about a minute, once; you can close this and go on."
    : `${measured - short} of ${measured} measures reach their target.`);
  if (computing) waiting = setTimeout(load, POLL);
}
on("checkpoint-panel", () => {
  hint.textContent = `${Sieve.about.checkpoint}, measured on ${Sieve.about.collection}`;
  if (!list.children.length) list.replaceChildren(...Array.from({ length: PENDING }, placeholder));
  dialog.showModal();
  load();
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => clearTimeout(waiting));
