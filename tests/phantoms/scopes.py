"""Colour pictures of 8 bits: ultrasound and the fundus of the eye."""

from __future__ import annotations

import numpy as np

from tests.phantoms.drawing import Canvas, blurred

Picture = np.ndarray  # colour, uint8 [rows, columns, 3]


def liver(random: np.random.Generator, level: float, lesion: bool) -> Picture:
    """Return an ultrasound fan with liver and gallbladder; `lesion` adds a stone."""
    canvas = Canvas(random, 360, 480, 0, tilt_degrees=3)
    canvas.paint(np.ones_like(canvas.values), 0.34 + 0.05 * canvas.texture(7))
    for y, value in ((-0.66, 0.7), (-0.6, 0.3), (-0.55, 0.55)):
        canvas.paint(
            blurred(canvas.stroke([(-1, y + 0.1), (0, y), (1, y + 0.1)], 0.03), 1.5), value
        )
    vessels = []
    for _ in range(7):
        x, y, angle = random.uniform(-0.5, 0.2), random.uniform(-0.4, 0.3), random.uniform(0, 3)
        turns = ((0, 0), (0.12, 0.2), (0.22, 0.5), (0.3, 0.4))
        line = [(x + r * np.cos(angle + t), y + r * np.sin(angle + t)) for r, t in turns]
        vessels.append((line, random.uniform(0.03, 0.07), 0.02))
    canvas.paint(blurred(canvas.strokes(vessels), 3.5), 0.06)
    dome = [(-0.85, 0.3), (-0.45, 0.52), (0.1, 0.56), (0.6, 0.3)]
    canvas.paint(blurred(canvas.stroke(dome, 0.035), 1.6), 1.3)
    at = (canvas.vary(0.22, 0.2), canvas.vary(-0.12, 0.4) + 0.04 * level)
    shadow = blurred(
        canvas.outline([at, (at[0] + 0.16, at[1]), (at[0] + 0.3, 0.9), (at[0], 0.9)]), 5
    )
    canvas.paint(shadow, canvas.values * (0.25 if lesion else 1.6), 0.9)
    sac = canvas.ellipse(*at, 0.25, 0.105, 28, wobble=0.012)
    canvas.paint(blurred(np.clip(blurred(sac, 4) * 2, 0, 1), 2), 0.62)
    canvas.paint(blurred(sac, 1.2), 0.03)
    if lesion:
        canvas.paint(blurred(canvas.ellipse(at[0] + 0.09, at[1] + 0.07, 0.06, 0.035), 1.2), 1)
    speckle = np.abs(canvas.noise(1, 1.5) + 1j * canvas.noise(1, 1.5))
    echo = canvas.values * (0.3 + 0.45 * speckle)
    rows, columns = np.mgrid[0 : canvas.rows, 0 : canvas.columns]
    x, y = columns / 240 - 1, rows / 240 - 0.75
    radius, angle = np.hypot(x, y + 1.06), np.arctan2(x, y + 1.06)
    fan = (radius > 0.36) & (radius < 1.72) & (np.abs(angle) < 0.62)
    echo = np.where(fan, echo * (1.12 - 0.3 * radius), 0)
    grey = np.clip(255 * np.sqrt(np.clip(echo, 0, 1)), 0, 255)
    canvas.values = grey.astype(np.float32)
    bar = (columns > 462) & (columns < 472) & (rows > 40) & (rows < 180)
    canvas.values[bar] = (255 * (180 - rows[bar]) / 140).astype(np.float32)
    canvas.write(-0.97, -0.72, "PHANTOM C5-2  16 cm  23 Hz", 0.045, 190)
    return np.repeat(canvas.values.astype(np.uint8)[..., None], 3, axis=2)


def fundus(random: np.random.Generator, level: float, lesion: bool) -> Picture:
    """Return the fundus of an eye; `level` is how pigmented it is."""
    canvas = Canvas(random, 400, 440, 0, tilt_degrees=3)
    rows, columns = np.mgrid[0:400, 0:440]
    radius = np.hypot(columns / 220 - 1, rows / 220 - 0.909)
    base = np.array([205 - 25 * level, 98 - 18 * level, 48 - 14 * level])
    picture = base * (1.08 - 0.42 * radius[..., None] ** 2)
    picture *= 1 + 0.05 * canvas.texture(9, 4)[..., None]
    side = random.choice([-1, 1])
    disc = (side * canvas.vary(0.42, 0.08), canvas.vary(0, 0) - 0.02)

    def mix(mask: np.ndarray, colour: tuple[int, int, int], opacity: float = 1.0) -> None:
        picture[:] = picture + (mask * opacity)[..., None] * (np.array(colour) - picture)

    mix(blurred(canvas.ellipse(-side * 0.16, 0.03, 0.16, 0.15), 16), (120, 42, 20), 0.75)
    mix(blurred(canvas.ellipse(*disc, 0.125, 0.14, wobble=0.004), 3), (250, 205, 130), 0.95)
    mix(blurred(canvas.ellipse(disc[0], disc[1], 0.055, 0.065), 3), (255, 238, 190), 0.9)
    for width, colour in ((1.0, (122, 22, 16)), (0.6, (165, 48, 26))):
        lines = []
        for way in (-1, 1):
            for bow in (0.42, 0.62, -0.35):
                arch = [disc, (disc[0] - side * 0.12, disc[1] + way * abs(bow) * 0.6)]
                for i in range(2, 6):
                    x = disc[0] - side * np.sign(bow) * (0.1 + 0.2 * i) + random.normal(0, 0.025)
                    y = way * (abs(bow) * (0.75 + 0.12 * i) - 0.016 * i * i) + random.normal(
                        0, 0.02
                    )
                    arch.append((x, y))
                    twig = [
                        (x, y),
                        (x - side * 0.1, y - way * 0.09),
                        (x - side * 0.17, y - way * 0.13),
                    ]
                    lines.append((twig, 0.016 * width, 0.004))
                lines.append((arch, 0.04 * width, 0.012 * width))
        mix(blurred(canvas.strokes(lines), 0.9), colour, 0.85)
    if lesion:
        spots = random.normal((-side * 0.2, 0.1), 0.22, (26, 2))
        for index, colour in enumerate(((235, 205, 110), (105, 14, 10))):
            dots = [([tuple(spot)] * 2, r, r) for spot in spots[index::2] for r in (0.03,)]
            mix(blurred(canvas.strokes(dots), 0.9), colour, 0.9)
    picture *= np.clip((0.86 - radius) * 60, 0, 1)[..., None]
    return np.clip(picture + canvas.noise(3)[..., None], 0, 255).astype(np.uint8)
