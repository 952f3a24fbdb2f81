"""Cross sections: CT in Hounsfield units, MR in arbitrary units."""

from __future__ import annotations

import numpy as np

from tests.phantoms.drawing import Canvas, blurred

Picture = np.ndarray  # values, float32 [rows, columns]
_SIZE = 320
#                       air   scalp  bone  marrow  grey white  fluid lesion
_HEAD_TISSUES = {
    "CT": dict(zip("asbmgwfl", (-1000, 0, 1150, 700, 39, 29, 6, 66), strict=True)),
    "T1": dict(zip("asbmgwfl", (12, 620, 60, 330, 330, 470, 90, 200), strict=True)),
    "T2": dict(zip("asbmgwfl", (12, 380, 40, 260, 430, 300, 900, 720), strict=True)),
}


def head(random: np.random.Generator, level: float, weighting: str, lesion: bool) -> Picture:
    """Return an axial head; `level` from -1 (basal ganglia) to 1 (near the vertex)."""
    tissue = _HEAD_TISSUES[weighting]
    canvas = Canvas(random, _SIZE, _SIZE, tissue["a"])
    size = np.sqrt(1 - (0.3 + 0.28 * level) ** 2)
    width, height = 0.66 * size, 0.84 * size
    for growth, value in ((0.07, "s"), (0.02, "b"), (-0.012, "m"), (-0.03, "b"), (-0.06, "f")):
        canvas.paint(canvas.ellipse(0, 0, width + growth, height + growth), tissue[value])
    brain = canvas.ellipse(0, 0, width - 0.075, height - 0.075, wobble=0.004)
    canvas.paint(brain, tissue["g"])
    core = canvas.ellipse(0, 0, width - 0.13, height - 0.13, wobble=0.008)
    canvas.paint(
        np.clip((blurred(core, 3) - 0.4 + 0.1 * canvas.texture(18, 2)) * 5, 0, 1), tissue["w"]
    )
    angles = np.linspace(0, 2 * np.pi, 38, endpoint=False) + random.uniform(-0.06, 0.06, 38)
    folds = [_fold(random, angle, width - 0.075, height - 0.075) for angle in angles]
    ribbon = canvas.strokes([(points, 0.085, 0.06) for points in folds])
    canvas.paint(blurred(ribbon, 1) * brain, tissue["g"], 0.9)
    canvas.paint(
        canvas.strokes([(points, 0.022, 0.008) for points in folds]) * brain, tissue["f"], 0.6
    )
    wide = canvas.vary(1 - 0.35 * max(level, 0), 0.3)
    for side in (-1, 1):
        if level < 0.15:  # deep grey matter beside the ventricles
            canvas.paint(canvas.ellipse(side * 0.22, -0.02, 0.08, 0.19, side * 12), tissue["g"])
            canvas.paint(canvas.ellipse(side * 0.09, 0.1, 0.065, 0.11, side * -20), tissue["g"])
        horns = [(0.15, -0.3), (0.08, -0.18), (0.07, 0.02), (0.15, 0.2), (0.19, 0.34)]
        if level < 0.5:
            line = [(side * x, y * (1 - 0.3 * max(level, 0))) for x, y in horns]
            canvas.paint(canvas.stroke(line, 0.05 * wide, 0.075 * wide), tissue["f"])
    if level < 0:
        canvas.paint(canvas.stroke([(0, -0.05), (0, 0.14)], 0.022), tissue["f"])
    canvas.paint(canvas.stroke([(0, -height), (0, -height + 0.3)], 0.014), tissue["f"], 0.8)
    canvas.paint(canvas.stroke([(0, height - 0.3), (0, height)], 0.014), tissue["f"], 0.8)
    if lesion:
        x, y = random.choice([-1, 1]) * canvas.vary(0.32), canvas.vary(-0.1, 2)
        halo = blurred(canvas.ellipse(x, y, 0.18, 0.16, wobble=0.015), 4)
        swelling = tissue["f"] if weighting == "T2" else tissue["w"] * 0.6
        canvas.paint(halo, swelling, 0.6)
        canvas.paint(canvas.ellipse(x, y, 0.1, 0.085, 30, wobble=0.009), tissue["l"])
    if weighting == "CT":
        return blurred(canvas.values, 0.8) + canvas.noise(4, 0.9)
    shading = 1 + 0.08 * blurred(canvas.texture(2, 1), 20)
    return np.abs(blurred(canvas.values, 0.7) * shading + canvas.noise(16, 0.5))


def _fold(
    random: np.random.Generator, angle: float, width: float, height: float
) -> list[tuple[float, float]]:
    """Return the line of a sulcus from the surface of the brain inwards."""
    depth = random.uniform(0.06, 0.2)
    bend = random.normal(0, 0.07, 2)
    return [
        ((width - d) * np.sin(angle + b), -(height - d) * np.cos(angle + b))
        for d, b in ((-0.01, 0), (depth / 2, bend[0]), (depth, bend[1]))
    ]


def chest(random: np.random.Generator, level: float, lesion: bool) -> Picture:
    """Return an axial chest; `level` from -1 (diaphragm) to 1 (arch of the aorta)."""
    canvas = _trunk(random, 0.92, 0.64, fat=0.05)
    grow = 1 - 0.18 * max(level, 0)
    for side in (-1, 1):
        lung = [(0.12, -0.42), (0.42, -0.44), (0.68, -0.2), (0.72, 0.12), (0.52, 0.42)]
        lung += [(0.24, 0.42), (0.15, 0.16), (0.2 + 0.1 * (side > 0), -0.1)]
        inside = canvas.outline([(side * x * grow, y) for x, y in lung], 0.008)
        canvas.paint(inside, -860 + 40 * canvas.texture(9))
        vessels = [
            line for _ in range(17) for line in _branches(random, (side * 0.17, 0.02), side, 0.034)
        ]
        canvas.paint(canvas.strokes(vessels) * inside, 20, 0.85)
        if lesion and side == 1:
            spot = (side * canvas.vary(0.45), canvas.vary(0.1, 1.5))
            canvas.paint(canvas.ellipse(*spot, 0.07, 0.065, wobble=0.007) * inside, 35)
    if level < 0.35:
        chambers = [(-0.12, -0.28), (0.1, -0.36), (0.34, -0.2), (0.34, 0.04), (0.1, 0.14)]
        canvas.paint(canvas.outline([*chambers, (-0.14, 0.02)], 0.015), 45)
        canvas.paint(canvas.ellipse(0.2, -0.1, 0.11, 0.14, 40, wobble=0.01), 150)
        canvas.paint(canvas.ellipse(-0.03, -0.16, 0.11, 0.12, 0, wobble=0.01), 165)
    else:
        canvas.paint(
            canvas.outline([(-0.14, -0.3), (0.14, -0.3), (0.16, 0.12), (-0.14, 0.12)]), -60
        )
        canvas.paint(canvas.stroke([(-0.06, -0.2), (0.06, -0.08), (0.11, 0.12)], 0.13), 175)
        canvas.paint(canvas.ellipse(-0.11, -0.1, 0.05, 0.06), 160)
    canvas.paint(canvas.ellipse(-0.01, 0.09, 0.045, 0.05), -980)
    canvas.paint(canvas.ellipse(0.12, 0.2, 0.07, 0.07), 170)
    _spine(canvas, 0.34)
    ribs = []
    for x, y, turn in ((0.79, 0.0, 95), (0.72, 0.27, 60), (0.56, 0.46, 35), (0.66, -0.3, 125)):
        slope = np.radians(turn)
        along = 0.07 * np.array([np.cos(slope), -np.sin(slope)])
        for side in (-1, 1):
            ends = [(side * (x + s * along[0]), y + s * along[1]) for s in (-1, 0, 1)]
            ribs.append((ends, 0.05, 0.045))
    canvas.paint(canvas.strokes(ribs), 650)
    canvas.paint(canvas.strokes([(p, w * 0.45, e * 0.45) for p, w, e in ribs]), 150)
    canvas.paint(canvas.ellipse(0, -0.5, 0.1, 0.035), 420)
    return blurred(canvas.values, 0.8) + canvas.noise(15)


def abdomen(random: np.random.Generator, level: float, lesion: bool) -> Picture:
    """Return an axial abdomen with contrast; `level` from -1 (kidneys) to 1 (dome of the liver)."""
    canvas = _trunk(random, 0.94, 0.66, fat=canvas_fat(random))
    cavity = canvas.ellipse(0, -0.06, 0.74, 0.47, wobble=0.01)
    canvas.paint(cavity, -95)
    liver = [
        (-0.68, -0.2),
        (-0.4, -0.44),
        (0.02, -0.44),
        (0.22 + 0.2 * level, -0.3),
        (-0.08, -0.14),
    ]
    liver += [(-0.2, 0.06), (-0.34, 0.3), (-0.6, 0.22), (-0.71, 0.02)]
    parenchyma = canvas.outline(liver, 0.012)
    canvas.paint(parenchyma, canvas.vary(108) + 4 * canvas.texture(16))
    veins = [line for _ in range(7) for line in _branches(random, (-0.2, -0.12), -1, 0.05)]
    canvas.paint(canvas.strokes(veins) * parenchyma, 150, 0.7)
    if lesion:
        spot = (-0.48 + canvas.vary(0, 0), canvas.vary(-0.05, 2))
        canvas.paint(canvas.ellipse(*spot, 0.1, 0.09, wobble=0.015), 48)
        canvas.paint(canvas.ellipse(*spot, 0.05, 0.04, wobble=0.01), 22)
    spleen = [(0.6, -0.06), (0.72, 0.1), (0.62, 0.33), (0.5, 0.36), (0.54, 0.14)]
    canvas.paint(canvas.outline(spleen, 0.012), canvas.vary(120, 0.05))
    stomach = canvas.ellipse(0.38, -0.22, 0.22, 0.16, -25, wobble=0.02)
    canvas.paint(stomach, 25)
    canvas.paint(stomach * (canvas.ellipse(0.36, -0.34, 0.3, 0.1) > 0.5), -950)
    for side in (-1, 1):
        if level < 0.4:
            canvas.paint(canvas.ellipse(side * 0.37, 0.24, 0.11, 0.15, side * -25, 0.006), 175)
            canvas.paint(canvas.ellipse(side * 0.33, 0.24, 0.05, 0.08, side * -25, 0.01), 60)
        canvas.paint(canvas.ellipse(side * 0.22, 0.37, 0.1, 0.09), 55)  # psoas
    for _ in range(7):
        at = (random.uniform(-0.05, 0.45), random.uniform(-0.1, 0.2))
        loop = canvas.ellipse(*at, 0.075, 0.055, random.uniform(0, 180), wobble=0.012)
        canvas.paint(loop, canvas.vary(70, 0.4))
        if random.random() < 0.25:
            canvas.paint(canvas.ellipse(at[0], at[1] - 0.02, 0.04, 0.025), -800)
    canvas.paint(canvas.stroke([(0.3, 0.06), (0.1, -0.02), (-0.08, 0.06)], 0.06, 0.09), 95)
    canvas.paint(canvas.ellipse(0.05, 0.2, 0.062, 0.062), 210)
    canvas.paint(canvas.ellipse(-0.1, 0.19, 0.075, 0.055), 150)
    _spine(canvas, 0.36)
    return blurred(canvas.values, 0.8) + canvas.noise(11)


def pelvis(random: np.random.Generator, level: float, lesion: bool) -> Picture:
    """Return an axial pelvis; `level` from -1 (hip joints) to 1 (wings of the ilium)."""
    canvas = _trunk(random, 0.95, 0.6, fat=canvas_fat(random))
    canvas.paint(canvas.ellipse(0, -0.04, 0.42, 0.34, wobble=0.01), -90)
    bladder = canvas.ellipse(0, -0.16, 0.22, 0.15 - 0.04 * level, wobble=0.01)
    for side in (-1, 1):
        if level < 0:
            shapes = [(canvas.ellipse(side * 0.52, 0.02, 0.14, 0.14), 1.0)]
            shapes += [(canvas.stroke([(side * 0.52, 0.02), (side * 0.74, 0.1)], 0.12, 0.16), 1.0)]
            wall = [(side * 0.4, -0.24), (side * 0.35, 0.02), (side * 0.42, 0.24)]
            shapes += [(canvas.stroke(wall, 0.08, 0.1), 0.8)]
        else:
            wing = [(side * 0.66, -0.3), (side * 0.52, -0.02), (side * 0.28, 0.28)]
            shapes = [(canvas.stroke(wing, 0.07, 0.11), 1.0)]
        for shape, share in shapes:
            canvas.paint(shape, 850 * share)
            canvas.paint(np.clip(blurred(shape, 2.5) * 2 - 1, 0, 1), 240 + 60 * canvas.texture(30))
        canvas.paint(canvas.ellipse(side * 0.35, -0.3, 0.035, 0.035), 140)
    canvas.paint(bladder, 12)
    if lesion:
        canvas.paint(canvas.ellipse(0.12, -0.1, 0.06, 0.045, 30, 0.01), 75)
    canvas.paint(canvas.ellipse(0, 0.1, 0.15, 0.09, 0, 0.015), 60)
    canvas.paint(canvas.ellipse(0.01, 0.22, 0.085, 0.07, 0, 0.012), 45)
    canvas.paint(canvas.ellipse(0.01, 0.21, 0.035, 0.03), -700)
    canvas.paint(canvas.ellipse(0, 0.4, 0.11, 0.06, 0, 0.01), 520)
    canvas.paint(canvas.ellipse(0, 0.4, 0.08, 0.035, 0, 0.01), 230)
    return blurred(canvas.values, 0.8) + canvas.noise(12)


def lumbar_spine(random: np.random.Generator, level: float, lesion: bool) -> Picture:
    """Return a sagittal T2 weighted lumbar spine; `level` moves it off the middle."""
    canvas = Canvas(random, _SIZE, _SIZE, 14, tilt_degrees=6)
    back = [
        (-1.3, -1.3),
        (0.52, -1.3),
        (0.6, -0.5),
        (0.5, 0.1),
        (0.72, 0.7),
        (0.6, 1.3),
        (-1.3, 1.3),
    ]
    canvas.paint(canvas.outline(back), 190 + 40 * canvas.texture(7))
    fat = [(0.46, -1.3), (0.46, -0.4), (0.38, 0.1), (0.56, 0.7), (0.5, 1.3)]
    canvas.paint(canvas.stroke(fat, 0.14), 700)
    muscle = [(0.3, -1.3), (0.28, -0.3), (0.22, 0.2), (0.36, 0.75)]
    canvas.paint(canvas.stroke(muscle, 0.2), 240 + 110 * canvas.texture(14))
    heights = np.linspace(-1.02, 0.62, 7)
    bend = 0.16 * np.cos(np.linspace(-1.6, 1.9, 7)) * -1
    canal = [
        (b + 0.155 + 0.04 * (i == 6), y) for i, (b, y) in enumerate(zip(bend, heights, strict=True))
    ]
    canal.append((0.24, 0.95))
    canvas.paint(canvas.stroke(canal, 0.13, 0.07), 120)
    canvas.paint(canvas.stroke(canal, 0.1, 0.05), 900 - 250 * abs(level))
    canvas.paint(canvas.stroke(canal[:3], 0.05, 0.02), 380)
    roots = [[(x + d, y) for x, y in canal[2:6]] for d in (0.0, 0.018, 0.03)]
    canvas.paint(canvas.strokes([(r, 0.008, 0.006) for r in roots]), 420)
    worn = int(random.integers(3, 6))
    for i in range(6):
        x, y = (bend[i] + bend[i + 1]) / 2 - 0.06, (heights[i] + heights[i + 1]) / 2
        thin = 0.6 if lesion and i == worn else 1.0
        canvas.paint(canvas.ellipse(x, y, 0.18, 0.048 * thin, 6 * (i - 3)), 130)
        if thin == 1:
            canvas.paint(canvas.ellipse(x, y, 0.12, 0.024, 6 * (i - 3)), 620)
        else:
            canvas.paint(canvas.ellipse(x + 0.2, y, 0.05, 0.035), 110)
    for i in range(7):
        x, y = bend[i] - 0.07, heights[i]
        tall, deep, lean = 0.108, 0.165, 0.05 * (i - 3)
        corners = [(-deep, -tall), (0, -tall * 0.85), (deep, -tall), (deep * 0.9, 0)]
        corners += [(deep, tall), (0, tall * 0.85), (-deep, tall), (-deep * 0.9, 0)]
        body = canvas.outline([(x + a - b * lean, y + b + a * lean) for a, b in corners])
        canvas.paint(body, 110)
        canvas.paint(np.clip(blurred(body, 1.6) * 3 - 2, 0, 1), 400 + 40 * canvas.texture(20))
        spike = [(x + 0.32, y + 0.03), (x + 0.43, y + 0.09)]
        canvas.paint(canvas.stroke(spike, 0.07, 0.09), 330)
    sacrum = [(-0.02, 0.7), (0.12, 0.86), (0.26, 1.02), (0.34, 1.2)]
    canvas.paint(canvas.stroke(sacrum, 0.2, 0.1), 360 + 40 * canvas.texture(20))
    shading = 0.65 + 0.5 * np.linspace(0, 1, _SIZE)[None, :]
    return np.abs(blurred(canvas.values, 0.8) * shading + canvas.noise(18, 0.6))


def canvas_fat(random: np.random.Generator) -> float:
    """Return how thick the fat under the skin is."""
    return float(random.uniform(0.06, 0.15))


def _trunk(random: np.random.Generator, width: float, height: float, fat: float) -> Canvas:
    canvas = Canvas(random, _SIZE, _SIZE, -1000, tilt_degrees=3)
    table = [(-1.2, height + 0.16), (0, height + 0.28), (1.2, height + 0.16)]
    canvas.paint(canvas.stroke(table, 0.03), -500)
    canvas.paint(canvas.ellipse(0, 0, width, height), 5)
    canvas.paint(canvas.ellipse(0, 0, width - 0.015, height - 0.015), -105)
    canvas.paint(canvas.ellipse(0, 0, width - fat, height - fat, wobble=0.008), 52)
    return canvas


def _spine(canvas: Canvas, y: float) -> None:
    body = canvas.ellipse(0, y, 0.125, 0.1, wobble=0.004)
    arch = canvas.strokes(
        [
            ([(side * 0.09, y + 0.06), (side * 0.11, y + 0.14), (0, y + 0.2)], 0.045, 0.04)
            for side in (-1, 1)
        ]
        + [([(0, y + 0.2), (0, y + 0.29)], 0.05, 0.03)]
        + [([(side * 0.1, y + 0.12), (side * 0.25, y + 0.12)], 0.06, 0.04) for side in (-1, 1)]
    )
    canvas.paint(arch, 480)
    canvas.paint(body, 520)
    canvas.paint(np.clip(blurred(body, 2) * 2.4 - 1.4, 0, 1), 210 + 40 * canvas.texture(30))
    canvas.paint(canvas.ellipse(0, y + 0.13, 0.055, 0.045), 30)


def _branches(
    random: np.random.Generator, start: tuple[float, float], side: int, width: float
) -> list[tuple]:
    """Return a vessel that leaves `start` outwards and forks once."""
    angle = random.uniform(-1.5, 1.5)
    points, lines = [start], []
    for _ in range(4):
        angle += random.normal(0, 0.25)
        x, y = points[-1]
        reach = random.uniform(0.07, 0.16)
        points.append((x + side * reach * np.cos(angle), y + reach * np.sin(angle)))
    lines.append((points, width * random.uniform(0.5, 1), 0.006))
    fork, turned = points[2], angle + random.choice([-0.7, 0.7])
    ends = [
        (fork[0] + side * r * np.cos(turned), fork[1] + r * np.sin(turned)) for r in (0, 0.1, 0.2)
    ]
    lines.append((ends, width * 0.4, 0.005))
    return lines
