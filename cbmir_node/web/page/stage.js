// The canvas of a picture: pointer and wheel in, pixels out.

import { dragged, paint } from "./window_level.js";

const LARGEST_ZOOM = 16;
const WHEEL_STEP = 60; // pixels of wheel movement per image; one notch of a mouse is 100 or more

/** Draws one frame into a canvas that fills its box. */
export class Stage {
  #canvas;
  #frame = null;
  #image = null; // ImageData of the frame's own size
  #picture = document.createElement("canvas");
  #window = null; // chosen by the reader; else the frame's own
  #zoom = 1;
  #place = { x: 0, y: 0 };
  #overlay = null;
  #strength = 0;
  #waiting = false;
  #stale = true;
  #pointers = new Map();
  #wheeled = 0;
  #on;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {{wheel: (steps: number) => void, told: (text: string) => void}} on called with images to
   *   go on by, and with the window in words
   */
  constructor(canvas, on) {
    this.#canvas = canvas;
    this.#on = on;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /** Show a frame, as `FrameValues.get` returns it. */
  show(frame) {
    const resized = frame.columns !== this.#frame?.columns || frame.rows !== this.#frame?.rows;
    this.#frame = frame;
    if (resized) {
      this.#picture.width = frame.columns;
      this.#picture.height = frame.rows;
      this.#image = new ImageData(frame.columns, frame.rows);
    }
    this.#stale = true;
    this.#tell();
    this.#draw();
  }

  /** Show nothing. */
  clear() {
    this.#frame = null;
    this.#overlay = null;
    this.#stale = true;
    this.#on.told("");
    this.#draw();
  }

  /** Lay an image of the frame's aspect over it, or `null` for none. */
  overlay(image, strength) {
    this.#stale ||= Boolean(image) !== Boolean(this.#overlay);
    this.#overlay = image;
    this.#strength = strength;
    this.#draw();
  }

  /** The window in use: {center, width}. */
  get window() {
    return this.#window ?? { center: this.#frame?.center ?? 0, width: this.#frame?.width ?? 1 };
  }

  set window({ center, width }) {
    if (this.#frame?.colour) return;
    this.#window = { center, width };
    this.#stale = true;
    this.#tell();
    this.#draw();
  }

  /** Each frame in its own window again. */
  resetWindow() {
    this.#window = null;
    this.#stale = true;
    this.#tell();
    this.#draw();
  }

  /** Window, size and place as at first. */
  reset() {
    this.#zoom = 1;
    this.#place = { x: 0, y: 0 };
    this.resetWindow();
  }

  /** Enlarge around a point of the canvas, its middle unless named. */
  zoomBy(factor, at = { x: this.#canvas.clientWidth / 2, y: this.#canvas.clientHeight / 2 }) {
    const zoom = Math.min(Math.max(this.#zoom * factor, 1), LARGEST_ZOOM);
    const ratio = zoom / this.#zoom;
    const from = {
      x: at.x - this.#canvas.clientWidth / 2,
      y: at.y - this.#canvas.clientHeight / 2,
    };
    this.#place = {
      x: from.x - (from.x - this.#place.x) * ratio,
      y: from.y - (from.y - this.#place.y) * ratio,
    };
    this.#zoom = zoom;
    if (zoom === 1) this.#place = { x: 0, y: 0 };
    this.#draw();
  }

  #narrowest() {
    return Math.max(this.#frame?.step || 0, 1e-6);
  }

  #tell() {
    if (!this.#frame) return;
    const { center, width } = this.window;
    const digits = this.#narrowest() < 0.05 ? 3 : 0;
    this.#on.told(
      this.#frame.colour ? "" : `L ${center.toFixed(digits)}  W ${width.toFixed(digits)}`,
    );
  }

  #down(event) {
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, {
      x: event.offsetX,
      y: event.offsetY,
      moves: event.button > 0 || event.shiftKey,
    });
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before || !this.#frame) return;
    const now = { ...before, x: event.offsetX, y: event.offsetY };
    const [right, down] = [now.x - before.x, now.y - before.y];
    if (this.#pointers.size === 2) this.#pinch(event.pointerId, before, now);
    else if (before.moves) {
      this.#place = { x: this.#place.x + right, y: this.#place.y + down };
      this.#draw();
    } else this.window = dragged(this.window, right, down, this.#narrowest());
    this.#pointers.set(event.pointerId, now);
  }

  #pinch(moved, before, now) {
    const [, other] = [...this.#pointers].find(([id]) => id !== moved);
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    const middle = { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 };
    this.#place.x += (now.x - before.x) / 2;
    this.#place.y += (now.y - before.y) / 2;
    this.zoomBy(apart(now) / Math.max(apart(before), 1), middle);
  }

  #wheel(event) {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) {
      this.zoomBy(Math.exp(-event.deltaY / 300), { x: event.offsetX, y: event.offsetY });
      return;
    }
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE;
    this.#wheeled += event.deltaY * (lines ? 34 : 1);
    const steps = Math.trunc(this.#wheeled / WHEEL_STEP);
    if (!steps) return;
    this.#wheeled = 0; // one notch is one image, however many pixels the mouse says it has
    this.#on.wheel(Math.sign(steps));
  }

  #draw() {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      this.#paint();
    });
  }

  #paint() {
    const canvas = this.#canvas;
    const dots = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * dots, canvas.clientHeight * dots].map(Math.round);
    if (canvas.width !== width || canvas.height !== height)
      Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    const frame = this.#frame;
    if (!frame || !width || !height) return;
    if (this.#stale) {
      const { center, width: wide } = this.window;
      paint(frame, this.#image, center, wide, Boolean(this.#overlay));
      this.#picture.getContext("2d").putImageData(this.#image, 0, 0);
      this.#stale = false;
    }
    const scale = Math.min(width / frame.columns, height / frame.rows) * this.#zoom;
    const [wide, high] = [frame.columns * scale, frame.rows * scale];
    const left = (width - wide) / 2 + this.#place.x * dots;
    const top = (height - high) / 2 + this.#place.y * dots;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#picture, left, top, wide, high);
    if (this.#overlay) {
      context.globalAlpha = this.#strength;
      context.drawImage(this.#overlay, left, top, wide, high);
      context.globalAlpha = 1;
    }
  }
}
