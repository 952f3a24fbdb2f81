// From grey levels to the screen: the linear window of PS3.3 C.11.2.1.2.

const LEVELS = 65536;

/** Windows that readers of CT choose, Hounsfield units. */
export const CT_WINDOWS = [
  { name: "Soft tissue", center: 40, width: 400 },
  { name: "Lung", center: -600, width: 1500 },
  { name: "Bone", center: 500, width: 2000 },
  { name: "Brain", center: 40, width: 80 },
  { name: "Liver", center: 60, width: 160 },
];

/**
 * Screen value of every stored level as one RGBA word each (little endian, as canvases have it).
 *
 * @param {{minimum: number, step: number, inverted: boolean}} frame
 * @param {number} center
 * @param {number} width at least the frame's step
 * @returns {Uint32Array}
 */
export function lookupTable({ minimum, step, inverted }, center, width) {
  const table = new Uint32Array(LEVELS);
  const bottom = center - width / 2;
  for (let level = 0; level < LEVELS; level += 1) {
    const share = (minimum + level * step - bottom) / width;
    let grey = Math.min(Math.max(Math.round(share * 255), 0), 255);
    if (inverted) grey = 255 - grey;
    table[level] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
  }
  return table;
}

/**
 * Paint a frame into an image of its size.
 *
 * @param {object} frame as `FrameValues.get` returns it
 * @param {ImageData} image
 * @param {number} center
 * @param {number} width
 * @param {boolean} [grey] whether colours are painted as their luma (ITU-R BT.601): a coloured overlay
 *   is told from them then
 */
export function paint(frame, image, center, width, grey = false) {
  const words = new Uint32Array(image.data.buffer);
  const { values } = frame;
  if (frame.colour) {
    for (let pixel = 0, at = 0; pixel < words.length; pixel += 1, at += 3) {
      const red = values[at];
      const green = values[at + 1];
      const blue = values[at + 2];
      const luma = (77 * red + 150 * green + 29 * blue) >> 8;
      words[pixel] = grey
        ? 0xff000000 | (luma << 16) | (luma << 8) | luma
        : 0xff000000 | (blue << 16) | (green << 8) | red;
    }
    return;
  }
  const table = lookupTable(frame, center, width);
  for (let pixel = 0; pixel < words.length; pixel += 1) words[pixel] = table[values[pixel]];
}

/**
 * The window after a drag: sideways the width, up and down the centre, as workstations do.
 *
 * @param {{center: number, width: number}} window
 * @param {number} right pixels
 * @param {number} down pixels
 * @param {number} narrowest
 */
export function dragged({ center, width }, right, down, narrowest) {
  const unit = Math.max(width, narrowest) / 250;
  return { center: center - down * unit, width: Math.max(width + right * unit, narrowest) };
}
