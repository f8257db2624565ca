"""What is given by mistake in place of weights is called by its name, and the message says what to give instead."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from multibox.weights.convert import convert_weights
from multibox.weights.converters.other_files import describe_other_file
from tests.weights.converters.caffe_files import nested

HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(40)
NODES = nested(1, nested(1, b"image_tensor") + nested(2, b"Placeholder")) + nested(
    1, nested(1, b"weights") + nested(2, b"Const") + nested(5, bytes(70_000))
)
"""A GraphDef whose second NodeDef is longer than what is looked at."""

META_GRAPH = nested(1, nested(4, b"train")) + nested(2, NODES)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return file.getvalue()


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3), b=np.ones(2))
    return file.getvalue()


FOUND = {
    "deploy.prototxt": (
        b'name: "MobileNet-SSD"\r\ninput: "data"\r\ninput_shape {\r\n  dim: 1\r\n}\r\n',
        "a prototxt of",
    ),
    "old.prototxt": (b'# VGG\nlayers {\n  name: "conv1_1"\n}\n', "give its .caffemodel"),
    "train.caffemodel": (b'\xef\xbb\xbflayer: {\n  type: "Data"\n}\n', "a prototxt of Caffe"),
    "solver.prototxt": (b'train_net: "train.prototxt"\nbase_lr: 0.001\n', "a solver prototxt"),
    "labelmap_voc.prototxt": (b'item {\n  name: "none_of_the_above"\n  label: 0\n}\n', "a label map"),
    "graph.pbtxt": (b'node {\n  name: "image_tensor"\n}\n', "a graph of TensorFlow as text"),
    "checkpoint": (b'model_checkpoint_path: "model.ckpt-3000"\n', "the list of a TensorFlow training's checkpoints"),
    "ssd.caffemodel.h5": (HDF5 + b"data\0conv1_1\0", "an HDF5 file of Caffe; give its .caffemodel"),
    "ssd.h5": (HDF5 + b"layer_names\0keras_version\0" + b"2.2.4", "an HDF5 file of Keras"),
    "other.h5": (HDF5, "an HDF5 file, which cannot be converted"),
    "model.keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "a .keras file"),
    "frozen_inference_graph.pb": (NODES, "a frozen graph of TensorFlow"),
    "frozen.pth": (NODES, "give the .tflite"),
    "saved_model.pb": (b"\x08\x01" + nested(2, META_GRAPH), "a SavedModel of TensorFlow"),
    "model.ckpt.meta": (META_GRAPH, "the .meta of a TensorFlow checkpoint"),
    "model.ckpt.index": (bytes(48) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "the .index of a TensorFlow checkpoint"),
    "ssd.onnx": (b"\x08\x07" + nested(2, b"pytorch") + nested(3, b"2.1.0") + nested(7, bytes(70_000)), "an ONNX file"),
    "plain.onnx": (b"\x08\x09" + nested(7, b"graph") + nested(8, b"\x10\x11"), "an ONNX file"),
    "ssd.xml": (b'<?xml version="1.0"?>\n<net name="ssd300" version="10">\n', "the .xml of an OpenVINO model"),
    "0001.xml": (b"<?xml version='1.0'?><annotation></annotation>", "an XML file"),
    "weights.zip": (zipped("ssd/best.pth", "ssd/README.md"), r"a zip archive with 2 files \('ssd/best.pth', "),
    "script.pt": (zipped("m/code/__torch__.py", "m/data.pkl", "m/constants.pkl"), "a TorchScript file, which holds"),
    "arrays.npz": (arrays(), "a .npz file of NumPy"),
    "model.tar.gz": (b"\x1f\x8b\x08\x00", "a gzip archive; unpack it"),
    "model.tar": (b"ssd.pth".ljust(257, b"\0") + b"ustar\0" + bytes(249), "a tar archive; unpack it"),
    "ssd.pth": (b"\n<!DOCTYPE html>\n<html><title>Sign in</title>", "a web page that was saved by mistake"),
    "it.caffemodel": (b"<HTML><HEAD>Moved</HEAD></HTML>", "a web page that was saved by mistake"),
    "lfs.caffemodel": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 23147564\n",
        r"a Git LFS pointer of a file of 23,147,564 bytes, .* `git lfs pull`",
    ),
    "error.tflite": (b'{"error": {"code": 403}}', "a JSON file, beginning"),
    "yolov4.weights": (b"\0\0\0\0\x02\0\0\0\x05\0\0\0" + bytes(40), "a .weights file of Darknet"),
    "yolov4.cfg": (b"[net]\nbatch=64\n", "a .cfg file of Darknet"),
    "ssd-0000.params": (b"\x12\x01\0\0\0\0\0\0" + bytes(40), "a .params file of MXNet"),
}
"""Content by name of file. The content tells what it is: most have the name of something else somewhere here too."""


@pytest.mark.parametrize("name", FOUND)
def test_other_files_are_called_what_they_are(tmp_path: Path, name: str):
    content, message = FOUND[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f": is {message}" if message.startswith(("a ", "an ", "the ")) else message):
        convert_weights(path)


@pytest.mark.parametrize("name", FOUND)
def test_the_name_does_not_matter(tmp_path: Path, name: str):
    """Under the name of weights, all are called the same, but for Caffe's HDF5, which may look like any other."""
    (tmp_path / name).write_bytes(FOUND[name][0])
    (tmp_path / "weights").write_bytes(FOUND[name][0])
    assert describe_other_file(tmp_path / "weights") == describe_other_file(tmp_path / name)


def test_the_bin_of_an_openvino_model_is_known_by_the_xml_beside_it(tmp_path: Path):
    path = tmp_path / "ssd.bin"
    path.write_bytes(np.arange(99, dtype=np.float32).tobytes())
    assert describe_other_file(path) is None
    (tmp_path / "ssd.xml").write_text('<?xml version="1.0"?><net name="ssd" version="11">', encoding="utf-8")
    with pytest.raises(ValueError, match=r"ssd\.bin: is the weights of an OpenVINO model \(ssd\.xml describes it\)"):
        convert_weights(path)


def test_messages_are_one_line(tmp_path: Path):
    path = tmp_path / "it"
    for content in (b'{"a":\n1}', zipped("a\nb", *(f"{number}" * 99 for number in range(9)))):
        path.write_bytes(content)
        found = describe_other_file(path)
        assert found is not None
        assert "\n" not in found
        assert len(found) < 400


def test_files_that_may_hold_weights_are_left_to_their_readers(tmp_path: Path):
    torch_file, old_torch_file = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(3)}, torch_file)
    torch.save({"a": torch.zeros(3)}, old_torch_file, _use_new_zipfile_serialization=False)
    whole = torch_file.getvalue()
    for content in (
        whole,
        whole[: len(whole) // 2],
        old_torch_file.getvalue(),
        pickle.dumps({"a": 1}, protocol=0),
        pickle.dumps({"a": 1}),
        save({"a": np.zeros(3, np.float32)}),
        b"\x1c\0\0\0TFL3" + bytes(40),
        nested(1, b"VGG_VOC0712") + nested(100, nested(1, b"data") + nested(2, b"Input")),
        nested(1, b"VGG") + nested(2, nested(4, b"data")),
        b"weights\n" * 99,
        b"",
    ):
        path = tmp_path / "it"
        path.write_bytes(content)
        assert describe_other_file(path) is None, content[:40]
