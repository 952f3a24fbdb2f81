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

/**
 * Ask how a PNG or JPEG was made; resolves to "" when the user gives up, or `signal` has it given up.
 */
function askModality(file, signal) {
  const dialog = byId("modality-dialog");
  const choice = byId("file-modality");
  byId("modality-file").textContent = file.name || "The picture";
  choice.value = ""; // the last picture's modality says nothing of this one
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const done = () => {
      if (dialog.open) return; // the event of an earlier closing, and asked again since
      dialog.removeEventListener("close", done);
      resolve(dialog.returnValue ? choice.value : "");
    };
    dialog.addEventListener("close", done);
    signal.addEventListener("abort", () => {
      dialog.removeEventListener("close", done);
      dialog.close();
      resolve("");
    });
  });
}

const veil = byId("drop-veil");

function showVeil(busy, ...content) {
  veil.replaceChildren(...content);
  veil.classList.toggle("busy", busy);
  // a dialog lies over the larger view too, which is one
  if (!veil.open) veil.showModal();
}

function hideVeil() {
  if (veil.open) veil.close();
}

async function upload(file, parameters, signal) {
  const response = await call(`api/examples?${parameters}`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: file,
    signal,
  });
  return response.json();
}

/** The one file that is being looked at: a newer one, Cancel and Back make it give up. */
class Looking {
  #request = null;
  #limit;

  /** @param {number} limit bytes */
  constructor(limit) {
    this.#limit = limit;
    addEventListener("popstate", () => this.giveUp());
    veil.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.giveUp();
    });
  }

  /** Forget the file; what the node still answers counts no longer. */
  giveUp() {
    this.#request?.abort();
    this.#request = null;
    hideVeil();
  }

  /** What the node says of a file; `null` when it was given up. */
  async at(file) {
    this.giveUp();
    const request = new AbortController();
    this.#request = request;
    try {
      const example = await this.#embedded(file, request.signal);
      return request.signal.aborted ? null : example;
    } finally {
      if (this.#request === request) this.giveUp();
    }
  }

  async #embedded(file, signal) {
    if (file.size > this.#limit) {
      const most = counted(Math.floor(this.#limit / MIB), "MiB", "MiB");
      notice(`${file.name} is too large: a file to search with may have ${most} at most.`, "bad");
      return null;
    }
    const parameters = new URLSearchParams({ name: file.name || "pasted picture" });
    if (await isPicture(file)) {
      if (signal.aborted) return null;
      const modality = await askModality(file, signal);
      if (!modality) return null;
      parameters.set("modality", modality);
    }
    if (signal.aborted) return null;
    showVeil(
      true,
      element("span", { class: "spinner" }),
      element("p", { role: "status" }, `Looking at ${file.name || "the picture"}…`),
      element(
        "button",
        { class: "button", type: "button", on: { click: () => this.giveUp() } },
        "Cancel",
      ),
    );
    return upload(file, parameters, signal);
  }
}

/**
 * Take files from wherever they come.
 *
 * @param {number} limit bytes
 * @param {(example: object) => void} taken called with what the node says of the file
 */
export function startDropping(limit, taken) {
  const looking = new Looking(limit);
  const take = async (files) => {
    if (!files.length) return;
    clearNotices();
    if (files.length > 1) notice(`Searching with ${files[0].name}, the first of the files.`);
    try {
      const example = await looking.at(files[0]);
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
    if (!veil.open) showVeil(false, element("p", {}, "Drop to find similar cases"));
  });
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    inside = Math.max(inside - 1, 0);
    if (!inside && !veil.classList.contains("busy")) hideVeil();
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    inside = 0;
    hideVeil();
    looking.giveUp();
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
