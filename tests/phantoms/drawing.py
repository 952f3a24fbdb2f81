"""A canvas that draws anatomy from smooth shapes, in numbers instead of colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]
Mask = np.ndarray  # float32 [rows, columns], 0 outside, 1 inside, between at the edge
_Place = Callable[[np.ndarray], list[Point]]
_DrawOn = Callable[[ImageDraw.ImageDraw, _Place], object]
_FINE = 3  # masks are drawn this many times larger: smooth edges


class Canvas:
    """Values on a grid; x runs from -1 to 1, y in the same unit, downwards, 0 in the middle.

    Parameters
    ----------
    random : numpy.random.Generator
        Source of everything that differs between two canvases: shape, pose, noise.
    rows, columns : int
        Size, pixels.
    background : float
        Value of every pixel at first.
    tilt_degrees : float
        Largest turn of the patient to either side.
    """

    def __init__(
        self,
        random: np.random.Generator,
        rows: int,
        columns: int,
        background: float,
        tilt_degrees: float = 4.0,
    ) -> None:
        self.random = random
        self.rows, self.columns = rows, columns
        self.values = np.full((rows, columns), background, np.float32)
        turn = math.radians(random.uniform(-tilt_degrees, tilt_degrees))
        size, slant = random.uniform(0.9, 1.02), random.uniform(-0.03, 0.03)
        cosine, sine = size * math.cos(turn), size * math.sin(turn)
        self._pose = np.array([[cosine, slant - sine], [sine, cosine * random.uniform(0.95, 1.03)]])
        self._shift = random.uniform(-0.03, 0.03, 2)

    def vary(self, value: float, share: float = 0.12) -> float:
        """Return `value` changed by up to `share` of it."""
        return value * float(self.random.uniform(1 - share, 1 + share))

    def paint(self, mask: Mask, value: float | Mask, opacity: float = 1.0) -> None:
        """Replace what is under the mask."""
        self.values += mask * opacity * (value - self.values)

    def add(self, mask: Mask, amount: float) -> None:
        """Add to what is under the mask, as tissue in the path of an X-ray does."""
        self.values += mask * amount

    def outline(self, points: Sequence[Point], wobble: float = 0.0) -> Mask:
        """Return the inside of a smooth closed curve through the points."""
        curve = smooth(points, closed=True)
        if wobble:
            shake = self.random.normal(0, wobble, (max(4, len(points)), 2))
            curve = curve + smooth([(x, y) for x, y in shake], closed=True, total=len(curve))
        return self._drawn(lambda draw, place: draw.polygon(place(curve), fill=255))

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, turn_degrees: float = 0, wobble: float = 0
    ) -> Mask:
        """Return an ellipse, turned, its outline uneven by `wobble`."""
        turn = math.radians(turn_degrees)
        points = []
        for angle in np.linspace(0, 2 * math.pi, 12, endpoint=False):
            across, down = rx * math.cos(angle), ry * math.sin(angle)
            points.append(
                (
                    x + across * math.cos(turn) - down * math.sin(turn),
                    y + across * math.sin(turn) + down * math.cos(turn),
                )
            )
        return self.outline(points, wobble)

    def stroke(self, points: Sequence[Point], width: float, end_width: float | None = None) -> Mask:
        """Return a smooth line through the points whose width changes to `end_width`."""
        return self.strokes([(points, width, width if end_width is None else end_width)])

    def strokes(self, lines: Sequence[tuple[Sequence[Point], float, float]]) -> Mask:
        """Return many lines at once: (points, width, width at the end)."""
        scale = self.columns * _FINE / 2

        def draw_lines(draw: ImageDraw.ImageDraw, place: _Place) -> None:
            for points, width, end_width in lines:
                curve = place(smooth(points))
                widths = np.linspace(width, end_width, len(curve)) * scale
                for (x, y), w in zip(curve, widths, strict=True):
                    draw.ellipse((x - w / 2, y - w / 2, x + w / 2, y + w / 2), fill=255)
                for start, stop, w in zip(curve, curve[1:], widths, strict=False):
                    draw.line((start, stop), fill=255, width=max(1, round(w)))

        return self._drawn(draw_lines)

    def write(self, x: float, y: float, text: str, height: float, value: float) -> None:
        """Write a text, as a side marker is."""
        font = ImageFont.load_default(height * self.columns * _FINE / 2)
        scale = self.columns * _FINE / 2
        place = (x * scale + scale, y * scale + self.rows * _FINE / 2)
        drawn = self._drawn(lambda draw, _: draw.text(place, text, fill=255, font=font))
        self.paint(drawn, value)

    def texture(self, cells: int, octaves: int = 3) -> Mask:
        """Return clouds between about -1 and 1; `cells` of the coarsest lie across the width."""
        total = np.zeros((self.rows, self.columns), np.float32)
        for octave in range(octaves):
            count = cells * 2**octave
            grid = self.random.standard_normal((count + 2, count + 2)).astype(np.float32)
            cloud = Image.fromarray(grid).resize(
                (self.columns, self.rows), Image.Resampling.BICUBIC
            )
            total += np.asarray(cloud) / 2**octave
        return total / 1.6

    def noise(self, deviation: float, grain: float = 0.7) -> Mask:
        """Return noise of a standard deviation whose grains have a size in pixels."""
        grains = blurred(self.random.standard_normal((self.rows, self.columns)), grain)
        return (grains * (deviation / grains.std())).astype(np.float32)

    def _drawn(self, draw_on: _DrawOn) -> Mask:
        fine = Image.new("L", (self.columns * _FINE, self.rows * _FINE))
        scale = self.columns * _FINE / 2
        centre = np.array([scale, self.rows * _FINE / 2])

        def place(points: np.ndarray) -> list[Point]:
            posed = (points @ self._pose.T + self._shift) * scale + centre
            return [(float(x), float(y)) for x, y in posed]

        draw_on(ImageDraw.Draw(fine), place)
        return np.asarray(fine.reduce(_FINE), np.float32) / 255


def smooth(points: Sequence[Point], *, closed: bool = False, total: int = 0) -> np.ndarray:
    """Return a Catmull-Rom curve through the points, [N, 2]."""
    given = np.asarray(points, float)
    if closed:
        padded = np.vstack([given[-1:], given, given[:2]])
    else:
        padded = np.vstack([2 * given[0] - given[1], given, 2 * given[-1] - given[-2]])
    pieces = len(padded) - 3
    at = np.linspace(0, pieces, total or pieces * 8 + 1, endpoint=not closed)
    piece = np.minimum(at.astype(int), pieces - 1)
    t = (at - piece)[:, None]
    a, b, c, d = (padded[piece + offset] for offset in range(4))
    return (
        b
        + 0.5 * t * (c - a)
        + t**2 * (a - 2.5 * b + 2 * c - 0.5 * d)
        + t**3 * (1.5 * (b - c) + 0.5 * (d - a))
    )


def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """Return `values` blurred by a Gaussian of `sigma` pixels, edges repeated."""
    border = math.ceil(3 * sigma)
    after = [border + -(size + 2 * border) % 32 for size in values.shape]  # round sizes: fast FFT
    padded = np.pad(values, [(border, beyond) for beyond in after], mode="edge")
    rows, columns = padded.shape
    down, across = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :]
    kernel = np.exp(-2 * (math.pi * sigma) ** 2 * (down**2 + across**2))
    done = np.fft.irfft2(np.fft.rfft2(padded) * kernel, padded.shape)
    inner = done[border : border + values.shape[0], border : border + values.shape[1]]
    return np.asarray(inner, np.float32)
