// A file as the query: dropped anywhere, pasted, or chosen. It is compared and not stored.

import { call } from "./api.js";
import { byId, element } from "./elements.js";
import { clearNotices, notice, noticeOf } from "./notices.js";
import { counted } from "./wording.js";

const MIB = 2 ** 20;

async function isPicture(file) {
  const start = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  const begins = (...bytes) => bytes.every((byte, index) => start[index] === byte);
  return begins(0x89, 0x50, 0x4e, 0x47) || begins(0xff, 0xd8, 0xff);
}

/** Ask how a PNG or JPEG was made; resolves to "" when the user gives up. */
function askModality(file) {
  const dialog = byId("modality-dialog");
  byId("modality-file").textContent = file.name || "The picture";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const done = () => resolve(dialog.returnValue ? byId("file-modality").value : "");
    dialog.addEventListener("close", done, { once: true });
  });
}

function showBusy(name, cancel) {
  const veil = byId("drop-veil");
  veil.replaceChildren(
    element("span", { class: "spinner" }),
    element("p", { role: "status" }, `Looking at ${name}…`),
    element("button", { class: "button", type: "button", on: { click: cancel } }, "Cancel"),
  );
  veil.removeAttribute("aria-hidden");
  veil.classList.add("busy");
  veil.hidden = false;
}

function hideVeil() {
  const veil = byId("drop-veil");
  veil.hidden = true;
  veil.classList.remove("busy");
  veil.setAttribute("aria-hidden", "true");
  veil.replaceChildren(element("p", {}, "Drop to find similar cases"));
}

async function embed(file, limit) {
  if (file.size > limit) {
    const most = counted(Math.floor(limit / MIB), "MiB", "MiB");
    notice(`${file.name} is too large: a file to search with may have ${most} at most.`, "bad");
    return null;
  }
  const parameters = new URLSearchParams({ name: file.name || "pasted picture" });
  if (await isPicture(file)) {
    const modality = await askModality(file);
    if (!modality) return null;
    parameters.set("modality", modality);
  }
  const request = new AbortController();
  showBusy(file.name || "the picture", () => request.abort());
  try {
    const response = await call(`api/examples?${parameters}`, {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: file,
      signal: request.signal,
    });
    return await response.json();
  } finally {
    hideVeil();
  }
}

/**
 * Take files from wherever they come.
 *
 * @param {number} limit bytes
 * @param {(example: object) => void} taken called with what the node says of the file
 */
export function startDropping(limit, taken) {
  const take = async (files) => {
    if (!files.length) return;
    clearNotices();
    if (files.length > 1) notice(`Searching with ${files[0].name}, the first of the files.`);
    try {
      const example = await embed(files[0], limit);
      if (example) taken(example);
    } catch (error) {
      noticeOf(error);
    }
  };

  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  let inside = 0; // dragenter and dragleave come for every element under the pointer
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    inside += 1;
    byId("drop-veil").hidden = false;
  });
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    inside = Math.max(inside - 1, 0);
    if (!inside) hideVeil();
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    inside = 0;
    hideVeil();
    take([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => take([...(event.clipboardData?.files ?? [])]));

  const chooser = byId("file");
  byId("choose-file").addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    take([...chooser.files]);
    chooser.value = ""; // the same file may be chosen again
  });
}
