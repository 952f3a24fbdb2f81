// Where a study can go from here: a viewer by link, a workstation or a PACS by DICOM.

import { postJson } from "./api.js";
import { element } from "./elements.js";
import { notice, noticeOf } from "./notices.js";
import { counted } from "./wording.js";

/** What is queued is not sent yet, and where nobody answers it will not be for a while. */
function tell(destination, objects, waiting, resting) {
  const queued = objects
    ? `${counted(objects, "image")} queued for ${destination}`
    : `${counted(waiting, "image")} already queued for ${destination}`;
  if (!resting) notice(queued, "good");
  else notice(`${queued}. It does not answer at the moment; the node keeps trying.`, "warning");
}

function sender(destinations, study) {
  const choice = element(
    "select",
    { "aria-label": "Destination", data: { testid: "destination" } },
    ...destinations.map((title) => element("option", { value: title }, title)),
  );
  const send = element(
    "button",
    { class: "button", type: "button", data: { testid: "send" } },
    "Send",
  );
  send.addEventListener("click", async () => {
    send.disabled = true;
    try {
      const destination = choice.value;
      const { objects, waiting, resting } = await postJson("api/send", {
        study_instance_uid: study,
        destination,
      });
      tell(destination, objects, waiting ?? 0, resting);
    } catch (error) {
      noticeOf(error);
    } finally {
      send.disabled = false;
    }
  });
  return element(
    "span",
    { class: "sender" },
    element("span", { class: "quiet small" }, "Send to"),
    choice,
    send,
  );
}

/**
 * Links and buttons for a study of the node.
 *
 * @param {{viewers: {name: string, url: string}[], destinations: string[]}} node
 * @param {string} study Study Instance UID
 * @returns {Element[]}
 */
export function waysOut(node, study) {
  const links = node.viewers.map(({ name, url }) =>
    element(
      "a",
      {
        class: "button",
        href: url.replaceAll("{StudyInstanceUID}", encodeURIComponent(study)),
        target: "_blank",
        rel: "noopener noreferrer",
        data: { testid: "viewer-link" },
      },
      `Open in ${name}`,
    ),
  );
  return node.destinations.length ? [...links, sender(node.destinations, study)] : links;
}
