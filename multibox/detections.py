"""What was found in one image, and its other forms (JSON, COCO, supervision, pandas, a drawing)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from multibox.drawing import draw_boxes
from multibox.images import Source, open_image

if TYPE_CHECKING:
    import pandas
    import supervision


class Detection(NamedTuple):
    """One found object.

    Attributes:
        name: Of its class.
        score: From 0 to 1.
        box: Corner form, in pixels of the image.
        label: Index of the class.
        default_box_index: The index of the default box that found it; -1 where there is none.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    label: int
    default_box_index: int

    def __str__(self) -> str:
        return f"{self.name} {self.score:.2f} ({', '.join(f'{value:.0f}' for value in self.box)})"


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The objects found in one image, the highest score first.

    Attributes:
        boxes: Corner form, in pixels of that very image, clipped to it.
        scores: From 0 to 1.
        labels: Indices into `class_names`; the background is not among them.
        default_box_indices: The index of the default box that found each, in the order of the network's output; -1
            where there is none.
        class_names: The name of every class that the detector knows.
    """

    boxes: Float[np.ndarray, "detections 4"]
    scores: Float[np.ndarray, " detections"]
    labels: Int[np.ndarray, " detections"]
    default_box_indices: Int[np.ndarray, " detections"]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks that the arrays belong together.

        Raises:
            ValueError: Their numbers of rows differ, or a label has no name.
        """
        counts = {len(self.boxes), len(self.scores), len(self.labels), len(self.default_box_indices)}
        if len(counts) > 1:
            raise ValueError(
                f"{len(self.boxes)} boxes, {len(self.scores)} scores, {len(self.labels)} labels "
                f"and {len(self.default_box_indices)} default boxes are not the same number"
            )
        nameless = (self.labels < 0) | (self.labels >= len(self.class_names))
        if nameless.any():
            raise ValueError(
                f"label {self.labels[nameless][0]} has no name: there are {len(self.class_names)}, counted from 0"
            )

    @property
    def names(self) -> list[str]:
        """The name of the class of each."""
        return [self.class_names[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.names, self.scores, self.boxes, self.labels, self.default_box_indices, strict=True)
        for name, score, (x_min, y_min, x_max, y_max), label, default_box_index in rows:
            box = (float(x_min), float(y_min), float(x_max), float(y_max))
            yield Detection(name, float(score), box, int(label), int(default_box_index))

    @overload
    def __getitem__(self, chosen: int | np.int64) -> Detection: ...

    @overload
    def __getitem__(
        self, chosen: Bool[np.ndarray, " detections"] | Int[np.ndarray, " chosen"] | slice
    ) -> "Detections": ...

    def __getitem__(
        self, chosen: int | np.int64 | Bool[np.ndarray, " detections"] | Int[np.ndarray, " chosen"] | slice
    ) -> "Detection | Detections":
        """One (`found[0]`); those where a mask is true (`found[found.scores > 0.5]`), with indices, or of a slice.

        Raises:
            TypeError: It is a single truth value, which Python would take for the index 0 or 1.
        """
        if isinstance(chosen, bool | np.bool_):
            raise TypeError(
                f"{chosen} chooses nothing: give an index, a slice, or a mask with a value for each of them"
            )
        if isinstance(chosen, int | np.integer):
            return next(iter(self[np.array([chosen])]))
        return Detections(
            self.boxes[chosen],
            self.scores[chosen],
            self.labels[chosen],
            self.default_box_indices[chosen],
            self.class_names,
        )

    def __repr__(self) -> str:
        shown = [f"{found.name} {found.score:.2f}" for found in self[:5]] + ["..."] * (len(self) > 5)
        return f"Detections({len(self)}: {', '.join(shown)})" if shown else "Detections(0)"

    def records(self) -> list[dict[str, object]]:
        """One dict for each, of plain values that JSON knows.

        Pixels are rounded to two decimals, scores to four.
        """
        return [
            {
                "name": found.name,
                "label": found.label,
                "score": round(found.score, 4),
                "box": [round(value, 2) for value in found.box],
                "default_box_index": found.default_box_index,
            }
            for found in self
        ]

    def to_json(self) -> str:
        """The `records` as a JSON list."""
        return json.dumps(self.records(), ensure_ascii=False)

    def to_coco(self, image_id: int, *, category_ids: Sequence[int] | None = None) -> list[dict[str, object]]:
        """COCO's list of results for one image: boxes are `[x_min, y_min, width, height]`, nothing is rounded.

        Args:
            image_id: COCO's number of the image.
            category_ids: COCO's number of each class. Without them it is the label + 1, as COCO files of
                other data sets mostly count; COCO's own 80 classes have gaps and need theirs.

        Raises:
            ValueError: There is not one category id for each class.
        """
        if category_ids is None:
            category_ids = range(1, len(self.class_names) + 1)
        if len(category_ids) != len(self.class_names):
            raise ValueError(f"{len(category_ids)} category ids for {len(self.class_names)} classes: give one for each")
        results = []
        for found in self:
            x_min, y_min, x_max, y_max = found.box
            results.append(
                {
                    "image_id": image_id,
                    "category_id": int(category_ids[found.label]),
                    "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                    "score": found.score,
                }
            )
        return results

    def to_supervision(self) -> "supervision.Detections":
        """As `supervision.Detections`, the names in `data["class_name"]`.

        Raises:
            ImportError: The package is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs the package supervision: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32),
            confidence=self.scores.astype(np.float32),
            class_id=self.labels.astype(np.int64),
            data={"class_name": np.array(self.names, dtype=np.str_)},
        )

    def to_pandas(self) -> "pandas.DataFrame":
        """A table with a row for each: name, label, score, x_min, y_min, x_max, y_max, default_box_index.

        Raises:
            ImportError: The package is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas needs the package pandas: pip install pandas") from error
        return pandas.DataFrame(
            {
                "name": pandas.Series(self.names, dtype="str"),
                "label": self.labels,
                "score": self.scores,
                **dict(zip(("x_min", "y_min", "x_max", "y_max"), self.boxes.T, strict=True)),
                "default_box_index": self.default_box_indices,
            }
        )

    def draw(self, image: Source, *, line_width: int | None = None, font_size: int | None = None) -> Image.Image:
        """The image that they were found in, with an outline around each and its name and score beside it.

        Args:
            image: Whatever `Detector.detect` takes; it is not written to.
            line_width: In pixels; follows the size of the image where it is not given.
            font_size: The same.

        Raises:
            ValueError: The image cannot be read, a box is not finite, or a size is below 1.
        """
        return draw_boxes(
            open_image(image),
            self.boxes,
            labels=self.labels,
            texts=[f"{found.name} {found.score:.2f}" for found in self],
            line_width=line_width,
            font_size=font_size,
        )
