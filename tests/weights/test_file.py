"""Files of weights: all that a detector needs in one, and every other file refused for what it is."""

import errno
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from multibox.detector import Detector
from multibox.presets import preset
from multibox.weights.file import FORMAT, Weights, load_weights, save_weights
from multibox.weights.published import PUBLISHED, find_weights

TENSORS = {"stem.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "stem.count": np.array(3)}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.create("ssd256-tiny", ["cat", "dog"], seed=0)


@pytest.fixture
def path(tmp_path: Path, detector: Detector) -> Path:
    detector.save(tmp_path / "it.safetensors")
    return tmp_path / "it.safetensors"


def test_a_full_disk_is_named(tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*full\.safetensors\.part'"):
        detector.save(tmp_path / "full.safetensors")
    assert not list(tmp_path.iterdir())


def header_of(path: Path) -> dict[str, str]:
    """As the format of safetensors has it: eight bytes of length, then JSON."""
    data = path.read_bytes()
    text = data[8 : 8 + int.from_bytes(data[:8], "little")]
    return json.loads(text)["__metadata__"]


def rewrite(path: Path, *, header: dict[str, str], tensors: dict[str, np.ndarray] | None = None) -> None:
    """The same file with another header (`None` in it takes a key away), or other tensors."""
    whole = {key: value for key, value in (header_of(path) | header).items() if value is not None}
    save_file(load_file(path) if tensors is None else tensors, path, metadata=whole)


@pytest.mark.parametrize("name", ["ssd256-tiny", "ssd300-vgg16", "ssd512-vgg16"])
@pytest.mark.parametrize("scales", ["voc", "coco"])
def test_what_is_saved_is_loaded(tmp_path: Path, name: str, scales):
    provenance = {"trained on": "스캔 ✓", "seed": "0"}
    saved = Weights(preset(name, scales=scales), ("고양이", "dog, small", "c\n"), TENSORS, provenance)
    save_weights(tmp_path / "it.safetensors", saved)
    loaded = load_weights(tmp_path / "it.safetensors")
    assert (loaded.config, loaded.class_names, loaded.provenance) == (saved.config, saved.class_names, provenance)
    assert loaded.tensors.keys() == TENSORS.keys()
    for key, tensor in TENSORS.items():
        assert loaded.tensors[key].dtype == tensor.dtype
        np.testing.assert_array_equal(loaded.tensors[key], tensor)


def test_tensors_that_are_views_are_saved_as_they_look(tmp_path: Path):
    turned = TENSORS["stem.weight"].T
    save_weights(tmp_path / "it.safetensors", Weights(preset("ssd256-tiny"), ("a",), {"turned": turned}, {}))
    np.testing.assert_array_equal(load_weights(tmp_path / "it.safetensors").tensors["turned"], turned)


def test_the_header_can_be_read_by_other_tools(path: Path):
    header = header_of(path)
    assert header["format"] == f"multibox {FORMAT}"
    assert json.loads(header["class_names"]) == ["cat", "dog"]
    assert json.loads(header["config"])["name"] == "ssd256-tiny"


def test_a_missing_file_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there is no such weights file"):
        load_weights(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"}" + data[9:],
        lambda data: data + b"more",
        lambda data: b"weights\n",
    ],
    ids=["half", "cut in the header", "one byte less", "empty", "length", "no JSON", "one byte more", "text"],
)
def test_a_damaged_file_is_said_to_be(path: Path, spoil):
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=r"it\.safetensors: not a \.safetensors file, or damaged .*; is it of"):
        Detector.load(path)


def test_no_code_in_a_pickle_is_run(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "run", "yes"))

    path = tmp_path / "it.safetensors"
    for write in (lambda: path.write_bytes(pickle.dumps(Trap())), lambda: torch.save(Trap(), path)):
        write()
        with pytest.raises(ValueError, match=r"not a \.safetensors file"):
            Detector.load(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "multiboxes 1"}])
def test_a_file_of_another_origin_is_told_apart_from_a_damaged_one(tmp_path: Path, metadata):
    path = tmp_path / "it.safetensors"
    save_torch_file({"weight": torch.zeros(3, dtype=torch.bfloat16)}, path, metadata=metadata)
    with pytest.raises(
        ValueError, match=r"without multibox's config in its header; is it of another .*multibox convert"
    ):
        Detector.load(path)


def test_a_later_format_is_refused_by_name(path: Path):
    rewrite(path, header={"format": f"multibox {FORMAT + 1}"})
    with pytest.raises(ValueError, match=rf"written in format {FORMAT + 1}, .* reads up to {FORMAT}; install a newer"):
        Detector.load(path)


def changed_config(path: Path, **changes) -> dict[str, str]:
    return {"config": json.dumps(json.loads(header_of(path)["config"]) | changes)}


@pytest.mark.parametrize(
    "header",
    [
        {"config": None},
        {"class_names": None},
        {"provenance": None},
        {"config": "{"},
        {"config": "[]"},
        {"config": "{}"},
        {"class_names": "7"},
        {"class_names": '"cat"'},
        {"class_names": "[1, 2]"},
        {"provenance": "[]"},
    ],
)
def test_a_header_that_lacks_something_is_damaged(path: Path, header: dict):
    rewrite(path, header=header)
    with pytest.raises(ValueError, match="its header is damaged"):
        Detector.load(path)


def test_values_of_a_later_version_in_the_config_are_said(path: Path):
    original = path.read_bytes()
    rewrite(path, header=changed_config(path, color_of_the_day="green"))
    with pytest.raises(ValueError, match="color_of_the_day"):
        Detector.load(path)
    path.write_bytes(original)
    rewrite(path, header=changed_config(path, backbone="mobilenet"))
    with pytest.raises(ValueError, match="no backbone 'mobilenet'"):
        Detector.load(path)


def test_tensors_that_do_not_fit_the_config_are_named(path: Path):
    tensors = load_file(path)
    first = next(key for key in tensors if tensors[key].ndim)
    shape = tensors[first].shape
    rewrite(path, header={}, tensors={**tensors, first: tensors[first][:-1]})
    with pytest.raises(ValueError, match=rf"it\.safetensors: 1 tensor .*'{first}': .*expected \({shape[0]}"):
        Detector.load(path)
    rewrite(path, header={}, tensors={key: value for key, value in tensors.items() if key != first})
    with pytest.raises(ValueError, match=rf"1 tensor .*'{first}': missing"):
        Detector.load(path)
    rewrite(path, header={}, tensors={**tensors, "more.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=r"'more\.weight': \(3,\), expected none of that name"):
        Detector.load(path)
    rewrite(path, header={"class_names": '["cat", "dog", "cow"]'}, tensors=tensors)
    with pytest.raises(ValueError, match="tensors do not fit 'ssd256-tiny' with 3 classes"):
        Detector.load(path)


def test_published_names_and_paths_are_found(path: Path, monkeypatch: pytest.MonkeyPatch):
    assert find_weights(path) == path
    assert find_weights("multibox/shapes") == PUBLISHED["multibox/shapes"].path
    monkeypatch.chdir(path.parent)
    assert find_weights("it.safetensors") == Path("it.safetensors")
    with pytest.raises(FileNotFoundError, match=r"'./nothing.safetensors' is neither"):
        find_weights("./nothing.safetensors")
