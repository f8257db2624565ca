"""Show values in messages: short and on one line, whatever a file or a caller gave."""

import reprlib
from collections.abc import Sequence
from math import ceil


class _ShortRepr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Returns the digits with their middle left out; Python refuses to write more than 4,300 of them."""
        return shortened(repr(x), 40) if x.bit_length() < 10_000 else "a number of over 3,000 digits"


_short = _ShortRepr()
_short.maxstring = _short.maxother = 60
_short.maxlevel = 2
_short.maxlist = _short.maxtuple = _short.maxdict = 6


def quoted(value: object) -> str:
    """Returns the value as Python would write it, with its middle left out if it is long."""
    return _short.repr(value)


def shortened(text: object, length: int = 300) -> str:
    """Returns a text or an error's message without quotes, its middle left out if long, `?` for control characters."""
    text = str(text)
    if len(text) > length:
        half = (length - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def counted(number: int, thing: str) -> str:
    """Returns the number with its noun, in the plural if need be: `1 image`, `2 images`, `3 classes`, `4 boxes`."""
    plural = "es" if thing.endswith(("s", "x", "ch")) else "s"
    return f"{number} {thing}{plural if number != 1 else ''}"


def percent(fraction: float | None) -> str:
    """Returns a fraction in percent, with one decimal; `-` for none."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def duration(seconds: float) -> str:
    """Returns a time, rounded up, as minutes and seconds, and with hours if need be: `0:05`, `1:02:03`."""
    minutes, rest = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def list_names(names: Sequence[str], most: int = 30) -> str:
    """Returns the quoted names, separated by commas: at most the first `most`, then the number of the rest."""
    more = len(names) - most
    return ", ".join(map(quoted, names[:most])) + (f" and {more} more" if more > 0 else "")
