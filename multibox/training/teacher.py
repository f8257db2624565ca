"""The teacher of a run: a trained SSD whose outputs the student learns, default box by default box."""

import copy
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from multibox.data.holdout import LEARNED
from multibox.data.sample import compare_classes
from multibox.detector import Detector
from multibox.files import file_sha256
from multibox.ssd.network import Predictions
from multibox.training.given import GivenDetector
from multibox.weights.published import find_weights

SAME = 1e-5
"""Largest difference between the default boxes of teacher and student, as a fraction of the image: that of rounding."""


class LoadedTeacher(NamedTuple):
    """A detector to learn from, and where it comes from.

    Attributes:
        detector: The detector.
        origin: Its file and the file's hash, the name of its network, and what it was trained on, if that is known.
        notes: What `config.yaml` says about a teacher that is given by a path or a name: `teacher`.
    """

    detector: Detector
    origin: str
    notes: dict[str, Any]


def load_teacher(given: GivenDetector, *, progress: bool) -> LoadedTeacher:
    """Returns the detector to learn from.

    Args:
        given: A detector, or weights by path or by name.
        progress: Whether fetching published weights shows a progress bar.

    Raises:
        FileNotFoundError: There are no such weights.
        OSError: The weights cannot be fetched.
        ValueError: The file is none of multibox's, or damaged.
    """
    if isinstance(given, Detector):
        detector, parts, notes = given, [given.config.name], {}
    else:
        try:
            detector = Detector.load(given, progress=progress)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"the teacher {error}") from error
        name = os.path.abspath(given) if Path(given).exists() else os.fspath(given)
        parts = [os.fspath(given), detector.config.name, f"SHA-256 {file_sha256(find_weights(given))}"]
        notes = {"teacher": name}
    learned = detector.provenance.get(LEARNED)
    return LoadedTeacher(detector, ", ".join([*parts, *([f"trained on {learned}"] if learned else [])]), notes)


class Teacher:
    """Gives the outputs that a student learns, for the inputs that the student gets.

    Attributes:
        origin: Where the teacher comes from.
    """

    def __init__(self, teacher: LoadedTeacher, student: Detector) -> None:
        """Checks that the two fit together, default box by default box.

        Args:
            teacher: The detector to learn from; it is not changed.
            student: The detector that learns.

        Raises:
            ValueError: The teacher has other classes or other default boxes, describes boxes by other offsets, or
                scores by sigmoids.
            TypeError: The teacher has no network.
        """
        detector, self.origin, _ = teacher
        _check(detector, student)
        labels = [detector.class_names.index(name) for name in student.class_names]
        self._columns = torch.tensor([0, *(label + 1 for label in labels)])
        self._network = copy.deepcopy(detector.network).eval().requires_grad_(False)

    def to(self, device: str, *, memory_format: torch.memory_format) -> None:
        """Moves the teacher's network to the device, in this memory format."""
        self._network.to(device).to(memory_format=memory_format)
        self._columns = self._columns.to(device)

    @torch.no_grad()
    def predict(self, inputs: UInt8[Tensor, "batch 3 height width"]) -> Predictions:
        """Returns the teacher's outputs, with the student's order of the classes, for inputs of the student's size."""
        size = self._network.height, self._network.width
        if inputs.shape[2:] != size:
            inputs = F.interpolate(inputs.float(), size, mode="bilinear", antialias=True)
        offsets, logits = self._network(inputs)
        return Predictions(offsets, logits[..., self._columns])


def _check(teacher: Detector, student: Detector) -> None:
    """Checks that the outputs of the two mean the same thing."""
    if teacher.config.scoring != "softmax":
        raise ValueError(
            f"the teacher ({teacher.config.name}) scores each class by a sigmoid, but the student learns a softmax "
            "over the classes; take a teacher that multibox has trained"
        )
    if set(teacher.class_names) != set(student.class_names):
        raise ValueError(
            f"{compare_classes('the teacher', teacher.class_names, 'the student', student.class_names)}; both must "
            "know the same classes: train the teacher on these data first"
        )
    for name in ("center_variance", "size_variance"):
        ours, theirs = (getattr(detector.config, name) for detector in (student, teacher))
        if ours != theirs:
            raise ValueError(f"the teacher's {name} is {theirs:g}, the student's {ours:g}: their offsets differ")
    ours, theirs = (detector.network.default_boxes.cpu() for detector in (student, teacher))
    how = (
        "distillation goes default box by default box; take a student of the teacher's input size and scales "
        "(--size, --scales)"
    )
    if len(ours) != len(theirs):
        raise ValueError(
            f"the teacher ({teacher.config.name}) has {len(theirs)} default boxes, the student "
            f"({student.config.name}) {len(ours)}; {how}"
        )
    different = ((ours - theirs).abs() > SAME).any(dim=1).nonzero()[:, 0].tolist()
    if different:
        first = different[0]
        boxes = " and ".join(str([round(value, 4) for value in table[first].tolist()]) for table in (theirs, ours))
        raise ValueError(
            f"{len(different)} of the {len(ours)} default boxes of the teacher ({teacher.config.name}) differ from the "
            f"student's ({student.config.name}); the first is number {first}: {boxes} (center, width and height as "
            f"fractions of the input); {how}"
        )
