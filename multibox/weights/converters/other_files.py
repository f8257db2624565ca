"""Recognizes files that are often given in place of weights, or that other programs need, by their first bytes.

Each gets a message that says what the file is, and what to give instead.
"""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from multibox.messages import counted, list_names, quoted, shortened
from multibox.weights.converters.protobuf import fields

_HEAD = 65536
"""Number of bytes that are looked at."""

_CHECKPOINT = "give the weights file (.pth, .caffemodel, .tflite)"

_BEGINNINGS: Sequence[tuple[bytes, str]] = (
    (b"\x1f\x8b", "a gzip archive; unpack it, and give the file with the weights in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it, and give the file with the weights in it"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it, and give the file with the weights in it"),
    (b"BZh", "a bzip2 archive; unpack it, and give the file with the weights in it"),
    (b"\xfd7zXZ\0", "an xz archive; unpack it, and give the file with the weights in it"),
    (b"\x12\x01\0\0\0\0\0\0", f"a .params file of MXNet, which cannot be converted; {_CHECKPOINT}"),
    (b"\0\0\0\0\x01\0\0\0", f"a .weights file of Darknet, which has no SSD; {_CHECKPOINT}"),
    (b"\0\0\0\0\x02\0\0\0", f"a .weights file of Darknet, which has no SSD; {_CHECKPOINT}"),
    (b"\x93NUMPY", f"a .npy file of NumPy, which does not say what network its array is of; {_CHECKPOINT}"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image; give the file with the weights"),
    (b"\xff\xd8\xff", "a JPEG image; give the file with the weights"),
    (b"%PDF-", "a PDF document; give the file with the weights"),
)
"""First bytes of formats, and what to say of a file in them."""

_TABLE_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
"""Last bytes of the .index file of a TensorFlow checkpoint."""

_TFLITE = (
    "for an SSD of the Object Detection API, give the .tflite that its export_tflite_ssd_graph.py and the TFLite "
    "converter make"
)

_PROTOTXT = re.compile(rb"^\s*(layers?|input_shape|input_param|(train_|test_)?net_param)\s*:?\s*\{", re.MULTILINE)
_SOLVER = re.compile(rb'^\s*(net|train_net)\s*:\s*"', re.MULTILINE)
_LABEL_MAP = re.compile(rb"^\s*item\s*:?\s*\{", re.MULTILINE)
_TEXT_GRAPH = re.compile(rb"^\s*node\s*:?\s*\{", re.MULTILINE)


def describe_other_file(path: Path) -> str | None:
    """Returns what a file without weights for us is, and what to give instead; `None` if it may hold weights.

    Args:
        path: The file, whose first bytes are read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for beginning, description in _BEGINNINGS:
        if head.startswith(beginning):
            return description
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(path)
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it, and give the file with the weights in it"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip() if b"\0" not in head else b""
    return _text(text) or _binary(path, head)


def _hdf5(path: Path) -> str:
    """Tells apart what writes HDF5, by names that stand in such files as they are."""
    with path.open("rb") as file:
        content = file.read(64 * _HEAD)
    if b"keras_version" in content or b"layer_names" in content or b"model_weights" in content:
        return f"an HDF5 file of Keras, which cannot be converted; {_CHECKPOINT} of a supported project"
    if path.name.endswith(".caffemodel.h5") or (b"conv" in content and b"data" in content):
        return (
            "an HDF5 file of Caffe; give its .caffemodel instead, which Caffe writes with snapshot_format BINARYPROTO, "
            "or with net.save(...) in place of net.save_hdf5(...)"
        )
    return f"an HDF5 file, which cannot be converted; {_CHECKPOINT}"


def _zip(path: Path) -> str | None:
    """Describes a zip file that is no file of torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # a truncated file of torch is a damaged zip as well
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends and any("/code/" in name for name in names):
        return "a TorchScript file, which holds code; give the state dict: torch.save(model.state_dict(), 'model.pth')"
    if "data.pkl" in ends:
        return None
    if {"config.json", "model.weights.h5"} <= ends:
        return f"a .keras file, which cannot be converted; {_CHECKPOINT} of a supported project"
    if names and all(name.endswith(".npy") for name in names):
        return f"a .npz file of NumPy, which does not say what network its arrays are of; {_CHECKPOINT}"
    inside = list_names([shortened(name, 60) for name in names], most=3)
    return (
        f"a zip archive with {counted(len(names), 'file')} ({inside}), not one of torch; unpack it, and give the file "
        "with the weights in it"
    )


def _text(text: bytes) -> str | None:
    """Describes a text file."""
    start = text[:2000].lower()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        size = re.search(rb"^size (\d+)", text, re.MULTILINE)
        of = f" of a file of {int(size[1][:15]):,} bytes" if size else ""
        return f"a Git LFS pointer{of}, not the file itself; fetch that with `git lfs pull`, or from the web page"
    if start.startswith((b"<!doctype html", b"<html")) or (start.startswith(b"<") and b"<html" in start):
        return (
            "a web page that was saved by mistake, not the weights; open the link in a browser: it may ask for a "
            "login or a confirmation (Google Drive does for large files), then download the file itself"
        )
    if start.startswith((b"<?xml", b"<net")):
        if b"<net" in start:
            return (
                "the .xml of an OpenVINO model, which says how the network is built, not what was trained; "
                f"{_CHECKPOINT} that it was made from"
            )
        return f"an XML file, not weights; {_CHECKPOINT}"
    if _PROTOTXT.search(text):
        return "a prototxt of Caffe, which describes the layers, but has no weights; give its .caffemodel"
    if _SOLVER.search(text):
        return "a solver prototxt of Caffe, which has no weights; give the .caffemodel that the training wrote"
    if _LABEL_MAP.search(text):
        return f"a label map, which has the names of classes, but no weights; {_CHECKPOINT}"
    if _TEXT_GRAPH.search(text):
        return f"a graph of TensorFlow as text (.pbtxt), which cannot be converted; {_TFLITE}"
    if start.startswith(b"model_checkpoint_path"):
        return f"the list of a TensorFlow training's checkpoints, which has no weights; {_TFLITE}"
    if start.startswith(b"[net]"):
        return f"a .cfg file of Darknet, which has no weights and no SSD; {_CHECKPOINT}"
    if start.startswith((b"{", b"[")):
        return f"a JSON file, beginning {quoted(text[:40].decode(errors='replace'))}, not weights; {_CHECKPOINT}"
    return None


def _binary(path: Path, head: bytes) -> str | None:
    """Describes what has no first bytes of its own: messages of Protocol Buffers, and weights of OpenVINO."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - len(_TABLE_MAGIC), 0))
        if file.read() == _TABLE_MAGIC:
            return f"the .index of a TensorFlow checkpoint, which has no weights; {_TFLITE}"
    graph = path.with_suffix(".xml")
    if path.suffix == ".bin" and graph.is_file():
        with graph.open("rb") as file:
            if b"<net" in file.read(2000):
                return (
                    f"the weights of an OpenVINO model ({graph.name} describes it), which cannot be converted; "
                    f"{_CHECKPOINT} that it was made from"
                )
    return _message(head)


def _message(head: bytes) -> str | None:
    """Describes a message of Protocol Buffers by its first fields."""
    first: list[tuple[int, int | memoryview]] = []
    try:
        for field in fields(memoryview(head), cut=True):
            first.append(field)
            if len(first) == 20:
                break
    except ValueError:
        pass  # what was cut ends within a field
    if len(first) < 2:
        return None
    kinds = [(number, isinstance(value, int)) for number, value in first]
    if kinds[0] == (1, True):
        if first[0][1] == 1 and kinds[1] == (2, False):
            return f"a SavedModel of TensorFlow, which cannot be converted; {_TFLITE}"
        if (7, False) in kinds or (8, False) in kinds:
            return f"an ONNX file, which cannot be converted; {_CHECKPOINT} that it was exported from"
    if kinds[:2] == [(1, False), (1, False)] and _is_node(first[0][1]):
        return f"a frozen graph of TensorFlow (.pb), which cannot be converted; {_TFLITE}"
    if kinds[0] == (1, False) and kinds[1][0] == 2 and _is_node_list(first[1][1]):
        return f"the .meta of a TensorFlow checkpoint, which has no weights; {_TFLITE}"
    return None


def _is_node(value: int | memoryview) -> bool:
    """Returns whether a field is a NodeDef: a name (1), then an operation (2)."""
    if isinstance(value, int):
        return False
    try:
        found = [field for field, _ in fields(value, cut=True)][:2]
    except ValueError:
        return False
    return found == [1, 2]


def _is_node_list(value: int | memoryview) -> bool:
    """Returns whether a field is a GraphDef: it begins with a NodeDef."""
    if isinstance(value, int):
        return False
    try:
        field, node = next(fields(value, cut=True), (0, 0))
    except ValueError:
        return False
    return field == 1 and _is_node(node)
