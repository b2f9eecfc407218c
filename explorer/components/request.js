// Calls to the server, which may be busy, restarted or unreachable.
Object.assign(Sieve, (() => {
  // A busy server answers at once. Retry once after a random delay, unless a newer request is waiting;
  // after that the user decides.
  async function call(method, data, newer = () => false) {
    const answer = await answered(method, data);
    if (!answer.busy || newer()) return answer;
    await new Promise((resolve) => { setTimeout(resolve, 1000 + 1000 * Math.random()); });
    return newer() ? answer : answered(method, data);
  }

  async function answered(method, data) {
    try {
      const answer = await method(data);
      const readingNote = answer?.reading_note || answer?.answer?.reading_note;
      if (readingNote) Sieve.emit("reading-note", readingNote);
      if (answer) return answer;
    } catch (fault) {
      console.error(fault);
    }
    if (await outdated()) {
      location.reload(); // the URL holds the view
      return new Promise(() => {});
    }
    return { error: "Sieve is not responding. Check that “sieve explore” is still running.", gone: true };
  }

  // A server that was restarted, or opened another checkpoint, has another app ID.
  async function outdated() {
    try {
      const config = await (await fetch("config", { cache: "no-store" })).json();
      return Boolean(window.gradio_config) && config.app_id !== window.gradio_config.app_id;
    } catch {
      return false;
    }
  }

  return { call, outdated };
})());
