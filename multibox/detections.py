"""The objects found in one image, and their other forms (JSON, COCO, supervision, pandas, a drawing)."""

import json
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from multibox.display import notebook_png, show_image
from multibox.drawing import draw_boxes
from multibox.images import ColorOrder, Source, open_image

if TYPE_CHECKING:
    import pandas
    import supervision


ImageReference = Path | weakref.ReferenceType[Any]
"""An image that is remembered without its pixels: by its path, or by a reference that does not keep it in memory."""


class Detection(NamedTuple):
    """One found object.

    Attributes:
        name: Name of its class.
        score: Score from 0 to 1.
        box: Box in corner form, in pixels of the image.
        label: Index of the class.
        default_box_index: Index of the default box that found it, or of the best of them if its box is a mean
            (`merge="weighted"`); -1 if it is not known.
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
    """The objects found in one image, always with the highest score first.

    Rows that are given in another order are sorted; of equal scores, the earlier stays first. A selection is therefore
    sorted too, whatever the order of its indices.

    Attributes:
        boxes: Boxes in corner form, in pixels of that very image, clipped to it.
        scores: Scores from 0 to 1.
        labels: Indices into `class_names`; the background is not among them.
        default_box_indices: Index of the default box that found each object, in the order of the network's output; -1
            if it is not known. With `merge="weighted"` a box is the mean of the boxes of several default boxes; the
            index is that of the one with the highest score, from which the object also has its score.
        class_names: Name of every class that the detector knows.
        source: The image that the objects were found in: its path, or a weak reference to the PIL image, array or
            tensor, which does not keep it in memory; None if it is not known.
    """

    boxes: Float[np.ndarray, "detections 4"]
    scores: Float[np.ndarray, " detections"]
    labels: Int[np.ndarray, " detections"]
    default_box_indices: Int[np.ndarray, " detections"]
    class_names: tuple[str, ...]
    source: ImageReference | None = None

    def __post_init__(self) -> None:
        """Checks that the columns belong together, and sorts them by score.

        Raises:
            ValueError: The columns have different lengths, a label has no name, or a score or box is NaN or infinite.
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
        if not (np.isfinite(self.scores).all() and np.isfinite(self.boxes).all()):
            raise ValueError("scores and boxes of detections must be finite numbers, but one is NaN or infinite")
        if (self.scores[1:] > self.scores[:-1]).any():
            order = np.argsort(-self.scores, kind="stable")
            for name in ("boxes", "scores", "labels", "default_box_indices"):
                object.__setattr__(self, name, getattr(self, name)[order])

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels]

    @property
    def path(self) -> Path | None:
        """The path of the image; None if the image was no file, or is not known."""
        return self.source if isinstance(self.source, Path) else None

    def counts(self) -> dict[str, int]:
        """Returns how many objects of each class were found, the most frequent class first."""
        return dict(Counter(self.names).most_common())

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        """Returns what is pickled and copied: a reference to pixels in memory is left out."""
        return self.__dict__ | {"source": self.path}

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.names, self.scores, self.boxes, self.labels, self.default_box_indices, strict=True)
        for name, score, (x_min, y_min, x_max, y_max), label, default_box_index in rows:
            box = (float(x_min), float(y_min), float(x_max), float(y_max))
            yield Detection(name, float(score), box, int(label), int(default_box_index))

    @overload
    def __getitem__(self, chosen: int | np.int64) -> Detection: ...

    @overload
    def __getitem__(
        self, chosen: str | Bool[np.ndarray, " detections"] | Int[np.ndarray, " chosen"] | slice
    ) -> "Detections": ...

    def __getitem__(
        self, chosen: int | np.int64 | str | Bool[np.ndarray, " detections"] | Int[np.ndarray, " chosen"] | slice
    ) -> "Detection | Detections":
        """Returns one detection (`found[0]`), or those of a class, a mask, indices or a slice.

        `found["cat"]` returns the detections of that class, `found[found.scores > 0.5]` those where the mask is true.

        Raises:
            KeyError: The detector knows no class of that name.
            IndexError: There is no detection of that index.
            TypeError: The argument is a single truth value, which Python would take for the index 0 or 1.
        """
        if isinstance(chosen, bool | np.bool_):
            raise TypeError(
                f"{chosen} chooses nothing: give an index, a slice, or a mask with a value for each detection"
            )
        if isinstance(chosen, str):
            if chosen not in self.class_names:
                raise KeyError(_no_class(chosen, self.class_names))
            chosen = self.labels == self.class_names.index(chosen)
        if isinstance(chosen, int | np.integer):
            return next(iter(self[np.array([chosen])]))
        return Detections(
            self.boxes[chosen],
            self.scores[chosen],
            self.labels[chosen],
            self.default_box_indices[chosen],
            self.class_names,
            self.source,
        )

    def __repr__(self) -> str:
        shown = [f"{found.name} {found.score:.2f}" for found in self[:5]] + ["..."] * (len(self) > 5)
        return f"Detections({len(self)}: {', '.join(shown)})" if shown else "Detections(0)"

    def records(self) -> list[dict[str, object]]:
        """Returns a dictionary of plain values for each detection, ready for JSON.

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
        """Returns the `records` as a JSON list."""
        return json.dumps(self.records(), ensure_ascii=False, allow_nan=False)

    def to_coco(self, image_id: int, *, category_ids: Sequence[int] | None = None) -> list[dict[str, object]]:
        """Returns COCO's list of results for one image: boxes are `[x_min, y_min, width, height]`, nothing is rounded.

        Args:
            image_id: COCO's id of the image.
            category_ids: COCO's id of each class; by default the label + 1, as in most COCO files of other data sets.
                The ids of COCO's own 80 classes have gaps and must be given.

        Raises:
            ValueError: The number of category ids is not the number of classes.
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
        """Returns `supervision.Detections`, with the names in `data["class_name"]`.

        Raises:
            ImportError: The package supervision is not installed.
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
        """Returns a table with a row for each detection.

        The columns are name, label, score, x_min, y_min, x_max, y_max and default_box_index.

        Raises:
            ImportError: The package pandas is not installed.
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

    def draw(
        self,
        image: Source | None = None,
        *,
        channels: ColorOrder = "rgb",
        line_width: int | None = None,
        font_size: int | None = None,
    ) -> Image.Image:
        """Returns a copy of the image with an outline around each object, and its name and score beside it.

        Args:
            image: The image that was given to `Detector.detect`, in any form. It may be left out if it was a file, or a
                PIL image, an array in RGB or a tensor that you still hold.
            channels: Order of the colors in an array or tensor: `rgb`, or `bgr` as OpenCV has it. The copy is RGB.
            line_width: Width of the outlines in pixels; by default it follows the size of the image.
            font_size: Size of the letters in pixels; by default it follows the size of the image.

        Raises:
            FileNotFoundError: The file of the image is not there any more.
            ValueError: The image cannot be read, it was not given and is not remembered, or a size is below 1.
        """
        if image is None:
            image = self.source() if isinstance(self.source, weakref.ReferenceType) else self.source
        if image is None:
            raise ValueError(
                "these detections do not know their image: only files are remembered, and images in RGB that you still "
                "hold; give the image, as in found.draw(image)"
            )
        return draw_boxes(
            open_image(image, channels=channels),
            self.boxes,
            labels=self.labels,
            texts=[f"{found.name} {found.score:.2f}" for found in self],
            line_width=line_width,
            font_size=font_size,
        )

    def show(self, image: Source | None = None, *, channels: ColorOrder = "rgb") -> None:
        """Shows the drawn image: below the cell of a notebook, else in the system's viewer.

        In a notebook, detections that are the value of a cell show themselves in the same way.

        Args:
            image: The image, as `draw` takes it.
            channels: Order of the colors in an array or tensor, as `draw` takes it.

        Raises:
            ValueError: The image cannot be read, or it was not given and is not remembered.
            RuntimeError: There is no screen or no viewer, as on a server.
        """
        show_image(self.draw(image, channels=channels))

    def _repr_png_(self) -> bytes | None:
        """Returns the drawn image as a PNG file for a notebook; None if there is no image to draw on."""
        try:
            return notebook_png(self.draw())
        except (ValueError, OSError):  # the notebook then shows the text
            return None


def label_of(name: str, class_names: Sequence[str]) -> int:
    """Returns the label of a class.

    Raises:
        ValueError: There is no class of that name; the message names the nearest one.
    """
    if name not in class_names:
        raise ValueError(_no_class(name, class_names))
    return list(class_names).index(name)


def _no_class(name: str, class_names: Sequence[str]) -> str:
    near = [each for each in class_names if each.casefold() == name.casefold()]
    near = near or get_close_matches(name, class_names, n=1)
    hint = f"did you mean '{near[0]}'? It" if near else "it"
    return f"the detector has no class '{name}'; {hint} knows {', '.join(class_names)}"
