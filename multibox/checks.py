"""Checks of the values that configs hold: one mechanism for Python, JSON, YAML and command-line flags.

A config is a dataclass whose annotations state the type and the limits of each field, the limits by msgspec's `Meta`.
`check_fields` applies them in `__post_init__`, so a config never holds a wrong value.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import cache
from math import inf
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from msgspec import Meta, ValidationError, convert

from multibox.messages import list_names, quoted

LARGEST_INT = 10**18  # no value is meant to be larger, and Python refuses to print huge ones
_MAX = sys.float_info.max  # infinity exceeds this limit

Fraction = Annotated[float, Meta(ge=0, le=1, description="from 0 to 1")]
Positive = Annotated[float, Meta(gt=0, le=_MAX, description="above 0")]
NotNegative = Annotated[float, Meta(ge=0, le=_MAX, description="0 or more")]
Finite = Annotated[float, Meta(ge=-_MAX, le=_MAX, description="a number")]
Count = Annotated[int, Meta(ge=1, le=LARGEST_INT, description="at least 1")]

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_PLAIN = frozenset({bool, int, float, str, type(None)})
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


def check_fields(config: object) -> None:
    """Checks every field of a dataclass against its annotation, and stores it in the annotated type.

    NumPy's numbers become Python's, whole numbers become floats where a float is wanted, lists become tuples.

    Raises:
        ValueError: A value has another type than annotated, is not one of the choices, or is out of range.
    """
    kind: Any = type(config)
    for name, hint in _hints(kind).items():
        object.__setattr__(config, name, checked(name, getattr(config, name), hint))


def checked(name: str, value: object, hint: Any, *, strict: bool = True) -> Any:
    """Returns the value, converted to the annotated type.

    Args:
        name: Name of the field, for the message.
        value: Value to check.
        hint: Annotation of the field.
        strict: Whether only numbers count as numbers. If false, `"1e-3"` counts too, and `8.0` is a whole number.

    Raises:
        ValueError: The value does not fit the annotation.
    """
    plain = _plain(value)
    try:
        found = convert(plain, hint, strict=strict)
    except ValidationError as error:
        words, wrong, _ = _complaint(plain, hint, strict)
        raise ValueError(f"{name} must be {words}, but is {quoted(wrong)}") from error
    return tuple(found) if isinstance(found, list) else found


def checked_values(values: Mapping[Any, object], hints: Mapping[str, Any], *, owner: str) -> dict[str, Any]:
    """Returns the values of a text file, converted to the annotated types. Empty values are left out.

    Args:
        values: Values by the name of their field.
        hints: Annotation of each field that exists, by name.
        owner: What the message calls the owner of the fields: "a run".

    Raises:
        ValueError: There is no field of that name, or a value does not fit its annotation.
    """
    given = {name: value for name, value in values.items() if value is not None}
    some = ", ".join([*hints][:30]) + (f" and {len(hints) - 30} more" if len(hints) > 30 else "")
    for name in given:
        if name not in hints:
            near = get_close_matches(name, hints, n=1) if isinstance(name, str) else []
            hint = f"did you mean '{near[0]}'?" if near else f"there are {some}"
            raise ValueError(f"{owner} has no value {quoted(name)}; {hint}")
    return {name: _checked_text(name, value, hints[name]) for name, value in given.items()}


def _checked_text(name: str, value: object, hint: Any) -> Any:
    """Returns a value of a text file, in the annotated type: `300` may be a text, and `1e-3` a number."""
    if str in _options(hint) and isinstance(value, int | float) and type(value) is not bool and abs(value) < 1e18:
        value = str(value)
    if isinstance(value, Mapping):  # of names, which may be numbers
        value = {str(key) if type(key) is int and abs(key) < 1e18 else key: part for key, part in value.items()}
    # msgspec's relaxed mode reads 1 and "yes" as true, but a number in place of a flag is a mistake
    return checked(name, value, hint, strict=bool in _options(hint))


def check_class_names(names: Sequence[str]) -> None:
    """Checks the class names of a detector.

    Raises:
        TypeError: The names are a single text.
        ValueError: There is no name, one is empty, or one occurs twice.
    """
    if isinstance(names, str):
        raise TypeError(f"class_names must be a list of names, not the text {quoted(names)}")
    if not names or not all(names):
        raise ValueError(f"a detector needs at least one class, and a name for each, not {quoted(list(names))}")
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise ValueError(f"class names occur twice: {list_names(twice)}")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _plain(value: object) -> object:
    """Returns the value with NumPy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [part if type(part) in _PLAIN else _plain(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return value


def _fits(value: object, hint: Any, strict: bool) -> bool:
    try:
        convert(value, hint, strict=strict)
    except ValidationError:
        return False
    return True


def _complaint(value: object, hint: Any, strict: bool) -> tuple[str, object, bool]:
    """Returns a text about what was expected, the part of the value that is wrong, and whether its type is wrong."""
    if get_origin(hint) is Annotated:
        kind, limits = get_args(hint)[:2]
        if not _fits(value, kind, strict):
            return _complaint(value, kind, strict)
        if limits.le == LARGEST_INT and isinstance(value, int) and value > LARGEST_INT:
            return "at most 10**18", value, False
        return limits.description + (" and finite" if value in (inf, -inf) else ""), value, False
    options = _options(hint)
    if isinstance(value, Mapping):
        for option in options:
            if get_origin(option) is Mapping:
                first = next(key for key, part in value.items() if not _fits({key: part}, option, strict))
                finite = " and finite" if value[first] in (inf, -inf) else ""
                return _words(option) + finite, {first: value[first]}, False
    if len(options) > 1:
        return " or ".join(map(_words, options)), value, True
    if options[0] is not hint:
        return _complaint(value, options[0], strict)
    for part, item in _parts(value, hint):
        if not _fits(part, item, strict):
            words, wrong, is_kind = _complaint(part, item, strict)
            return (_words(hint), value, True) if is_kind else (words, wrong, False)
    return _words(hint), value, get_origin(hint) is not Literal


def _options(hint: Any) -> list[Any]:
    """Returns the members of a union except `None`, or the annotation itself if it is not a union."""
    if get_origin(hint) in (Union, UnionType):
        return [option for option in get_args(hint) if option is not NoneType]
    return [hint]


def _parts(value: object, hint: Any) -> list[tuple[object, Any]]:
    """Returns the items of a list with their annotations, or nothing if the value or the annotation is not a list."""
    items = get_args(hint)
    if get_origin(hint) not in (tuple, Sequence) or not isinstance(value, list | tuple):
        return []
    if get_origin(hint) is Sequence or items[-1] is Ellipsis:
        items = items[:1] * len(value)
    return list(zip(value, items, strict=True)) if len(items) == len(value) else []


def _words(hint: Any) -> str:
    """Returns a description of the values that an annotation accepts."""
    if get_origin(hint) is Annotated:
        return str(get_args(hint)[1].description)
    if get_origin(hint) is Literal:
        choices = [str(choice) for choice in get_args(hint)]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else f"'{choices[0]}'"
    if get_origin(hint) is Mapping:
        return f"a mapping of names to {_plural(get_args(hint)[1])} {_words(get_args(hint)[1])}"
    if get_origin(hint) in (tuple, Sequence):
        first, *others = get_args(hint)
        several = _plural(first)
        return f"a list of {several}" if others in ([], [Ellipsis]) else f"{1 + len(others)} {several}"
    return f"of type {hint.__name__}" if isinstance(hint, type) and is_dataclass(hint) else _KINDS[hint]


def _plural(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return _plural(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return "texts"
    if get_origin(hint) is tuple:
        return f"lists of {_plural(get_args(hint)[0])}"
    return f"{hint.__name__} rows" if isinstance(hint, type) and is_dataclass(hint) else _PLURALS[hint]
