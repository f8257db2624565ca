"""Files of weights: all that a detector needs in one, and every other file refused for what it is."""

import errno
import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from multibox.detector import Detector
from multibox.presets import preset
from multibox.weights.converters.state_dict import read_state_dict
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
    with pytest.raises(OSError, match=r"No space left on device: '.*full\.safetensors'"):
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
    with pytest.raises(
        ValueError, match=r"it\.safetensors: not a \.safetensors file, or damaged .*; download or copy it again"
    ):
        Detector.load(path)


@pytest.mark.parametrize("read", [load_weights, read_state_dict])
def test_a_file_that_may_not_be_read_is_not_called_damaged(path: Path, monkeypatch: pytest.MonkeyPatch, read):
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("multibox.weights.file.check_header_size", refuse)
    monkeypatch.setattr("multibox.weights.converters.state_dict.check_header_size", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*it\.safetensors'"):
        read(path)


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


@pytest.mark.parametrize("version", ["2", "2.0", "12.1"])
def test_a_later_format_is_refused_by_name(path: Path, version: str):
    rewrite(path, header={"format": f"multibox {version}"})
    with pytest.raises(ValueError, match=rf"a later multibox, in format {version}.*; this one reads up to {FORMAT};"):
        Detector.load(path)


def later_minor() -> str:
    major, minor = FORMAT.split(".")
    return f"{major}.{int(minor) + 1}"


def test_a_later_minor_version_is_read_unless_it_has_something_new(path: Path):
    original, later = path.read_bytes(), {"format": f"multibox {later_minor()}"}
    rewrite(path, header=later)
    assert Detector.load(path).class_names == ("cat", "dog")
    for change in ({"color_of_the_day": "green"}, {"scoring": "entmax"}):
        rewrite(path, header=later | changed_config(path, **change))
        with pytest.raises(
            ValueError,
            match=rf"written by a later multibox, in format {later_minor()}; this one reads up to {FORMAT}; install .*"
            r"\((unknown field 'color_of_the_day'|Invalid enum value 'entmax')",
        ):
            Detector.load(path)
        path.write_bytes(original)


def test_a_file_of_the_first_version_is_read(path: Path):
    config = json.loads(header_of(path)["config"])
    del config["draft_decoding"]
    rewrite(path, header={"format": "multibox 1", "config": json.dumps(config)})
    assert not Detector.load(path).config.draft_decoding


def test_the_version_of_a_damaged_header_is_shown_short(path: Path):
    rewrite(path, header={"format": "multibox " + "9" * 10**6})
    with pytest.raises(ValueError, match="its header is damaged") as refused:
        Detector.load(path)
    assert len(str(refused.value)) < 500


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
        {"class_names": "[]"},
        {"class_names": '["cat", "cat"]'},
        {"class_names": "[" * 100_000},
        {"provenance": '{"seed": 1}'},
        {"provenance": '{"a":' * 100_000},
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


# --- small files that ask for much ---


def written(path: Path, header: bytes) -> Path:
    """A file with this header and no tensors."""
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def hostile(path: Path, **changes: object) -> Path:
    """A tiny file whose config has these values."""
    config = json.loads(preset("ssd256-tiny").to_json()) | changes
    metadata = {"format": "multibox 1", "config": json.dumps(config), "class_names": '["a"]', "provenance": "{}"}
    return written(path, json.dumps({"__metadata__": metadata}).encode())


def row(**changes: object) -> dict[str, object]:
    return json.loads(preset("ssd256-tiny").to_json())["feature_maps"][0] | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_maps": [row(rows=10**9, columns=10**9)]}, "rows must be from 1 to 4096|Expected `int` <= 4096"),
        ({"feature_maps": [row(box_sizes=[[8, 8]] * 50_000)]}, "51,200,000 default boxes, but may have at most"),
        ({"feature_maps": [row(layer=f"a{place}") for place in range(101)]}, "length <= 100"),
        ({"extras": [{"name": "a", "channels": 2**40, "kernel": 3}]}, "Expected `int` <= 65536"),
        ({"extras": [{"name": "a", "channels": 8, "kernel": 10**6}]}, "Expected `int` <= 64"),
        ({"extras": [{"name": "a", "channels": 8, "kernel": 3, "padding": 10**9}]}, "padding|enum|Expected"),
        ({"extras": [{"name": "keys", "channels": 8, "kernel": 3}]}, "cannot be called so: .*keys"),
        ({"extras": [{"name": "stage5", "channels": 8, "kernel": 3}]}, "'stage5' has the name of a layer of 'tiny'"),
        ({"feature_maps": [row(layer="conv99")]}, "there is no layer 'conv99' for a feature map; 'tiny' with"),
        ({"extras": [{"name": f"a{n}", "channels": 65536, "kernel": 64} for n in range(100)]}, "there is no layer"),
        ({"backbone": "x" * 10**6}, "length <= 200"),
        ({"height": 10**9}, "Expected `int` <= 4096"),
        ({}, "do not fit 'ssd256-tiny' with 1 classes; the first is .*: missing"),
    ],
)
def test_a_small_file_cannot_ask_for_much(tmp_path: Path, changes: dict[str, object], message: str):
    path = hostile(tmp_path / "it.safetensors", **changes)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as refused:
            Detector.load(path)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert len(str(refused.value)) < 800


@pytest.mark.parametrize("size", [17 << 20, 500 << 20, 2**63 - 1])
def test_a_huge_header_is_not_read(tmp_path: Path, size: int):
    path = tmp_path / "it.safetensors"
    with path.open("wb") as file:
        file.write(size.to_bytes(8, "little") + b"{")
        file.truncate(min(size, 600 << 20))  # takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match=r"not a \.safetensors file, or damaged \(it does not begin with the header"
        ):
            Detector.load(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_heads_that_do_not_fit_are_refused_before_any_tensor_is_read(path: Path, monkeypatch: pytest.MonkeyPatch):
    class Opened:
        def __init__(self, *arguments: object, **values: object) -> None:
            self.file = safe_open(*arguments, **values)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self.file.__exit__(*error)

        def __getattr__(self, name: str):
            assert name != "get_tensor", "a tensor is read"
            return getattr(self.file, name)

    rewrite(path, header={"class_names": json.dumps([f"class {number}" for number in range(1000)])})
    monkeypatch.setattr("multibox.weights.file.safe_open", Opened)
    with pytest.raises(ValueError, match=r"with 1000 classes; the head 'logits\.\w+.* has 1[28] outputs, expected"):
        Detector.load(path)


def test_a_training_state_is_told_from_weights(path: Path):
    state = path.with_name("last.pt")
    torch.save({"step": 3}, state)
    with pytest.raises(ValueError, match=r"last\.pt: not a \.safetensors file, or damaged"):
        Detector.load(state)
    path.rename(path.with_name("last.safetensors"))
    with pytest.raises(ValueError, match=r"last\.pt: a training state; the weights are last\.safetensors beside it"):
        Detector.load(state)


@pytest.mark.parametrize("name", ["ssd256-tiny", "timm/resnet18"])
def test_a_preset_is_told_from_weights(name: str):
    with pytest.raises(FileNotFoundError, match=f"'{name}' is a preset, untrained; train it first .*--model {name}"):
        find_weights(name)


# score thresholds


def test_score_thresholds_are_kept(tmp_path: Path, detector: Detector):
    thresholds = {"dog": 0.37}
    own = Detector.of_network(detector.config, detector.class_names, detector.network, score_thresholds=thresholds)
    for half in (False, True):
        own.save(tmp_path / "it.safetensors", half=half)
        assert load_weights(tmp_path / "it.safetensors").score_thresholds == thresholds
        assert Detector.load(tmp_path / "it.safetensors").score_thresholds == thresholds


@pytest.mark.parametrize("version", ["1", "1.0", "1.1", "1.2", FORMAT])
def test_a_file_without_score_thresholds_is_loaded(path: Path, version: str):
    """As every file of an earlier format is."""
    assert "score_thresholds" not in header_of(path)
    rewrite(path, header={"format": f"multibox {version}"})
    assert Detector.load(path).score_thresholds == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"cat": 1.5}', "1.5|<= 1"),
        ('{"cat": -0.1}', ">= 0"),
        ('{"cat": "high"}', "str"),
        ('{"bird": 0.5}', "'bird', which is none of its classes"),
        ("[0.5, 0.5]", "array"),
        ("{", "truncated"),
        ('{"cat": NaN}', "malformed"),
    ],
)
def test_damaged_score_thresholds_are_refused(path: Path, text: str, why: str):
    rewrite(path, header={"score_thresholds": text})
    with pytest.raises(ValueError, match=rf"it\.safetensors: its header is damaged \(.*({why}).*\)"):
        Detector.load(path)
