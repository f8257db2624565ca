"""Balance: what there is little or too much of in the images to learn from."""

from collections.abc import Iterator

import numpy as np

from multibox.data.splits import split_kind
from multibox.doctor.survey import Finding, Survey
from multibox.messages import counted, list_names, quoted

FEW_OBJECTS = 20
CONCENTRATED = 0.5
"""Fraction of a class's objects in two images."""

IMBALANCE = 30
FEW_IMAGES = 100
TOGETHER = 20
"""Images of a class, from which it is no accident that all of them show another class too."""


def find_imbalance(survey: Survey) -> Iterator[Finding]:
    """Yields classes and images that there are few or too many of in the split to learn from."""
    split = survey.training
    if split is None or not len(split) or split_kind(split.name) in ("val", "test"):
        return

    def found(kind: str, value: str) -> Finding:
        return Finding(kind, str(survey.path), value, split.name)

    counts = split.counts()
    per_image = np.zeros((len(split), len(split.class_names)), np.int64)
    np.add.at(per_image, (split.image_of[~split.crowd], split.labels[~split.crowd]), 1)
    having = per_image > 0
    for label, name in enumerate(split.class_names):
        count = int(counts[label])
        if 0 < count < FEW_OBJECTS:
            yield found("class-few", f"{quoted(name)}: {counted(count, 'object')}")
        most = int(np.sort(per_image[:, label])[-2:].sum())
        if count >= FEW_OBJECTS and most > CONCENTRATED * count:
            yield found("class-concentrated", f"{quoted(name)}: {most} of {count} objects in 2 images")
        rows = having[:, label]
        if (images := int(rows.sum())) >= TOGETHER:
            share = having.mean(axis=0)
            for other in np.flatnonzero(having[rows].all(axis=0) & (share < 0.5)):
                if other != label:
                    value = f"{quoted(name)} is in {images} images, each with {quoted(split.class_names[other])}"
                    yield found("class-always-together", value)
    rare = [split.class_names[label] for label in np.flatnonzero((counts > 0) & (counts * IMBALANCE < counts.max()))]
    if rare:
        often = f"{quoted(split.class_names[int(counts.argmax())])} has {counts.max()} objects"
        yield found("class-imbalance", f"{often}, {IMBALANCE} times those of {list_names(rare, 5)}")
    if len(split) < FEW_IMAGES:
        yield found("images-few", counted(len(split), "image"))
    if (empty := int((~having.any(axis=1)).sum())) > len(split) / 2:
        yield found("images-empty", f"{empty} of {counted(len(split), 'image')}")
    objects = len(split.labels)
    for kind, marked, most_allowed in (
        ("objects-difficult", split.difficult, 1 / 3),
        ("objects-crowd", split.crowd, 0.1),
    ):
        if objects and (number := int(marked.sum())) > most_allowed * objects:
            yield found(kind, f"{number} of {counted(objects, 'object')}")
