"""State dicts are read as they are, and what is none is refused in a sentence, without running anything."""

import argparse
import datetime
import io
import pickle
import struct
import tracemalloc
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from multibox.detector import Detector
from multibox.weights.converters.state_dict import read_state_dict, read_state_dicts

STATE = OrderedDict(
    {
        "layer.weight": torch.arange(6.0).reshape(2, 3),
        "layer.turned": torch.arange(6.0).reshape(2, 3).T,
        "layer.half": torch.tensor([0.5, -2.0], dtype=torch.float16),
        "layer.num_batches_tracked": torch.tensor(7),
        "layer.empty": torch.zeros(0, 3),
    }
)


def save_new(state: object, path: Path) -> None:
    torch.save(state, path)


def save_old(state: object, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


SAVES = pytest.mark.parametrize("save", [save_new, save_old])


def check(path: Path) -> None:
    found = read_state_dict(path)
    assert list(found) == list(STATE)
    for key, tensor in STATE.items():
        np.testing.assert_array_equal(found[key], tensor.numpy())
    assert found["layer.half"].dtype == np.float32
    assert found["layer.num_batches_tracked"].dtype == np.int64


@SAVES
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"state": {}, "lr": 0.1}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
        lambda state: {key: torch.nn.Parameter(t, requires_grad=t.is_floating_point()) for key, t in state.items()},
    ],
    ids=["plain", "state_dict", "model", "nested", "module", "parameters"],
)
def test_tensors_are_read_as_they_are(tmp_path: Path, save, wrap):
    save(wrap(STATE), tmp_path / "it.pth")
    check(tmp_path / "it.pth")


@dataclass
class Settings:
    """Of a training script, which is not there when its checkpoint is read."""

    rate: float
    folder: Path


class EasyDict(dict[str, object]):
    """As the configs of many projects: a dict with attributes."""


class Net(torch.nn.Module):
    """A network that was saved whole."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
        self.register_buffer("mean", torch.arange(3.0))
        self.register_buffer("temporary", torch.zeros(2), persistent=False)


def beside(**others: object) -> Callable[[object], object]:
    return lambda state: {"model": state, **others}


LINEAR = torch.nn.Linear(2, 2)
OPTIMIZER = torch.optim.Adam(LINEAR.parameters())
CLOTHES: dict[str, Callable[[object], object]] = {
    "net": lambda state: {"epoch": 3, "net": state},
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "loss": torch.tensor(0.5)},
    "any key": lambda state: {"who knows": state},
    "in a list": lambda state: [7, state],
    "namespace": beside(args=argparse.Namespace(rate=0.1, names=["a"])),
    "numpy number": beside(best=np.float64(0.3), curve=np.arange(3.0)),
    "dataclass": beside(settings=Settings(0.1, Path("runs"))),
    "path": beside(folder=Path("runs"), when=datetime.datetime(2026, 1, 2), kind=pickle.HIGHEST_PROTOCOL),
    "counter": beside(counts=Counter("aab"), by=defaultdict(list, a=[1])),
    "set": beside(seen={1, 2}, frozen=frozenset("ab"), array=bytearray(b"ab"), complex=1j),
    "easydict": beside(config=EasyDict(rate=0.1)),
    "state in an easydict": lambda state: EasyDict(model=state),
    "ordered": lambda state: OrderedDict(model=OrderedDict(state)),  # type: ignore[call-overload]
    "defaultdict": lambda state: defaultdict(dict, model=state),  # type: ignore[call-overload]
    "scheduler": beside(
        optimizer=OPTIMIZER.state_dict(),
        scheduler=torch.optim.lr_scheduler.StepLR(OPTIMIZER, 3).state_dict(),
        generator=torch.get_rng_state(),
    ),
    "optimizer itself": beside(optimizer=OPTIMIZER),
    "numbers among the tensors": lambda state: {**state, "epoch": 3, "best": np.float64(1)},  # type: ignore[dict-item]
    "average": lambda state: {"ema": {key: -tensor for key, tensor in state.items()}, "model": state},  # type: ignore[attr-defined]
    "average first": lambda state: {  # torchvision's references
        "model_ema": {"n_averaged": torch.tensor(3)} | {f"module.{key}": -tensor for key, tensor in state.items()},  # type: ignore[attr-defined]
        "model": state,
    },
    "compiled": lambda state: {f"_orig_mod.{key}": tensor for key, tensor in state.items()},  # type: ignore[attr-defined]
    "compiled in parallel": lambda state: {f"module._orig_mod.{key}": t for key, t in state.items()},  # type: ignore[attr-defined]
    "compiled layer": lambda state: {key.replace("layer.", "layer._orig_mod."): t for key, t in state.items()},  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("clothes", CLOTHES)
def test_checkpoints_of_training_scripts_are_read(tmp_path: Path, clothes: str, protocol: int):
    torch.save(CLOTHES[clothes](STATE), tmp_path / "it.ckpt", pickle_protocol=protocol)
    check(tmp_path / "it.ckpt")


@SAVES
def test_a_prefix_that_most_keys_share_is_taken_off_in_a_later_try(tmp_path: Path, save):
    """As Lightning has it, beside tensors of a loss."""
    state = {f"model.net.{key}": tensor for key, tensor in STATE.items()} | {"loss.weight": torch.ones(2)}
    save({"state_dict": state, "callbacks": {}}, tmp_path / "it.ckpt")
    whole, without, *others = list(read_state_dicts(tmp_path / "it.ckpt"))
    assert (whole.prefix, without.prefix, others[0].prefix) == ("", "model.", "model.net.")
    assert without.left == ("loss.weight",)
    assert list(others[0].tensors) == list(STATE)


@SAVES
def test_a_network_that_was_saved_whole_is_read_without_its_code(tmp_path: Path, save):
    network = Net()
    save({"net": network, "epoch": 3}, tmp_path / "it.pth")
    found = read_state_dict(tmp_path / "it.pth")
    for key, tensor in network.state_dict().items():
        np.testing.assert_array_equal(found[key], tensor.numpy())


def test_numbers_of_all_types_are_read(tmp_path: Path):
    draw = torch.Generator().manual_seed(0)
    state = {
        str(kind): (torch.randn(4, 5, generator=draw) * 3).to(kind)
        for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    } | {"int8": torch.tensor([-3], dtype=torch.int8), "bool": torch.tensor([True, False]), "none": torch.tensor(3.5)}
    state["part"] = state["torch.bfloat16"][1:, ::2]
    for save in (save_new, save_old):
        save(state, tmp_path / "it.pth")
        for key, array in read_state_dict(tmp_path / "it.pth").items():
            expected = state[key].float() if state[key].is_floating_point() else state[key]
            np.testing.assert_array_equal(array, expected.numpy())
            assert array.dtype == expected.numpy().dtype


def test_torchscript_is_told_by_its_name(tmp_path: Path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "it.pt")
    with zipfile.ZipFile(tmp_path / "it.pt", "a") as archive:
        archive.writestr("it/constants.pkl", pickle.dumps(()))
    refused(tmp_path / "it.pt", r"a TorchScript file, which holds code; .*torch\.save\(network\.state_dict\(\)")


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path):
    torch.save({"weight": torch.ones(77)}, tmp_path / "it.pth")
    swap_pickle(tmp_path / "it.pth", lambda data: data.replace(b"K\x4d\x85", b"K\x4e\x85"))
    refused(tmp_path / "it.pth", "truncated, damaged")


@pytest.mark.parametrize(
    "instructions",
    [
        b"cos\nsystem\n(S'touch run'\ntR.",
        b"cos\nsystem\n(S'touch run'\nt\x81.",
        b"cos\nsystem\n(S'touch run'\nt}\x92.",
        b"(S'touch run'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch run'\no.",
        b"\x8c\x02os\x8c\x06system\x93(S'touch run'\ntR.",
        b"cos\nsystem\n)R}S'__setstate__'\ncos\nsystem\nsb(S'touch run'\ntR.",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN(S'touch run'\ntNtR.",
        b"\x82\x01(S'touch run'\ntR.",
    ],
    ids=["reduce", "newobj", "newobj_ex", "inst", "obj", "stack_global", "build", "rebuild_from_type", "ext"],
)
def test_no_instruction_of_a_pickle_calls_what_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instructions: bytes
):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(2)}, tmp_path / "it.pth")
    swap_pickle(tmp_path / "it.pth", lambda data: instructions)
    refused(
        tmp_path / "it.pth", "holds no state dict, but an object of 'os.system', whose code is never run|truncated, dam"
    )
    assert not (tmp_path / "run").exists()


def test_objects_that_refer_to_each_other_again_and_again_are_looked_at_once(tmp_path: Path):
    bomb: dict[str, object] = {}
    for _ in range(100):
        bomb = {"a": bomb, "b": bomb}
    torch.save({"model": STATE, "bomb": bomb}, tmp_path / "it.pth")
    check(tmp_path / "it.pth")


@pytest.mark.parametrize("name", ["it.safetensors", "it.bin"])
def test_safetensors_are_read_whatever_their_name(tmp_path: Path, name: str):
    save_file({key: tensor.contiguous() for key, tensor in STATE.items()}, tmp_path / name)
    found = read_state_dict(tmp_path / name)
    assert found["layer.half"].dtype == np.float32
    assert set(found) == set(STATE)
    np.testing.assert_array_equal(found["layer.turned"], STATE["layer.turned"].numpy())


@SAVES
def test_files_of_torch_are_read_whatever_their_name(tmp_path: Path, save):
    save(STATE, tmp_path / "it.safetensors")
    check(tmp_path / "it.safetensors")


def refused(path: Path, words: str) -> None:
    """One sentence that begins with the file, from `convert` as a user calls it."""
    with pytest.raises(ValueError, match=words) as error:
        Detector.convert(path)
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert len(said.splitlines()) == 1


@SAVES
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, save, share: float):
    path = tmp_path / "it.pth"
    save({"weight": torch.rand(1000), "bias": torch.rand(1000)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "truncated|it is damaged")


@pytest.mark.parametrize("data", [b"", b"weights\n", b"\x80\x02.", b"PK\x03\x04 and no more", bytes(1000)])
def test_what_is_no_file_of_torch_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "it.pth").write_bytes(data)
    refused(tmp_path / "it.pth", "truncated|it is damaged")


@pytest.mark.parametrize("save", [save_new, save_old, lambda state, path: path.write_bytes(pickle.dumps(state))])
@pytest.mark.parametrize("place", [lambda trap: trap, lambda trap: {"state_dict": STATE, "args": trap}])
def test_code_in_a_file_is_never_run(tmp_path: Path, save, place):
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (Path.write_text, (tmp_path / "run", "yes"))

    save(place(Trap()), tmp_path / "it.pth")
    refused(tmp_path / "it.pth", "whose code is never run|the weights of no detector|truncated, damaged")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([1, 2], "holds no state dict, but a list"),
        ({}, "holds no state dict, but a dict"),
        ({"epoch": 3}, "'epoch' is no tensor"),
        ({"weight": torch.eye(3).to_sparse()}, "'weight' is no plain tensor"),
        ({"weight": torch.empty(3, device="meta")}, "'weight' is no plain tensor"),
        ({"weight": torch.zeros(3, dtype=torch.complex64).conj()}, "'weight' is no plain tensor"),
        ({"weight": torch.zeros(3, dtype=torch.complex64).conj().imag}, "'weight' is no plain tensor"),
        ({"weight": torch.zeros(4, dtype=torch.uint8).view(torch.bits8)}, "'weight' is no plain tensor .*bits8"),
        ({"conv.weight": torch.ones(2)}, r"the weights of no detector that can be converted; .*conv\.weight"),
    ],
)
def test_what_is_no_state_dict_of_a_detector_is_refused(tmp_path: Path, found: object, words: str):
    torch.save(found, tmp_path / "it.pth")
    refused(tmp_path / "it.pth", words)


def test_a_file_of_multibox_need_not_be_converted(tmp_path: Path):
    Detector.create("ssd256-tiny", ["cat"]).save(tmp_path / "it.safetensors")
    refused(tmp_path / "it.safetensors", "is a weights file of multibox already")


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path):
    torch.save({"weight": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "it.pth")
    refused(tmp_path / "it.pth", "its tensors would take 4,000,000,000,000 bytes, but the file has")


def swap_pickle(path: Path, change: Callable[[bytes], bytes], *, compressed: bool = False) -> None:
    """The same file of torch with another list of its tensors."""
    with zipfile.ZipFile(path) as source:
        parts = [(item, source.read(item)) for item in source.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as target:
        for item, data in parts:
            target.writestr(item.filename, change(data) if item.filename.endswith("data.pkl") else data)


def longer(data: bytes) -> bytes:
    """A list of tensors in which `torch.ones(77)` has a million numbers."""
    assert data.count(b"K\x4d") == 2  # its storage's, and its own
    return data.replace(b"K\x4d", b"J" + struct.pack("<i", 10**6))


def test_a_storage_that_claims_more_than_its_part_holds_is_refused(tmp_path: Path):
    torch.save({"weight": torch.ones(77)}, tmp_path / "it.pth")
    swap_pickle(tmp_path / "it.pth", longer)
    refused(tmp_path / "it.pth", "truncated, damaged")


def test_a_file_that_would_unpack_to_more_is_refused(tmp_path: Path):
    torch.save({"weight": torch.zeros(10**6)}, tmp_path / "it.pth")
    swap_pickle(tmp_path / "it.pth", lambda data: data, compressed=True)
    assert (tmp_path / "it.pth").stat().st_size < 10**5
    refused(tmp_path / "it.pth", "its parts would take 4,.* bytes, but the file has")


def test_memory_is_not_taken_for_what_an_old_file_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = io.BytesIO()
    torch.save({"weight": torch.ones(77)}, written, _use_new_zipfile_serialization=False)
    (tmp_path / "it.pth").write_bytes(longer(written.getvalue()))
    not_loaded(monkeypatch)
    refused(tmp_path / "it.pth", "its parts would take 1,000,000 bytes, but the file has")


def not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *arguments, **values: pytest.fail("it was loaded"))


def test_a_zip_at_the_end_does_not_hide_what_an_old_file_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As torch tells the two apart: by how the file begins."""
    save_old({"weight": torch.ones(77)}, tmp_path / "it.pth")
    with (tmp_path / "it.pth").open("r+b") as file:
        data = longer(file.read())
        file.seek(0)
        file.write(data)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("a", b"")
    assert zipfile.is_zipfile(tmp_path / "it.pth")
    not_loaded(monkeypatch)
    refused(tmp_path / "it.pth", "its parts would take 1,000,000 bytes, but the file has")


def old_file(*storages: tuple[object, ...]) -> bytes:
    """A file of torch before 1.6 as far as its fourth pickle, which only refers to these storages."""

    class Reference:
        def __init__(self, saved_id: object) -> None:
            self.saved_id = saved_id

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return value.saved_id if isinstance(value, Reference) else None

    written = io.BytesIO()
    for value in (1, 2, 3, list(map(Reference, storages))):
        Pickler(written, protocol=2).dump(value)
    return written.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (old_file(("storage", 0, "a", "cpu", 10**9), ("storage", 0, "b", "cpu", -(10**9))), "would take 1,000,000,000"),
        (old_file(("storage", 0, "a", "cpu", 10**9), ("storage", 0, "a", "cpu", 1)), "would take 1,000,000,000"),
        (old_file(("storage", 0, "a", "cpu", 1e9)), "truncated, damaged, or no weights file"),
        (old_file(("module", 0, "a", "b")), "truncated, damaged, or no weights file"),
        (b"Nr" + struct.pack("<I", 2**25) + b".", "truncated, damaged"),
        (pickle.BYTEARRAY8 + struct.pack("<Q", 2**28) + b".", "truncated, damaged"),
    ],
    ids=["less than none", "twice", "decimal", "module", "memo", "bytearray"],
)
def test_memory_is_not_taken_for_what_a_pickle_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, words: str
):
    (tmp_path / "it.pth").write_bytes(data)
    not_loaded(monkeypatch)
    tracemalloc.start()
    try:
        refused(tmp_path / "it.pth", words)
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()


@SAVES
def test_keys_that_share_their_numbers_are_counted_together(tmp_path: Path, save):
    """One tensor under two keys is usual; under a thousand it would be a thousand times the file."""
    tied = torch.ones(10**4, dtype=torch.float16)
    save({"a": tied, "b": tied}, tmp_path / "it.pth")
    assert read_state_dict(tmp_path / "it.pth").keys() == {"a", "b"}
    save({str(key): tied for key in range(1000)}, tmp_path / "it.pth")
    refused(tmp_path / "it.pth", "its tensors would take 20,000,000 bytes, but the file has")
