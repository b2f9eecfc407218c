// Formatting of numbers and sentences, and serialisation of tab state in the URL.
Object.assign(window.Sieve, (() => {
  function number(value) {
    const size = Math.abs(value);
    const digits = size > 0 && size < 0.0095 ? 3 : 2;
    return (value < 0 ? "−" : "") + size.toFixed(digits);
  }
  const ONLY_EXCLUDES = "Enter something to find; “without” only excludes.";
  const percent = (share) =>
    share === 0 ? "0%" : share < 0.001 ? "<0.1%" : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)}%`;
  const whole = (n) => n.toLocaleString("en");
  const count = (n, one) => `${whole(n)} ${one}${n === 1 ? "" : "s"}`;
  const capital = (text) => text && `${text[0].toUpperCase()}${text.slice(1)}`;
  const sentence = (text) => text && `${capital(text)}${/[.!?…]$/.test(text) ? "" : "."}`;

  // Serialise as readable text, for example `left:a dog,off:4 17`; empty values are omitted.
  const packed = (text) => text.replace(/[%,:]/g, encodeURIComponent);
  function pack(values) {
    const given = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    return given.map(([name, value]) => `${name}:${packed(String(value))}`).join(",");
  }
  function unpack(text) {
    const parts = text.split(",").map((part) => part.split(":"));
    try {
      return Object.fromEntries(parts.filter((part) => part.length === 2).map(([name, value]) => [name, decodeURIComponent(value)]));
    } catch {
      return {}; // a malformed link
    }
  }

  // Dimensions that are off; null means those that “without” proposes.
  function decoded(text) {
    try { return decodeURIComponent(text); } catch { return ""; } // a malformed link
  }
  const packOff = (off) => (off === null ? "" : off.join(" ") || "none");
  function unpackOff(text) {
    if (!text) return null;
    return text === "none" ? [] : text.split(" ").map(Number);
  }
  // Such as 0.5, “never”, or “never:0.2”, which hides images from a probability of 20%.
  const LIMIT = Sieve.SETTINGS.presence_limit;
  function packStrictness({ strictness, never, limit = LIMIT }) {
    if (never) return limit === LIMIT ? "never" : `never:${limit}`;
    return strictness === 1 ? "" : strictness;
  }
  function unpackStrictness(text = "") {
    const [word, limit] = text.split(":");
    const never = word === "never";
    return { never, limit: never && Number(limit) || LIMIT, strictness: text === "" || never ? 1 : Number(text) };
  }

  return { ONLY_EXCLUDES, number, percent, whole, count, capital, sentence, pack, unpack, decoded, packOff, unpackOff, packStrictness, unpackStrictness };
})());
