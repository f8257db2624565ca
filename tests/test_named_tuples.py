"""The tests check the shapes of named tuples, as they check those of functions: `conftest.check_named_tuples`."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import numpy as np
import pytest
import torch
from jaxtyping import AbstractArray, TypeCheckError

import multibox
from multibox.config import DetectorConfig
from multibox.presets import preset

DTYPES = {
    "Float": "float32",
    "Float32": "float32",
    "Int": "int64",
    "Bool": "bool",
    "UInt8": "uint8",
    "Shaped": "float32",  # or any other
}
OTHER_DTYPE = "complex64"
SIZES = {"batch": 2, "height": 5, "width": 7}
"""Sizes of some named axes; the others have 3 elements."""


def named_tuples() -> list[type]:
    """Named tuples of the whole package that hold arrays."""
    found = []
    for module in pkgutil.walk_packages(multibox.__path__, "multibox."):
        if not module.name.endswith("__main__"):
            found += [
                value
                for value in vars(importlib.import_module(module.name)).values()
                if inspect.isclass(value) and value.__module__ == module.name and hasattr(value, "_fields")
            ]
    return [each for each in found if any(arrays_in(annotation) for annotation in annotations(each).values())]


def annotations(named_tuple: type) -> dict[str, Any]:
    return inspect.get_annotations(named_tuple)


def is_array(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, AbstractArray)


def arrays_in(annotation: Any) -> list[Any]:
    return [annotation] if is_array(annotation) else [each for part in get_args(annotation) for each in arrays_in(part)]


def example(annotation: Any, **change: Any) -> Any:
    """A value that fits the annotation, or an array that a change makes not fit."""
    if is_array(annotation):
        return array(annotation, **change)
    if annotation in (str, int, float, bool):
        return annotation(1)
    if annotation is Path:
        return Path("image.jpg")
    if annotation is DetectorConfig:
        return preset("ssd256-tiny")
    if hasattr(annotation, "_fields"):
        return annotation(*map(example, annotations(annotation).values()))
    if get_origin(annotation) is Mapping:
        return {}
    if get_origin(annotation) is tuple:
        return tuple(example(part, **change) for part in get_args(annotation) if part is not Ellipsis)
    if get_origin(annotation) in (UnionType, Union):
        return example(get_args(annotation)[0], **change)
    raise NotImplementedError(f"extend this function by an example of {annotation}")


def array(annotation: Any, *, rank: int = 0, larger: str = "", dtype: str | None = None) -> Any:
    axes = [axis for axis in annotation.dim_str.split() if axis != "..."]
    shape = [int(axis) if axis.isdigit() else SIZES.get(axis, 3) + (axis == larger) for axis in axes] + [1] * rank
    values = np.zeros(shape, dtype or DTYPES[annotation.dtype.__name__])
    return torch.from_numpy(values) if issubclass(annotation.array_type, torch.Tensor) else values


def test_wrong_arrays_are_refused_in_every_named_tuple_of_the_package():
    found = named_tuples()
    assert {"Predictions", "Targets", "Losses", "Batch"} <= {each.__name__ for each in found}
    for each in found:
        fields = annotations(each)
        right = {name: example(annotation) for name, annotation in fields.items()}
        assert each(**right)._replace(**right) is not None
        for name, annotation in fields.items():
            for part in arrays_in(annotation):
                changes = [{"dtype": OTHER_DTYPE}] if part.dtype.__name__ != "Shaped" else []
                changes += [{"rank": 1}] if "..." not in part.dim_str else []
                others = [other for key, field in fields.items() if key != name for other in arrays_in(field)]
                shared = {axis for other in others for axis in other.dim_str.split()}
                changes += [{"larger": axis} for axis in part.dim_str.split() if axis in shared and not axis.isdigit()]
                for change in changes:
                    wrong = {name: example(annotation, **change)}
                    with pytest.raises(TypeCheckError):
                        print(each.__name__, name, change, each(**right | wrong))
                    with pytest.raises(TypeCheckError):
                        each(**right)._replace(**wrong)
