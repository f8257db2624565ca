"""The weights of the classes in the confidence loss."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal

from multibox.data.sample import Dataset
from multibox.messages import list_names, quoted
from multibox.report.overview import objects_by_class


def resolve_class_weights(given: Literal["balanced"] | Mapping[str, float], dataset: Dataset) -> dict[str, float]:
    """Returns the weight of each class of the data set, by name.

    Balanced weights are those of scikit-learn: n / (k n_c) for a class with n_c of the n objects of k classes. Their
    mean over the objects is 1, so that they move the loss between the classes without making it larger. A class without
    objects does not count in k; its weight is 1, and has no effect.

    Args:
        given: `balanced`, or weights by class name; those of the classes that are left out are 1.
        dataset: The training set.

    Raises:
        ValueError: The data set has no class of that name.
    """
    if isinstance(given, str):
        counts = objects_by_class(dataset).tolist()
        share = sum(counts) / max(sum(count > 0 for count in counts), 1)
        return {name: share / count if count else 1.0 for name, count in zip(dataset.class_names, counts, strict=True)}
    for name in given:
        if name not in dataset.class_names:
            near = get_close_matches(name, dataset.class_names, n=1)
            hint = f"; did you mean {quoted(near[0])}?" if near else ""
            raise ValueError(
                f"class_weights names {quoted(name)}, but the classes of {dataset.name} are "
                f"{list_names(dataset.class_names)}{hint}"
            )
    return {name: given.get(name, 1.0) for name in dataset.class_names}
