const { el, on, emit, place, sentence } = Sieve;
const find = (selector) => element.querySelector(selector);
const form = find("form");
const q = find("#sv-q");
const without = find("#sv-w");
const by = find(".sv-by");
const file = find("input[type=file]");
const fault = find(".sv-fault");
const again = find(".sv-again");
const notes = find(".sv-notes");
const tries = find(".sv-try");

function submit() {
  const text = q.value.trim();
  const rest = { without: without.value.trim() };
  if (!by.hidden) {
    const { item, upload } = place;
    return Sieve.search({ item, upload, preview: by.querySelector("img").src, ...rest });
  }
  if (text) return Sieve.search({ q: text, ...rest });
  emit("fault", rest.without ? "Say also what to find: “without” only takes away." : "");
  q.focus();
  return rest.without ? undefined : Sieve.clear();
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

async function take(image) {
  if (!image) return;
  if (!Sieve.about.can.image_queries) return emit("fault", sentence(Sieve.about.can.no_image));
  if (image.size > 20 * 2 ** 20) {
    emit("fault", `The image file has ${Math.round(image.size / 2 ** 20)} MB; at most 20 can be read`);
    return;
  }
  emit("busy", true);
  let found;
  try {
    const received = await upload(image);
    found = await Sieve.call(server.sieve_upload, received.path);
  } catch {
    found = { error: "The image could not be uploaded; choose a smaller one" };
  }
  emit("busy", false);
  if (found.error) return emit("fault", found.error);
  Sieve.search({ upload: found.key, preview: found.preview, without: without.value.trim() });
}
find(".sv-pick").addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  take(file.files[0]);
  file.value = "";
});
const images = (list) => [...(list ?? [])].find((one) => one.type.startsWith("image/"));
form.addEventListener("paste", (event) => {
  const image = images(event.clipboardData?.files);
  if (!image) return;
  event.preventDefault();
  take(image);
});
form.addEventListener("dragover", (event) => {
  event.preventDefault();
  form.classList.add("sv-drop");
});
form.addEventListener("dragleave", () => form.classList.remove("sv-drop"));
form.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("sv-drop");
  take(event.dataTransfer?.files?.[0]);
});

by.querySelector("button").addEventListener("click", () => {
  if (!Sieve.about.can.text_queries) return Sieve.clear();
  Object.assign(place, { item: "", upload: "" });
  by.hidden = true;
  q.hidden = false;
  q.value = "";
  q.focus();
});

on("question", (now) => {
  const image = now.upload || now.item;
  by.hidden = !image;
  q.hidden = Boolean(image);
  if (image) {
    by.querySelector("img").src = now.preview || Sieve.thumbnail(now.item);
    by.querySelector("span").textContent = now.upload ? "your image" : `like: ${now.like || "this image"}`;
  }
  q.value = now.q;
  without.value = now.without;
  tries.hidden = Sieve.asked();
});
on("fault", (line) => { fault.textContent = line; });
let repeat = null;
on("again", (ask) => {
  repeat = ask;
  again.hidden = !ask;
});
again.addEventListener("click", () => repeat?.());
on("notes", (lines) => notes.replaceChildren(...lines.map((line) => el("li", {}, line))));
on("busy", (busy) => form.toggleAttribute("aria-busy", busy));
on("about", ({ can }) => {
  find(".sv-pick").hidden = !can.image_queries;
  if (can.text_queries) return;
  for (const field of [q, without]) Object.assign(field, { disabled: true, placeholder: "", title: sentence(can.no_text) });
  q.placeholder = "choose an image below";
  find(".sv-go").disabled = true;
  find(".sv-mute").textContent = sentence(can.no_text);
});
on("about", ({ examples }) => {
  if (!examples.length) return;
  tries.replaceChildren(
    el("span", { class: "sv-try-word" }, "Try"),
    ...examples.map((example) =>
      el("button", { type: "button", class: "sv-pill", onclick: () => Sieve.search(example) },
        example.q, example.without && el("span", { class: "sv-minus" }, " without "), example.without)),
  );
});
emit("saved-slot", find(".sv-saved"));

Sieve.connect(server);
