// Fill the selector of versions from ../versions.json; it stays hidden without that file or with one version.
addEventListener("DOMContentLoaded", async () => {
  const select = document.querySelector(".versions select");
  if (!select || location.protocol === "file:") return;
  const root = new URL(`${document.documentElement.dataset.content_root}../`, location.href);
  const page = `${select.dataset.page}.html`;
  const answer = await fetch(new URL("versions.json", root)).catch(() => null);
  const versions = answer?.ok ? await answer.json() : [];
  if (versions.length < 2) return;
  for (const name of versions) select.add(new Option(name, name, false, name === select.dataset.version));
  select.closest(".versions").hidden = false;
  select.addEventListener("change", async () => {
    const front = new URL(`${select.value}/`, root);
    const same = await fetch(new URL(page, front), { method: "HEAD" }).catch(() => null);
    location.href = new URL(same?.ok ? page : "index.html", front);
  });
});
