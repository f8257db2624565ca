"""Make synthetic scenes: textured shapes of six classes on a busy background, with exact boxes.

The demo and the tests use them. Each class has shades of a hue of its own, and everything that is not an object is
pale, so that a small network learns the classes in minutes.

The geometry of a scene is sampled first, as numbers and masks, and then painted. A scene depends only on the seed, its
index and its size (and on the versions of numpy and Pillow), so the first scenes of a seed do not depend on how many
are made.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int8, Int16, UInt8
from PIL import Image, ImageDraw, ImageFilter

from multibox.boxes import box_iou
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.images import to_array

CLASS_NAMES = ("circle", "rectangle", "triangle", "star", "ring", "cross")

OBJECT_COUNTS = (0.05, 0.13, 0.17, 0.17, 0.15, 0.12, 0.09, 0.07, 0.05)
"""Probability of 0 to 8 objects in a scene. A scene has fewer if there is no room for them."""

SIZES = (0.088, 0.8)
"""Smallest and largest value of the larger side of an object's box, as a fraction of the image's shorter side."""

SMALLEST = 20.0
"""Smallest value of the larger side of an object's box in pixels; a smaller star is a blot."""

LEAST_VISIBLE = 0.75
"""Smallest fraction of each object's pixels that stays visible."""

LARGEST_OVERLAP = 0.25
"""Largest IoU of two boxes. Non-maximum suppression takes boxes for the same object only above it."""

FINE = 4
"""Masks are drawn at this multiple of their size, for smooth edges and boxes exact to a quarter of a pixel."""

Outline = Float[np.ndarray, "points 2"]
Texture = Literal["plain", "stripes", "dots", "checker", "gradient", "blotches"]
TEXTURES: tuple[Texture, ...] = ("plain", "stripes", "dots", "checker", "gradient", "blotches")
Color = tuple[int, int, int]
Canvas = Image.Image


@dataclass(frozen=True, eq=False)
class _Object:
    """One object at its place in the scene.

    Attributes:
        label: Index into `CLASS_NAMES`.
        outlines: The shape in pixels of the image; the second outline, if any, is a hole.
        box: Extent of the object's own mask inside the image, in pixels of the image.
        corner: The `(x, y)` of the part of the image that `coverage` and `solid` describe.
        coverage: How much of each pixel the object covers, 0 to 255.
        solid: The pixels of which the object covers at least a half.
    """

    label: int
    outlines: tuple[Outline, ...]
    box: tuple[float, float, float, float]
    corner: tuple[int, int]
    coverage: Image.Image
    solid: Bool[np.ndarray, "height width"]


def synthetic_scenes(count: int, *, seed: int, height: int = 256, width: int = 256) -> Dataset:
    """Returns the first `count` scenes of a seed. Another split takes another seed.

    A scene has up to eight objects; about one in twenty has none. The larger side of an object is from under 10 % to
    80 % of the image's shorter side, but at least 20 pixels. Objects may hide up to a quarter of one another, and may
    stick out of the image by an eighth. A box is the extent of the object's whole mask inside the image, hidden parts
    included. Small objects lie on large ones; the ground truth lists objects from large to small.

    Args:
        count: Number of scenes.
        seed: Seed of the random generator.
        height: Height of each scene in pixels, at least 64.
        width: Width of each scene in pixels, at least 64.

    Raises:
        ValueError: `count` or `seed` is negative, or the image has a side of less than 64 pixels.
    """
    if count < 0:
        raise ValueError(f"the number of scenes must be 0 or more, not {count}")
    samples = [synthetic_scene(index, seed=seed, height=height, width=width) for index in range(count)]
    return Dataset(f"synthetic scenes, seed {seed}", CLASS_NAMES, samples)


def synthetic_scene(index: int, *, seed: int, height: int = 256, width: int = 256) -> Sample:
    """Returns scene `index` of a seed, which `synthetic_scenes` returns at that position.

    Raises:
        ValueError: `index` or `seed` is negative, or the image has a side of less than 64 pixels.
    """
    if min(index, seed) < 0:
        raise ValueError(f"a scene's index and seed must be 0 or more, not {index} and {seed}")
    if min(height, width) < 64:
        raise ValueError(f"a synthetic scene needs sides of at least 64 pixels, not height {height} and width {width}")
    # each object has its own generator, so that painting one does not change the others
    layout, ground, *looks = np.random.default_rng([seed, index]).spawn(1 + len(OBJECT_COUNTS))
    objects = _place_objects(layout, height, width)
    canvas = _with_clutter(_background(ground, height, width), ground, count=int(ground.integers(3, 10)))
    for thing, rng in zip(objects, looks, strict=False):
        _paint_object(canvas, thing, rng)
    if ground.random() < 0.3:
        canvas = _with_clutter(canvas, ground, count=1, kinds=("line", "scribble"))
    truth = GroundTruth([thing.box for thing in objects], [thing.label for thing in objects])
    return Sample(f"scene_{seed}_{index:05}", _add_grain(canvas, ground), height, width, truth, index)


# Geometry


def _outlines(label: int, rng: np.random.Generator) -> tuple[Outline, ...]:
    """Returns a rotated shape of the class around the origin. The second outline of a ring is its hole."""
    name = CLASS_NAMES[label]
    hole: list[Outline] = []
    if name in ("circle", "ring"):
        outer = _regular(np.ones(60))
        if name == "ring":
            hole = [outer * rng.uniform(0.5, 0.68)]
    elif name == "rectangle":
        ratio = np.exp(-rng.uniform(0, np.log(2.5)))
        outer = np.array([[-1, -ratio], [1, -ratio], [1, ratio], [-1, ratio]])
    elif name == "triangle":
        # a corner moves along its side and the height changes, but no angle becomes a needle
        outer = np.array([[rng.uniform(-0.4, 0.4), -1], [0.9, 0.6], [-0.9, 0.6]]) * [1, rng.uniform(0.7, 1.3)]
    elif name == "star":
        outer = _regular(np.tile([1, rng.uniform(0.38, 0.5)], 5))
    else:
        arm = rng.uniform(0.22, 0.36)
        quarter = np.array([[arm, -1], [arm, -arm], [1, -arm]])
        turn = np.array([[0, 1], [-1, 0]])  # a quarter, clockwise on the screen
        outer = np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])
    # half of the shapes stand upright or nearly so, as things in photographs do
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.normal(0, 0.1)
    cos, sin = np.cos(angle), np.sin(angle)
    return tuple(points @ np.array([[cos, sin], [-sin, cos]]) for points in [outer, *hole])


def _regular(radii: Float[np.ndarray, " points"]) -> Outline:
    """Returns points in equal angles around the origin, at these distances from it."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii) - np.pi / 2
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _place_objects(rng: np.random.Generator, height: int, width: int) -> list[_Object]:
    """Places objects from the largest to the smallest, where each leaves enough of the others visible."""
    side = min(height, width)
    smallest = max(SIZES[0] * side, SMALLEST)
    count = int(rng.choice(len(OBJECT_COUNTS), p=OBJECT_COUNTS))
    sizes = np.sort(np.exp(rng.uniform(np.log(smallest), np.log(SIZES[1] * side), count)))[::-1]
    objects: list[_Object] = []
    owner = np.full((height, width), -1, np.int8)  # index of the object visible in each pixel
    for size in sizes:
        label = int(rng.integers(len(CLASS_NAMES)))
        shape = _outlines(label, rng)
        low, high = shape[0].min(axis=0), shape[0].max(axis=0)
        scale = size / (high - low).max()
        half = (high - low) / 2 * scale
        for _ in range(20):
            center = rng.uniform(0.75 * half, [width, height] - 0.75 * half)  # up to an eighth sticks out
            if _crowded(np.concatenate([center - half, center + half]), objects):
                continue
            placed = tuple((points - (low + high) / 2) * scale + center for points in shape)
            thing = _rasterize(label, placed, height, width)
            if _hides_little(thing, objects, owner):
                _window(owner, thing)[thing.solid] = len(objects)
                objects.append(thing)
                break
    return objects


def _crowded(box: Float[np.ndarray, "4"], others: Sequence[_Object]) -> bool:
    """Returns whether the box overlaps another so much that suppression could take the two for one object."""
    if not others:
        return False
    return bool(box_iou(box[None], np.array([other.box for other in others])).max() > LARGEST_OVERLAP)


def _rasterize(label: int, outlines: tuple[Outline, ...], height: int, width: int) -> _Object:
    """Draws the mask of an object, and measures its box."""
    limits = np.array([width, height])
    low = np.clip(np.floor(outlines[0].min(axis=0)).astype(int) - 1, 0, limits)
    high = np.clip(np.ceil(outlines[0].max(axis=0)).astype(int) + 1, 0, limits)
    columns, rows = (high - low).tolist()
    fine = Image.new("L", (columns * FINE, rows * FINE))
    draw = ImageDraw.Draw(fine)
    for points, value in zip(outlines, (255, 0), strict=False):
        # Pillow truncates coordinates and fills each pixel that the outline touches: half a fine pixel more all round
        draw.polygon(((points - low) * FINE).ravel().tolist(), fill=value)
    left, top, right, bottom = fine.getbbox() or (0, 0, 0, 0)
    x, y = low.tolist()
    coverage = fine.reduce(FINE)
    box = (x + left / FINE, y + top / FINE, x + right / FINE, y + bottom / FINE)
    return _Object(label, outlines, box, (x, y), coverage, np.asarray(coverage) >= 128)


def _hides_little(thing: _Object, others: Sequence[_Object], owner: Int8[np.ndarray, "height width"]) -> bool:
    """Returns whether enough of each of the other objects stays visible."""
    covered = _window(owner, thing)[thing.solid]
    for index in np.unique(covered[covered >= 0]):
        visible = np.count_nonzero(owner == index) - np.count_nonzero(covered == index)
        if visible < LEAST_VISIBLE * np.count_nonzero(others[index].solid):
            return False
    return True


def _window(array: Int8[np.ndarray, "height width"], thing: _Object) -> Int8[np.ndarray, "rows columns"]:
    """Returns a view of the part of the array that the object's mask describes."""
    (x, y), (rows, columns) = thing.corner, thing.solid.shape
    return array[y : y + rows, x : x + columns]


# Paint


def _background(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Paints two or three quiet colors in large blotches or a gradient, often with a faint pattern on top."""
    hue, saturation, value = rng.random(), rng.uniform(0.05, 0.3), rng.uniform(0.3, 1)
    colors = [_hsv(hue + rng.normal(0, 0.07), saturation, value + rng.uniform(-0.2, 0.2)) for _ in range(3)]
    canvas = Image.new("RGB", (width, height), colors[0])
    base: Texture = "gradient" if rng.random() < 0.4 else "blotches"
    canvas.paste(colors[1], (0, 0), _texture(base, rng, height, width, cell=min(height, width) / rng.uniform(1, 5)))
    if rng.random() < 0.7:
        pattern = TEXTURES[rng.integers(1, len(TEXTURES))]
        cell = min(height, width) / rng.uniform(8, 30)
        faint = _texture(pattern, rng, height, width, cell, strength=rng.uniform(0.15, 0.6))
        canvas.paste(colors[2], (0, 0), faint)
    return canvas


def _paint_object(canvas: Canvas, thing: _Object, rng: np.random.Generator) -> None:
    """Paints an object on the canvas: sometimes a shadow, then its texture, sometimes with an edge."""
    columns, rows = thing.coverage.size
    size = max(columns, rows)
    first, second = _contrasting_colors(canvas, thing, rng)
    if rng.random() < 0.5:
        _paint_shadow(canvas, thing, offset=size * rng.uniform(0.02, 0.06), strength=rng.uniform(0.25, 0.55))
    texture = TEXTURES[rng.integers(len(TEXTURES))]
    cell = max(size / rng.uniform(3, 9), 5.0)
    skin = Image.new("RGB", (columns, rows), first)
    skin.paste(second, (0, 0), _texture(texture, rng, rows, columns, cell))
    if rng.random() < 0.35:
        _paint_edge(skin, thing, rng)
    canvas.paste(skin, thing.corner, thing.coverage)


def _paint_shadow(canvas: Canvas, thing: _Object, offset: float, strength: float) -> None:
    """Darkens the canvas by a blurred mask of the object, moved by `offset` pixels."""
    margin = int(np.ceil(3 * offset))
    columns, rows = thing.coverage.size
    shadow = Image.new("L", (columns + 2 * margin, rows + 2 * margin))
    shadow.paste(round(255 * strength), (margin, margin), thing.coverage)
    shadow = shadow.filter(ImageFilter.BoxBlur(offset))
    shift = round(offset) - margin
    canvas.paste((12, 12, 24), (thing.corner[0] + shift, thing.corner[1] + shift), shadow)


def _paint_edge(skin: Canvas, thing: _Object, rng: np.random.Generator) -> None:
    """Draws a dark or light line along the outlines."""
    scale = 2
    line = Image.new("L", (skin.width * scale, skin.height * scale))
    draw = ImageDraw.Draw(line)
    thickness = max(round(scale * max(skin.size) * rng.uniform(0.03, 0.06)), 3)
    for points in thing.outlines:
        closed = (np.concatenate([points, points[:2]]) - thing.corner) * scale
        joint = "curve" if len(points) < 20 else None  # the many corners of a circle need no rounding, which is slow
        draw.line(closed.ravel().tolist(), fill=255, width=thickness, joint=joint)
    skin.paste((20, 20, 30) if rng.random() < 0.6 else (245, 245, 240), (0, 0), line.reduce(scale))


def _contrasting_colors(canvas: Canvas, thing: _Object, rng: np.random.Generator) -> tuple[Color, Color]:
    """Returns two shades of the class's hue for the texture, both unlike the pixels around and under the object."""
    (x, y), (columns, rows) = thing.corner, thing.coverage.size
    around = np.asarray(canvas.crop((x, y, x + columns, y + rows)).resize((4, 4), Image.Resampling.BOX), dtype=float)
    best: tuple[Color, Color] = ((0, 0, 0), (0, 0, 0))
    best_contrast = -1.0
    for _ in range(12):
        first, second = _shades(rng, hue=thing.label / len(CLASS_NAMES) + rng.normal(0, 0.025))
        contrast = float(np.linalg.norm(around.reshape(-1, 1, 3) - [first, second], axis=-1).min())
        if contrast > best_contrast:
            best, best_contrast = (first, second), contrast
        if contrast > 70:
            break
    return best


def _shades(rng: np.random.Generator, *, hue: float) -> tuple[Color, Color]:
    """Returns a strong color, and a neighbor of it that is lighter or darker."""
    saturation, value = rng.uniform(0.6, 0.95), rng.uniform(0.55, 1)
    step = rng.uniform(0.2, 0.4)
    other = value - step if value > 0.6 else value + step
    return _hsv(hue, saturation, value), _hsv(hue + rng.normal(0, 0.02), saturation, other)


def _hsv(hue: float, saturation: float, value: float) -> Color:
    """Converts HSV to RGB from 0 to 255; the hue wraps around, the others are clipped to 0 to 1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return round(255 * red), round(255 * green), round(255 * blue)


def _texture(
    kind: Texture, rng: np.random.Generator, height: int, width: int, cell: float, strength: float = 1.0
) -> Image.Image:
    """Returns how much of the second color each pixel takes, 0 to 255; `cell` is about the size of one motif."""
    if kind == "plain":
        return Image.new("L", (width, height))
    if kind == "blotches":
        rows, columns = (int(np.ceil(side / cell)) + 2 for side in (height, width))
        coarse = Image.fromarray(rng.integers(0, round(255 * strength) + 1, (rows, columns), dtype=np.uint8))
        return coarse.resize((width, height), Image.Resampling.BICUBIC)
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle) / cell), np.float32(np.sin(angle) / cell)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    u = x * cos + y * sin
    if kind == "gradient":
        mix = (u - u.min()) / max(float(u.max() - u.min()), 1e-6)
    elif kind == "stripes":
        # the edges of all patterns are about a pixel wide, so that they do not look torn
        mix = 0.5 + (np.abs(_from_middle(u)) - 0.25) * cell
    else:
        v = y * cos - x * sin
        if kind == "dots":
            mix = 0.5 + (0.33 - np.sqrt(_from_middle(u) ** 2 + _from_middle(v) ** 2)) * cell
        else:
            mix = 0.5 + (np.abs(_from_middle(u / 2)) - 0.25) * (np.abs(_from_middle(v / 2)) - 0.25) * 8 * cell
    return Image.fromarray((np.clip(mix, 0, 1) * (255 * strength)).astype(np.uint8))


def _from_middle(cells: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Returns the distance of each value from the middle of its cell, -0.5 to 0.5."""
    distance: Float[np.ndarray, "height width"] = cells - np.floor(cells) - np.float32(0.5)
    return distance


def _add_grain(canvas: Canvas, rng: np.random.Generator) -> UInt8[np.ndarray, "3 height width"]:
    """Returns the pixels with the noise of a camera, the same in all three colors."""
    noise = rng.standard_normal((canvas.height, canvas.width), dtype=np.float32) * np.float32(rng.uniform(0, 7))
    pixels: Int16[np.ndarray, "3 height width"] = to_array(canvas) + np.rint(noise).astype(np.int16)
    return pixels.clip(0, 255).astype(np.uint8)


# Clutter: things that are not objects

Clutter = Literal["line", "scribble", "dots", "text", "arc", "angle", "half disc"]
CLUTTER: tuple[Clutter, ...] = ("line", "scribble", "dots", "text", "arc", "angle", "half disc")


def _with_clutter(
    canvas: Canvas, rng: np.random.Generator, *, count: int, kinds: Sequence[Clutter] = CLUTTER
) -> Canvas:
    """Returns the canvas with added things that are not objects."""
    scale = 2  # for smooth edges; enlarging by copying pixels and averaging them again changes nothing else
    large = canvas.resize((canvas.width * scale, canvas.height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(large, "RGBA")
    unit = scale * min(canvas.size) / 256
    for _ in range(count):
        ink = (*_hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.1, 1)), int(rng.integers(90, 256)))
        _draw_clutter(draw, kinds[int(rng.integers(len(kinds)))], rng, ink, rng.uniform((0, 0), large.size), unit)
    return large.reduce(scale)


def _draw_clutter(
    draw: ImageDraw.ImageDraw,
    kind: Clutter,
    rng: np.random.Generator,
    ink: tuple[int, int, int, int],
    center: Float[np.ndarray, "2"],
    unit: float,
) -> None:
    """Draws one thing of a kind around the center; `unit` is its scale in pixels."""
    thickness = round(rng.uniform(1, 3) * unit)
    if kind == "line":
        direction = rng.uniform(0, np.pi)
        reach = np.array([np.cos(direction), np.sin(direction)]) * rng.uniform(30, 200) * unit
        draw.line([*(center - reach), *(center + reach)], fill=ink, width=thickness)
    elif kind == "scribble":
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.45, 40))
        steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * rng.uniform(2, 6) * unit
        draw.line((center + np.cumsum(steps, axis=0)).ravel().tolist(), fill=ink, width=thickness, joint="curve")
    elif kind == "dots":
        for x, y in center + rng.normal(0, 22 * unit, (int(rng.integers(5, 25)), 2)):
            radius = rng.uniform(0.8, 2.5) * unit
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=ink)
    elif kind == "text":
        tall = rng.uniform(5, 9) * unit
        for row in range(int(rng.integers(1, 4))):
            for letter in np.flatnonzero(rng.random(int(rng.integers(5, 16))) < 0.85):
                strokes = rng.uniform(0, (0.6 * tall, tall), (4, 2)) + center + [letter * 0.8 * tall, row * 1.6 * tall]
                draw.line(strokes.ravel().tolist(), fill=ink, width=round(unit))
    elif kind == "angle":
        directions = rng.uniform(0, 2 * np.pi) + np.array([0, rng.uniform(0.6, 2.2)])
        ends = center + np.stack([np.cos(directions), np.sin(directions)], axis=1) * rng.uniform(10, 35) * unit
        draw.line([*ends[0], *center, *ends[1]], fill=ink, width=2 * thickness, joint="curve")
    else:
        radius = rng.uniform(8, 30) * unit
        start = rng.uniform(0, 360)
        around = [*(center - radius), *(center + radius)]
        if kind == "arc":
            draw.arc(around, start, start + rng.uniform(50, 170), fill=ink, width=2 * thickness)
        else:
            draw.chord(around, start, start + rng.uniform(130, 180), fill=ink)
