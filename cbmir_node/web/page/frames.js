// Where the pictures of a frame lie, and their grey levels for windowing on this side.

import { call, getJson } from "./api.js";

const LONGEST_SIDE = 1024;
const KEPT_FRAMES = 24;

/**
 * Address of something of a frame.
 *
 * @param {{token?: string, sop_instance_uid: string, frame_number: number}} frame
 * @param {"thumbnail"|"values"|"saliency"|"predictions"} what
 */
export function frameAddress(frame, what) {
  const owner = frame.token
    ? `api/examples/${encodeURIComponent(frame.token)}`
    : `api/images/${frame.sop_instance_uid}`;
  return `${owner}/frames/${frame.frame_number}/${what}`;
}

/** The frame that stands for a subject or a result. */
export function coverOf(subject) {
  if (!subject.token) {
    return {
      sop_instance_uid: subject.sop_instance_uid,
      frame_number: subject.frame_number ?? 1,
    };
  }
  const frames = subject.frame_numbers ?? [];
  return {
    token: subject.token,
    frame_number: frames[Math.floor(frames.length / 2)] ?? 1,
  };
}

/**
 * All frames in the order of the wheel: of the series, or of the file that was dropped.
 *
 * @returns {Promise<object[]>} frames as `frameAddress` takes them
 */
export async function framesOf(subject, signal) {
  const every = (owner, count) =>
    Array.from({ length: Math.max(count ?? 1, 1) }, (_, index) => ({
      ...owner,
      frame_number: index + 1,
    }));
  if (subject.token) return every({ token: subject.token }, subject.number_of_frames);
  const images = await getJson(`api/series/${subject.series_instance_uid}/images`, { signal });
  return images.flatMap(({ sop_instance_uid, number_of_frames }) =>
    every({ sop_instance_uid }, number_of_frames),
  );
}

function readValues(response, body) {
  const number = (name) => Number(response.headers.get(`Cbmir-${name}`));
  const colour = number("Samples") === 3;
  return {
    rows: number("Rows"),
    columns: number("Columns"),
    colour,
    values: colour ? new Uint8Array(body) : new Uint16Array(body),
    minimum: number("Minimum"),
    step: number("Step"),
    center: number("Window-Center"),
    width: number("Window-Width"),
    inverted: ["true", "1"].includes(response.headers.get("Cbmir-Inverted")?.toLowerCase()),
  };
}

/** The grey levels or colours of frames, the last ones remembered. */
export class FrameValues {
  #kept = new Map();

  /**
   * @param {object} frame as `frameAddress` takes it
   * @param {AbortSignal} [signal]
   * @returns {Promise<object>} rows, columns, colour; `values` uint16, modality value = minimum +
   *   value × step, or RGB bytes; center, width, inverted
   */
  async get(frame, signal) {
    const address = `${frameAddress(frame, "values")}?longest_side=${LONGEST_SIDE}`;
    const known = this.#kept.get(address);
    if (known) {
      this.#kept.delete(address);
      this.#kept.set(address, known); // the last used comes last
      return known;
    }
    const response = await call(address, { signal });
    const read = readValues(response, await response.arrayBuffer());
    this.#kept.set(address, read);
    if (this.#kept.size > KEPT_FRAMES) this.#kept.delete(this.#kept.keys().next().value);
    return read;
  }
}
