"""Writes `.caffemodel` files field by field. The numbers of fields are those of src/caffe/proto/caffe.proto."""

import struct
from collections.abc import Sequence

import numpy as np


def number(value: int) -> bytes:
    parts = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([part | 128 for part in parts[:-1]] + parts[-1:])


def nested(field: int, content: bytes) -> bytes:
    return number(field << 3 | 2) + number(len(content)) + content


def decimal(field: int, value: float) -> bytes:
    return number(field << 3 | 5) + struct.pack("<f", value)


def blob(tensor: np.ndarray, *, old: bool = False) -> bytes:
    """BlobProto, with its shape in a message, or as four numbers."""
    if old:
        sizes = [1] * (4 - tensor.ndim) + list(tensor.shape)
        shape = b"".join(number(field << 3) + number(size) for field, size in enumerate(sizes, start=1))
    else:
        shape = nested(7, nested(1, b"".join(map(number, tensor.shape))))
    return nested(5, tensor.astype("<f4").tobytes()) + shape


def layer(name: str, kind: str, *blobs: bytes, more: bytes = b"") -> bytes:
    """LayerParameter, as field 100 of a network."""
    content = nested(1, name.encode()) + nested(2, kind.encode()) + b"".join(nested(7, one) for one in blobs)
    return nested(100, content + more)


def prior_box(name: str, min_size: float, max_size: float, ratios: Sequence[float], step: float | None) -> bytes:
    content = decimal(1, min_size) + decimal(2, max_size) + b"".join(decimal(3, ratio) for ratio in ratios)
    content += b"\x20\x01\x28\x00" + b"".join(decimal(6, variance) for variance in (0.1, 0.1, 0.2, 0.2))
    content += (b"" if step is None else decimal(10, step)) + decimal(13, 0.5)
    return layer(f"{name}_mbox_priorbox", "PriorBox", more=nested(203, content))
