"""Draws the pictures of docs/tour.md from a synthetic scene with `multibox/shapes`, and prints the numbers in its text.

    make docs

writes docs/images/tour/*.jpg. `tests/test_tour.py` compares the numbers with both languages of the tour.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from multibox.data.sample import Sample
from multibox.data.synthetic import synthetic_scene
from multibox.default_boxes import feature_maps_of
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.drawing import contact_sheet, draw_boxes
from multibox.ssd.coder import BoxCoder, center_to_corner
from multibox.ssd.loss import hard_negatives
from multibox.ssd.matching import UNMATCHED, Targets, box_iou, make_targets, match
from multibox.ssd.network import SSD

FOLDER = Path(__file__).parent.parent / "docs" / "images" / "tour"
SCENE, SEED, SIDE = 220, 13, 320
PANEL = 300  # pixels
SCORE = 0.5
QUALITY = 82  # of JPEG


@dataclass(frozen=True)
class Tour:
    """The scene of the tour, and what the detector makes of it.

    Attributes:
        detector: `multibox/shapes`.
        sample: The scene.
    """

    detector: Detector
    sample: Sample

    @classmethod
    def begin(cls) -> "Tour":
        return cls(Detector.load("multibox/shapes"), synthetic_scene(SCENE, seed=SEED, height=SIDE, width=SIDE))

    @property
    def network(self) -> SSD:
        return self.detector.network

    @cached_property
    def maps(self) -> np.ndarray:
        """The feature map of each default box."""
        return feature_maps_of(self.detector.config)

    @cached_property
    def names(self) -> list[str]:
        return [row.layer for row in self.detector.config.feature_maps]

    @cached_property
    def default_boxes(self) -> torch.Tensor:
        """The default boxes in corner form, as fractions of the image."""
        return center_to_corner(self.network.default_boxes)

    @cached_property
    def objects(self) -> torch.Tensor:
        """The objects in corner form, as fractions of the image."""
        return torch.from_numpy(self.sample.truth.boxes) / SIDE

    @cached_property
    def matched(self) -> np.ndarray:
        """The object that each default box is matched to, or `UNMATCHED`."""
        present = torch.ones(1, len(self.objects), dtype=torch.bool)
        return match(self.objects[None], present, self.default_boxes)[0].numpy()

    @cached_property
    def best_overlaps(self) -> np.ndarray:
        """The largest overlap of each object with a default box."""
        return box_iou(self.objects[:, None], self.default_boxes).amax(dim=1).numpy()

    @cached_property
    def targets(self) -> Targets:
        config = self.detector.config
        coder = BoxCoder(config.center_variance, config.size_variance)
        labels = torch.from_numpy(self.sample.truth.labels)[None]
        return make_targets(self.objects[None], labels, self.network.default_boxes, coder)

    def logits(self, network: SSD) -> torch.Tensor:
        with torch.inference_mode():
            return network(torch.from_numpy(self.detector.prepare(self.sample.image))).logits[0]

    @cached_property
    def scores(self) -> np.ndarray:
        """The score of each default box for each class, without the background."""
        return self.logits(self.network).softmax(dim=-1)[:, 1:].numpy()

    @cached_property
    def offsets(self) -> np.ndarray:
        with torch.inference_mode():
            return self.network(torch.from_numpy(self.detector.prepare(self.sample.image))).offsets[0].numpy()

    @cached_property
    def found(self) -> Detections:
        return self.detector.detect(self.sample.image, score_threshold=SCORE)

    @cached_property
    def not_suppressed(self) -> Detections:
        """The detections if no box suppressed another."""
        return self.detector.detect(self.sample.image, score_threshold=SCORE, iou_threshold=1.0)

    def mined(self, network: SSD) -> tuple[np.ndarray, np.ndarray]:
        """The loss of each default box against the background, and whether it is mined as a negative."""
        losses = -self.logits(network).log_softmax(dim=-1)[:, 0]
        chosen = hard_negatives(losses[None], self.targets.labels > 0, negatives_per_positive=3.0)
        return losses.numpy(), chosen[0].numpy()


def facts(tour: Tour) -> dict[str, str]:
    """Returns the numbers in the text of the tour, as they are written there."""
    config = tour.detector.config
    rows = config.feature_maps
    positives = tour.matched != UNMATCHED
    lowest = int(tour.best_overlaps.argmin())
    _, trained = tour.mined(tour.network)
    found_by = np.bincount(tour.maps[tour.found.default_box_indices], minlength=len(rows))
    return {
        "objects": f"{len(tour.objects)}",
        "default boxes": f"{len(tour.maps):,}",
        "grids": ", ".join(f"{row.rows} x {row.columns}" for row in rows),
        "boxes of a cell": ", ".join(f"{len(row.box_sizes)}" for row in rows),
        "matched": f"{int(positives.sum())}",
        "matched by map": ", ".join(f"{n}" for n in np.bincount(tour.maps[positives], minlength=len(rows))),
        "lowest best overlap": f"{tour.best_overlaps[lowest]:.2f}",
        "unmatched": f"{int((~positives).sum()):,}",
        "divisor of the center's offsets": f"{config.center_variance:g}",
        "divisor of the size's offsets": f"{config.size_variance:g}",
        "stretch by an offset of 1": f"exp({config.size_variance:g}) = {math.exp(config.size_variance):.2f}",
        "mined": f"{int(trained.sum())}",
        "before suppression": f"{len(tour.not_suppressed)}",
        "after suppression": f"{len(tour.found)}",
        "overlap of the two crosses": f"{overlap_of_crosses(tour):.2f}",
        "found by map": ", ".join(f"{n}" for n in found_by),
    }


def overlap_of_crosses(tour: Tour) -> float:
    """Returns the overlap of the two boxes that both found the cross."""
    first, second = (torch.tensor(one.box) for one in tour.found if one.name == "cross")
    return float(box_iou(first, second))


def pictures(tour: Tour) -> Iterator[tuple[str, Image.Image]]:
    """Yields the name and the picture of each step of the tour."""
    yield "default-boxes", draw_default_boxes(tour)
    yield "matching", draw_matching(tour)
    yield "offsets", draw_offsets(tour)
    yield "mining", draw_mining(tour)
    yield "maps", draw_maps(tour)
    yield "suppression", draw_suppression(tour)


def draw_default_boxes(tour: Tour) -> Image.Image:
    """The grid of each map, and the default boxes of the cell in its middle."""
    panels, captions = [], []
    for place, row in enumerate(tour.detector.config.feature_maps):
        panel = faded(tour)
        draw = ImageDraw.Draw(panel)
        for line in np.linspace(0, PANEL, row.rows + 1)[1:-1].tolist():
            draw.line([(line, 0), (line, PANEL)], fill=(150, 150, 150))
            draw.line([(0, line), (PANEL, line)], fill=(150, 150, 150))
        cell = (row.rows // 2) * row.columns + row.columns // 2
        of_cell = np.flatnonzero(tour.maps == place)[cell * len(row.box_sizes) :][: len(row.box_sizes)]
        boxes = pixels(tour.default_boxes[of_cell])
        panels.append(draw_boxes(panel, boxes, labels=np.arange(len(boxes)), line_width=2))
        captions.append(
            f"{row.layer}: {row.rows} x {row.columns} cells, {len(row.box_sizes)} boxes each\n"
            f"{row.num_default_boxes:,} default boxes"
        )
    return sheet(panels, captions, columns=3)


def draw_matching(tour: Tour) -> Image.Image:
    """The objects, the default boxes that match them on each map, and the object that only its best box matches."""
    everything = np.arange(len(tour.objects))
    panels = [draw_boxes(faded(tour, 0.25), pixels(tour.objects), labels=everything, line_width=3)]
    captions = [f"the {len(tour.objects)} objects"]
    for place, name in enumerate(tour.names):
        chosen = np.flatnonzero((tour.maps == place) & (tour.matched != UNMATCHED))
        if len(chosen):
            panel = draw_boxes(faded(tour), pixels(tour.objects), labels=everything, line_width=3)
            boxes = pixels(tour.default_boxes[chosen])
            panels.append(draw_boxes(panel, boxes, labels=tour.matched[chosen], dashed=True, line_width=1))
            captions.append(f"{name}: {len(chosen)} default boxes match")
    lowest = int(tour.best_overlaps.argmin())
    (only,) = np.flatnonzero(tour.matched == lowest)
    label = np.array([lowest])
    panel = draw_boxes(faded(tour), pixels(tour.objects[[lowest]]), labels=label, line_width=3)
    panels.append(draw_boxes(panel, pixels(tour.default_boxes[[only]]), labels=label, dashed=True, line_width=2))
    captions.append(f"its best overlap is {tour.best_overlaps[lowest]:.2f}, and it is matched")
    return sheet(panels, captions, columns=3)


def draw_offsets(tour: Tour) -> Image.Image:
    """The default box, dashed, and the box that the offsets make of it, for the best detection of three maps."""
    panels, captions = [], []
    scale = np.float32(PANEL / SIDE)
    overlaps = box_iou(torch.from_numpy(tour.found.boxes)[:, None] / SIDE, tour.objects).amax(dim=1).numpy()
    of_map = tour.maps[tour.found.default_box_indices]
    for place in (0, 1, 3):
        one = tour.found[int(np.where(of_map == place, overlaps, -1).argmax())]
        default = pixels(tour.default_boxes[[one.default_box_index]])[0]
        box = np.array(one.box, np.float32) * scale
        both = np.stack([box, default])
        low, high = both[:, :2].min(axis=0), both[:, 2:].max(axis=0)
        middle, half = (low + high) / 2, 0.75 * (high - low).max()
        left, top = np.clip(middle - half, 0, PANEL - 2 * half)
        zoom = np.float32(PANEL / (2 * half))
        size = (left / scale, top / scale, (left + 2 * half) / scale, (top + 2 * half) / scale)
        panel = (
            tour.sample.open().crop([round(value) for value in size]).resize((PANEL, PANEL), Image.Resampling.BICUBIC)
        )
        panel = blend_with_white(panel, 0.35)
        boxes = (both - np.array([left, top] * 2, np.float32)) * zoom
        panel = draw_boxes(panel, boxes, labels=np.array([0, 1]), dashed=np.array([False, True]), line_width=3)
        panels.append(panel)
        values = ", ".join(f"{value:+.1f}" for value in tour.offsets[one.default_box_index])
        name = tour.names[tour.maps[one.default_box_index]]
        captions.append(f"{one.name}: a default box of {name}\noffsets {values}")
    return sheet(panels, captions, columns=3)


def draw_mining(tour: Tour) -> Image.Image:
    """The centers of all default boxes: matched, mined, and neither, before and after training."""
    untrained = Detector.create(tour.detector.config, tour.detector.class_names, seed=0).network.eval()
    panels, captions = [], []
    for name, network in (("random weights", untrained), ("multibox/shapes", tour.network)):
        losses, chosen = tour.mined(network)
        panel = faded(tour)
        draw = ImageDraw.Draw(panel)
        positive = tour.matched != UNMATCHED
        centers = tour.network.default_boxes[:, :2].numpy() * PANEL
        for marked, color, radius in (
            (~(positive | chosen), (185, 185, 185), 0.8),
            (chosen, (235, 64, 70), 2.5),
            (positive, (38, 139, 255), 2.5),
        ):
            for x, y in centers[marked].tolist():
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color)
        panels.append(panel)
        captions.append(f"{name}: {int(chosen.sum())} negatives (red)\nfor {int(positive.sum())} matches (blue)")
    hardest = np.argsort(np.where(chosen, -losses, np.inf))[:8]
    labels = np.zeros(len(hardest), np.int64)
    boxes = pixels(tour.default_boxes[hardest])
    panels.append(draw_boxes(faded(tour, 0.4), boxes, labels=labels, dashed=True, line_width=2))
    captions.append(f"the eight hardest: loss {losses[hardest[-1]]:.1f} to {losses[hardest[0]]:.1f}")
    return sheet(panels, captions, columns=3)


def draw_maps(tour: Tour) -> Image.Image:
    """The highest score of each cell, map by map, as red over the scene."""
    panels, captions = [], []
    best = tour.scores.max(axis=1)
    for place, row in enumerate(tour.detector.config.feature_maps):
        of_map = best[tour.maps == place].reshape(row.rows, row.columns, -1).max(axis=-1)
        heat = Image.fromarray((255 * of_map).round().astype(np.uint8)).resize((PANEL, PANEL), Image.Resampling.NEAREST)
        panel = faded(tour)
        panel.paste((215, 25, 45), (0, 0), heat.point(lambda value: round(0.85 * value)))
        mine = tour.found[tour.maps[tour.found.default_box_indices] == place]
        boxes = mine.boxes * np.float32(PANEL / SIDE)
        panels.append(draw_boxes(panel, boxes, labels=np.ones(len(mine), np.int64), line_width=2))
        captions.append(f"{row.layer}, {row.rows} x {row.columns}: finds {len(mine)}\nhighest score {of_map.max():.2f}")
    return sheet(panels, captions, columns=3)


def draw_suppression(tour: Tour) -> Image.Image:
    """The boxes that score above the threshold, before and after suppression."""
    panels = [
        draw_boxes(faded(tour, 0.25), each.boxes * np.float32(PANEL / SIDE), labels=each.labels, line_width=2)
        for each in (tour.not_suppressed, tour.found)
    ]
    captions = [f"{len(tour.not_suppressed)} boxes score above {SCORE}", f"{len(tour.found)} are left"]
    return sheet(panels, captions, columns=2)


def pixels(boxes: torch.Tensor) -> np.ndarray:
    """Returns boxes in pixels of a panel."""
    return (boxes * PANEL).numpy().astype(np.float32)


def faded(tour: Tour, part: float = 0.6) -> Image.Image:
    """Returns the scene in the size of a panel, this part of it white."""
    return blend_with_white(tour.sample.open().resize((PANEL, PANEL), Image.Resampling.LANCZOS), part)


def blend_with_white(image: Image.Image, part: float) -> Image.Image:
    return Image.blend(image, Image.new("RGB", image.size, (255, 255, 255)), part)


def sheet(panels: Sequence[Image.Image], captions: Sequence[str], *, columns: int) -> Image.Image:
    return contact_sheet(panels, captions=captions, columns=columns, cell_height=PANEL, cell_width=PANEL, margin=12)


def main() -> None:
    tour = Tour.begin()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures(tour):
        path = FOLDER / f"{name}.jpg"
        picture.save(path, quality=QUALITY, optimize=True)
        print(
            f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}: {path.stat().st_size} bytes"
        )
    for name, text in facts(tour).items():
        print(f"{name}: {text}")


if __name__ == "__main__":
    main()
