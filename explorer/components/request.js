// Calls to the server, whatever it does: it may be busy, another one by now, or gone.
Object.assign(Sieve, (() => {
  // A crowded server says so at once. It is asked once more, each page at a time of its own, unless
  // something newer is to be asked; then the person decides.
  async function call(method, data, newer = () => false) {
    const answer = await answered(method, data);
    if (!answer.busy || newer()) return answer;
    await new Promise((resolve) => { setTimeout(resolve, 1000 + 1000 * Math.random()); });
    return newer() ? answer : answered(method, data);
  }

  async function answered(method, data) {
    try {
      const answer = await method(data);
      if (answer) return answer;
    } catch (fault) {
      console.error(fault);
    }
    if (await outdated()) {
      location.reload(); // the address says where the person is
      return new Promise(() => {});
    }
    return { error: "Sieve does not answer. Is it still running?", gone: true };
  }

  // A server that was started anew, or opened another checkpoint, is another app than this page's.
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
