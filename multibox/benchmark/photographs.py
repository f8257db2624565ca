"""Write JPEG files like photographs, made from a seed, so that everybody measures with the same ones.

The time of decoding and resizing depends on the size and the detail of an image. Smooth noise of several scales gives
the images the falling spectrum of photographs, and files of about the size of VOC's (500 x 375, some 80 kB).
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from multibox.data.sample import Dataset, GroundTruth, Sample

HEIGHT, WIDTH = 375, 500
CLASS_NAMES = tuple(f"class {number}" for number in range(20))


def write_photographs(folder: Path, count: int, *, seed: int = 0) -> Dataset:
    """Writes the first `count` images of a seed to the folder, and returns them with one to six objects each."""
    samples = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        image, boxes = _photograph(rng)
        path = folder / f"{index:05}.jpg"
        image.save(path, quality=90)
        truth = GroundTruth(boxes, rng.integers(len(CLASS_NAMES), size=len(boxes)))
        samples.append(Sample(path.name, path, HEIGHT, WIDTH, truth, index))
    return Dataset("generated photographs", CLASS_NAMES, samples)


def _photograph(rng: np.random.Generator) -> tuple[Image.Image, list[tuple[float, float, float, float]]]:
    """Returns an image of textured shapes on a texture, and the box of each shape."""
    image, boxes = _texture(rng), []
    for _ in range(rng.integers(1, 7)):
        width, height = np.exp(rng.uniform(np.log(40), np.log([0.8 * WIDTH, 0.8 * HEIGHT]))).round()
        left, top = (rng.uniform(0, [WIDTH - width, HEIGHT - height])).round()
        box = (left, top, left + width, top + height)
        mask = Image.new("L", (WIDTH, HEIGHT))
        pen = ImageDraw.Draw(mask)
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)(box, fill=255)
        image.paste(_texture(rng), mask=mask)
        boxes.append(box)
    return image, boxes


def _texture(rng: np.random.Generator) -> Image.Image:
    """Returns noise in octaves, each half as coarse as the one before and four fifths as strong."""
    values = np.zeros((HEIGHT, WIDTH, 3), np.float32) + rng.uniform(60, 200, 3)
    for octave in range(8):
        rows, columns = 3 * 2**octave, 4 * 2**octave
        # brightness varies more than hue
        noise = rng.standard_normal((rows, columns, 1), np.float32)
        noise = noise + 0.3 * rng.standard_normal((rows, columns, 3), np.float32)
        layers = [np.asarray(Image.fromarray(noise[..., color]).resize((WIDTH, HEIGHT))) for color in range(3)]
        values += 30 * 0.79**octave * np.stack(layers, axis=2)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))
