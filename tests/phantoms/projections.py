"""Radiographs: values grow with what the X-rays passed through."""

from __future__ import annotations

import numpy as np

from tests.phantoms.drawing import Canvas, Point, blurred

Picture = np.ndarray  # values, float32 [rows, columns]


def chest(random: np.random.Generator, level: float, lesion: bool) -> Picture:
    """Return a chest in posterior-anterior projection; `level` is how deep the breath was."""
    canvas = Canvas(random, 440, 400, 150, tilt_degrees=2)
    trunk = [
        (-0.3, -1.2),
        (-0.42, -0.98),
        (-0.95, -0.74),
        (-1.12, -0.2),
        (-0.86, 0.2),
        (-0.84, 1.3),
    ]
    body = canvas.outline(trunk + [(-x, y) for x, y in reversed(trunk)])
    canvas.add(blurred(body, 5), 1900)
    base = 0.62 + 0.06 * level
    air = np.zeros_like(body)
    for side in (-1, 1):
        inner = 0.2 if side < 0 else 0.24
        lung = [(0.2, -0.8), (0.4, -0.78), (0.64, -0.42), (0.76, 0.12), (0.79, base + 0.1)]
        lung += [(0.52, base - 0.12), (inner, base - 0.02), (inner - 0.02, 0.1), (0.15, -0.4)]
        air = np.maximum(air, canvas.outline([(side * x, y) for x, y in lung], 0.006))
    canvas.add(blurred(air, 2.5), -1150)
    canvas.add(
        blurred(canvas.outline([(-1, 0.8), (0, 0.62), (1, 0.8), (1, 1.5), (-1, 1.5)]), 9), 300
    )
    wide = canvas.vary(1, 0.12)
    heart = [
        (-0.17, -0.05),
        (0.1, -0.1),
        (0.3 * wide, 0.16),
        (0.5 * wide, 0.46),
        (0.42 * wide, 0.62),
    ]
    heart += [(0.1, 0.68), (-0.2 * wide, 0.6), (-0.26 * wide, 0.34)]
    shade = blurred(canvas.outline(heart, 0.006), 3) * (0.35 + 0.65 * blurred(air, 2.5)) * 900
    middle = [(0.01, -1.1), (0.02, -0.5), (0.06, -0.3), (0.03, 0.7), (0, 1.2)]
    canvas.add(np.maximum(shade, 560 * blurred(canvas.stroke(middle, 0.3), 5)), 1)
    canvas.add(blurred(canvas.stroke([(0.08, -0.42), (0.17, -0.34), (0.18, -0.2)], 0.12), 2.5), 350)
    canvas.add(blurred(canvas.stroke([(-0.02, -1.1), (-0.01, -0.25)], 0.085), 2), -330)
    column = [([(-0.05, y), (0.05, y)], 0.09, 0.09) for y in np.linspace(-0.95, 1.0, 15)]
    canvas.add(blurred(canvas.strokes(column), 1.2), 130)
    for side in (-1, 1):
        _ribs(canvas, side)
        collar = [(side * 0.06, -0.62), (side * 0.34, -0.74), (side * 0.74, -0.83)]
        canvas.add(blurred(canvas.stroke(collar, 0.07), 1), 330)
        blade = [(side * x, y) for x, y in ((0.86, -0.66), (0.62, -0.5), (0.7, 0.0), (0.95, -0.35))]
        canvas.add(blurred(canvas.outline(blade), 2), 200)
        canvas.add(blurred(canvas.stroke([(side * 0.98, -0.6), (side * 1.12, 0.2)], 0.16), 2), 420)
        start = (side * 0.2, 0.02)
        vessels = [line for _ in range(16) for line in _vessel(random, start, side)]
        canvas.add(blurred(canvas.strokes(vessels), 1.2) * air, 330)
    canvas.add(blurred(canvas.ellipse(0.36, base + 0.12, 0.14, 0.07, -10), 3), -420)
    if lesion:
        x, y = random.choice([-1, 1]) * canvas.vary(0.46), canvas.vary(-0.1, 3)
        cloud = blurred(canvas.ellipse(x, y + 0.2, 0.2, 0.16, wobble=0.03), 8)
        canvas.add(cloud * (1 + 0.5 * canvas.texture(14)), 520)
    exposed = _exposed(canvas, "R" if random.random() < 0.5 else "L", 12, at=(-0.8, -0.88))
    return exposed[30:330, 30:370]  # collimated to the lungs


def _ribs(canvas: Canvas, side: int) -> None:
    back, front = [], []
    for number in range(9):
        y = -0.86 + 0.165 * number
        reach = 0.36 + 0.45 * np.sqrt((number + 0.6) / 9.6)
        line = [(0.06, y), (0.45 * reach, y - 0.05), (reach, y + 0.2), (reach + 0.02, y + 0.34)]
        back.append([(side * u, v) for u, v in line])
        line = [(reach + 0.02, y + 0.34), (0.75 * reach, y + 0.52), (0.45 * reach, y + 0.6)]
        front.append([(side * u, v) for u, v in line])
    for ribs, amount in ((back, 270), (front, 130)):
        whole = canvas.strokes([(rib, 0.062, 0.062) for rib in ribs])
        hollow = canvas.strokes([(rib, 0.035, 0.035) for rib in ribs])
        canvas.add(blurred(whole - 0.55 * hollow, 0.8), amount)


def _vessel(random: np.random.Generator, start: Point, side: int) -> list[tuple]:
    angle = random.uniform(-1.4, 1.5)
    points = [start]
    for _ in range(4):
        angle += random.normal(0, 0.22)
        x, y = points[-1]
        points.append((x + side * 0.12 * np.cos(angle), y + 0.12 * np.sin(angle)))
    turned = angle + random.choice([-0.6, 0.6])
    x, y = points[2]
    fork = [(x + side * r * np.cos(turned), y + r * np.sin(turned)) for r in (0, 0.1, 0.2)]
    return [(points, random.uniform(0.02, 0.045), 0.006), (fork, 0.018, 0.005)]


def _bone(canvas: Canvas, start: Point, stop: Point, width: float, amount: float) -> None:
    """Add a long bone: dense shell, spongy ends, marrow in the shaft."""
    (x, y), (u, v) = start, stop
    middle = ((x + u) / 2, (y + v) / 2)
    shaft = canvas.stroke([start, middle, stop], width * 0.74)
    ends = np.zeros_like(shaft)
    for near, far in ((start, stop), (stop, start)):
        inner = (near[0] + 0.16 * (far[0] - near[0]), near[1] + 0.16 * (far[1] - near[1]))
        ends = np.maximum(ends, canvas.stroke([near, inner], width, width * 0.72))
    shape = np.maximum(shaft, ends)
    inside = np.clip(blurred(shape, 1.3) * 3 - 2, 0, 1)
    hollow = canvas.stroke([start, middle, stop], width * 0.4)
    canvas.add(shape, amount)
    canvas.add(inside * shape, -0.38 * amount + 0.07 * amount * canvas.texture(40, 2))
    canvas.add(blurred(hollow * (1 - ends), 1.5), -0.22 * amount)


def hand(random: np.random.Generator, level: float, lesion: bool) -> Picture:
    """Return a hand; `level` spreads the fingers, `lesion` breaks a metacarpal."""
    canvas = Canvas(random, 440, 340, 120, tilt_degrees=7)
    spread = canvas.vary(0.13 + 0.03 * level, 0.25)
    bases = [(-0.42, 0.42), (-0.2, 0.24), (-0.02, 0.22), (0.15, 0.27), (0.31, 0.36)]
    lengths = [(0.36, 0.3, 0.24, 0.0), (0.46, 0.31, 0.2, 0.14), (0.46, 0.34, 0.23, 0.15)]
    lengths += [(0.42, 0.31, 0.22, 0.15), (0.38, 0.25, 0.15, 0.13)]
    angles = [-0.72, *(spread * k for k in (-1.1, -0.1, 0.9, 2.0))]
    wide = [0.125, 0.118, 0.12, 0.11, 0.1]
    flesh, bones = [([(0, 1.5), (0, 0.9), (0, 0.5)], 0.62, 0.8)], []
    for start, parts, angle, width in zip(bases, lengths, angles, wide, strict=True):
        way = np.array([np.sin(angle), -np.cos(angle)])
        line = [np.array(start)]
        for number, part in enumerate(part for part in parts if part):
            line.append(line[-1] + part * way)
            joint = 0.018 * way
            bones.append((line[-2] + joint, line[-1] - joint, width * 0.86**number))
        flesh.append((line, 0.26, 0.17))
    palm = canvas.outline(
        [(-0.5, 0.5), (-0.36, 0.0), (0.1, -0.2), (0.44, 0.0), (0.42, 0.6), (0, 0.8)]
    )
    canvas.add(blurred(np.maximum(canvas.strokes(flesh), palm), 4), 1000)
    for start, stop, width in bones:
        _bone(canvas, start, stop, width, 1250)
    for x, y, size in (
        (-0.3, 0.5, 0.1), (-0.15, 0.41, 0.085), (0.01, 0.4, 0.1), (0.2, 0.46, 0.095),
        (-0.18, 0.6, 0.11), (0.02, 0.57, 0.095), (0.18, 0.62, 0.09),
    ):  # fmt: skip
        carpal = canvas.ellipse(x, y, size, size * 0.85, random.uniform(0, 90), 0.006)
        canvas.add(carpal, 720)
        canvas.add(np.clip(blurred(carpal, 1.3) * 3 - 2, 0, 1), -200)
    _bone(canvas, (-0.13, 0.78), (-0.1, 1.7), 0.3, 1250)
    _bone(canvas, (0.2, 0.82), (0.15, 1.7), 0.19, 1150)
    if lesion:
        canvas.add(
            blurred(canvas.stroke([(0.22, 0.09), (0.3, 0.11), (0.42, 0.06)], 0.02), 0.8), -750
        )
    return _exposed(canvas, "R", 9)


def knee(random: np.random.Generator, level: float, lesion: bool) -> Picture:
    """Return a knee from the front; `level` opens the joint, `lesion` narrows it on one side."""
    canvas = Canvas(random, 440, 340, 110, tilt_degrees=5)
    leg = [(-0.62, -1.5), (-0.56, -0.3), (-0.5, 0.3), (-0.52, 1.5), (0.52, 1.5), (0.52, 0.3)]
    canvas.add(blurred(canvas.outline([*leg, (0.58, -0.3), (0.66, -1.5)]), 6), 1150)
    gap = 0.035 + 0.012 * level
    femur = [(-0.17, -1.6), (-0.17, -0.7), (-0.4, -0.34), (-0.42, -0.12), (-0.24, -0.01)]
    femur += [(0, -0.12), (0.24, -0.01), (0.42, -0.12), (0.4, -0.34), (0.17, -0.7), (0.17, -1.6)]
    tibia = [(-0.42, gap + 0.06), (-0.2, gap + 0.035), (-0.05, gap - 0.03), (0.05, gap - 0.03)]
    tibia += [(0.2, gap + 0.035), (0.42, gap + 0.06), (0.4, 0.26), (0.17, 0.66), (0.15, 1.7)]
    tibia += [(-0.15, 1.7), (-0.17, 0.66), (-0.4, 0.26)]
    if lesion:
        tibia[1] = (-0.2, gap - 0.02)
    for outline in (femur, tibia):
        bone = canvas.outline(outline, 0.004)
        shell = bone - np.clip(blurred(bone, 2.2) * 3 - 2, 0, 1)
        canvas.add(bone, 780 + 60 * canvas.texture(45, 2))
        canvas.add(np.clip(shell, 0, 1), 420)
    marrow = canvas.strokes(
        [([(0, -1.7), (0, -0.75)], 0.17, 0.1), ([(0, 0.7), (0, 1.8)], 0.1, 0.15)]
    )
    canvas.add(blurred(marrow, 4), -330)
    _bone(canvas, (0.42, 0.3), (0.36, 1.8), 0.15, 620)
    canvas.add(blurred(canvas.ellipse(0.02, -0.32, 0.23, 0.24, wobble=0.008), 1.5), 260)
    return _exposed(canvas, "L", 9)


def breast(random: np.random.Generator, level: float, lesion: bool) -> Picture:
    """Return a mammogram in mediolateral oblique projection; `level` is how dense the gland is."""
    canvas = Canvas(random, 440, 340, 40, tilt_degrees=3)
    edge = [
        (-1.4, -1.5),
        (-0.5, -1.45),
        (-0.15, -0.9),
        (0.3, -0.35),
        (0.56, 0.08),
        (0.54, 0.4),
        (0.24, 0.76),
    ]
    inside = canvas.outline([*edge, (-0.4, 0.98), (-1.1, 1.15), (-1.6, 1.3)], 0.01)
    canvas.add(blurred(inside, 3), 700)
    canvas.add(np.clip(blurred(inside, 14), 0.5, 1) * inside, 500)
    gland = blurred(canvas.ellipse(-0.2, 0.12, 0.58, 0.56, 15, wobble=0.05), 14)
    canvas.add(gland * inside, 520 + 220 * level)
    canvas.add(inside * (0.35 + gland), 230 * np.clip(canvas.texture(7, 5), -0.6, 1.6))
    ducts = []
    for _ in range(60):
        angle, start = random.uniform(-0.9, 0.9), random.uniform(0.1, 0.5)
        ray = [
            (0.56 - r * np.cos(angle + 0.1 * i), 0.22 + r * np.sin(angle + 0.1 * i))
            for i, r in enumerate((start, start + 0.2, start + 0.4))
        ]
        ducts.append((ray, 0.012, 0.005))
    canvas.add(blurred(canvas.strokes(ducts), 0.8) * inside, 150)
    muscle = blurred(
        canvas.outline([(-1.5, -1.6), (-0.5, -1.5), (-0.75, -0.5), (-1.1, 0.55), (-1.6, 1)]), 3
    )
    canvas.add(muscle, 900)
    if lesion:
        x, y = canvas.vary(-0.1, 1), canvas.vary(0.15, 1)
        rays = [
            ([(x, y), (x + 0.17 * np.cos(a), y + 0.17 * np.sin(a))], 0.02, 0.004)
            for a in random.uniform(0, 2 * np.pi, 14)
        ]
        canvas.add(blurred(canvas.ellipse(x, y, 0.085, 0.075, wobble=0.01), 2), 950)
        canvas.add(blurred(canvas.strokes(rays), 0.7), 330)
        specks = [([(x + a, y + b)] * 2, 0.013, 0.013) for a, b in random.normal(0, 0.07, (12, 2))]
        canvas.add(canvas.strokes(specks), 700)
    return _exposed(canvas, "R MLO", 14, at=(0.42, -1.15))


def _exposed(canvas: Canvas, marker: str, grain: float, at: Point | None = None) -> Picture:
    """Add scatter, noise and the side marker."""
    scattered = 0.86 * blurred(canvas.values, 0.7) + 0.14 * blurred(canvas.values, 22)
    canvas.values = scattered + canvas.noise(grain, 0.6)
    half = canvas.rows / canvas.columns
    x, y = at or (-0.9, -half + 0.08)
    canvas.write(x, y, marker, 0.12, 3900)
    return np.clip(canvas.values, 0, 4095)
