// Query forms, and their image input: choose, drop or paste an image and upload it.
Object.assign(window.Sieve, (() => {
  const { sentence } = window.Sieve;
  const imageOf = (list) => [...(list ?? [])].find((one) => one.type.startsWith("image/"));

  async function uploadImage(image, upload) {
    const megabytes = (bytes) => `${Math.round(bytes / 2 ** 20)} MB`;
    const most = Sieve.SETTINGS.upload_bytes;
    if (image.size > most) return { error: `This image file is ${megabytes(image.size)}; the limit is ${megabytes(most)}.` };
    try {
      const received = await upload(image);
      return await Sieve.call(Sieve.server.sieve_upload, received.path);
    } catch {
      return { error: "The image could not be uploaded. Try a smaller one." };
    }
  }
  const canTake = () => Boolean(Sieve.about.can?.image_queries && Sieve.server.sieve_upload);

  // `box` holds a picture button and a file input; `take` receives the key and preview of the image.
  // `upload` is the upload function of the Gradio component that holds the box.
  function acceptImages(box, upload, { take, busy, fault }) {
    const file = box.querySelector("input[type=file]");
    async function receive(image, target = null) {
      if (!image) return;
      if (!canTake()) return fault(sentence(Sieve.about.can.no_image ?? "image search is not available here"));
      busy(true);
      const found = await uploadImage(image, upload);
      busy(false);
      if (found.error) return fault(found.error);
      take(found, target);
    }
    box.querySelector(".sv-pick").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      receive(file.files[0]);
      file.value = "";
    });
    box.addEventListener("paste", (event) => {
      const image = imageOf(event.clipboardData?.files);
      if (!image) return;
      event.preventDefault();
      receive(image, event.target);
    });
    box.addEventListener("dragover", (event) => {
      event.preventDefault();
      box.classList.toggle("sv-drop", canTake());
    });
    box.addEventListener("dragleave", () => box.classList.remove("sv-drop"));
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      box.classList.remove("sv-drop");
      receive(event.dataTransfer?.files?.[0], event.target);
    });
  }

  // Show a query in its form: the text, or the image in its place.
  function showQuery(form, { q, item, upload, without }, preview, words) {
    const [queryImage, text] = [".sv-query-image", ".sv-query-image ~ input[type=text]"].map((selector) => form.querySelector(selector));
    queryImage.hidden = !(item || upload);
    text.hidden = !queryImage.hidden;
    text.value = q;
    form.querySelector(".sv-field-w input").value = without;
    if (queryImage.hidden) return;
    const src = preview || (item ? Sieve.thumbnail(item) : "");
    Object.assign(queryImage.querySelector("img"), { src, hidden: !src });
    queryImage.querySelector("span").textContent = upload ? "your image" : words;
  }

  return { acceptImages, canTake, showQuery };
})());
