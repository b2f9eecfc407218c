// Add a CSRF token to all POST requests of this page, including Gradio's own. Pages of other origins
// cannot read it. It is fetched once, before the first POST.
(() => {
  const send = window.fetch.bind(window);
  let token = null;

  function read() {
    const root = window.gradio_config?.root ?? location.href.split(/[?#]/)[0].replace(/\/$/, "");
    token ??= send(`${root}/csrf-token`, { cache: "no-store" }).then((answer) => (answer.ok ? answer.text() : "")).catch(() => "");
    return token;
  }

  window.fetch = async (input, options = {}) => {
    const request = input instanceof Request ? input : null;
    const method = (options.method ?? request?.method ?? "GET").toUpperCase();
    const { origin } = new URL(request?.url ?? input, location.href);
    if (method !== "POST" || origin !== location.origin) return send(input, options);
    const once = async () => {
      const headers = new Headers(options.headers ?? request?.headers);
      headers.set("X-Sieve-Token", await read());
      return send(request?.clone() ?? input, { ...options, headers });
    };
    const used = await read();
    const answer = await once();
    if (answer.status !== 403) return answer;
    token = null; // the server was restarted, or another tab has logged in
    return (await read()) === used ? answer : once();
  };
})();
