"""A file in 8 bits says what it costs, or is not written; decoding and suppression are never in 8 bits."""

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
from PIL import Image

import multibox
from multibox.cli import main
from multibox.data.holdout import Holdout
from multibox.data.sample import GroundTruth
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_voc
from multibox.deploy.export import Exported, Int8
from multibox.deploy.int8 import _network_operations, check_apart, network_nodes
from multibox.deploy.proof import Proof
from multibox.detector import Detector
from multibox.images import open_image

SHAPES = "multibox/shapes"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes to calibrate on and to judge by; in the split `test` all images are black."""
    folder = tmp_path_factory.mktemp("scenes") / "voc"
    numbers = {"train": 8, "val": 10, "test": 2}
    write_voc({name: synthetic_scenes(count, seed=count) for name, count in numbers.items()}, folder)
    for name in (folder / "ImageSets" / "Main" / "test.txt").read_text().split():
        (image,) = (folder / "JPEGImages").glob(f"{name}.*")
        Image.new("RGB", open_image(image).size).save(image)
    return folder


@pytest.fixture(params=[".onnx", ".xml"])
def out(request, tmp_path: Path) -> Path:
    return tmp_path / "made" / f"int8{request.param}"  # a name that export may take for a file on the way


def export_int8(out: Path, data: Path, *flags: str) -> int:
    return main(["export", SHAPES, str(out), "--int8", "--data", str(data), *flags])


def check_only_the_network_is_quantized(out: Path) -> None:
    if out.suffix == ".onnx":
        model = onnx.load(out)
        made_by = {name: node for node in model.graph.node for name in node.output}
        quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        before = [made_by[node.input[0]] for node in quantizers if node.input[0] in made_by]
        assert {node.name for node in before} <= network_nodes(model)
        assert sum(node.op_type == "DequantizeLinear" for node in model.graph.node) > 100
    else:
        import openvino

        model = openvino.Core().read_model(out)
        quantizers = [each for each in model.get_ops() if each.get_type_name() == "FakeQuantize"]
        names = {each.get_friendly_name() for each in quantizers}
        assert len(names) > 30
        assert names <= _network_operations(model)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--prepare"], ["--nms", "none"]])
def test_what_8_bits_cost_is_printed(out: Path, data: Path, capsys, flags: list[str]):
    assert export_int8(out, data, "--max-drop", "0.05", *flags) == 0
    said, warned = capsys.readouterr()
    assert "WARNING" not in warned
    assert re.search(r"judged on 10 images of .*val.*:\n +fp32 +int8 +difference \(95 %\)\n", said)
    for row in ("AP", "AP50", "AP75", *(f"AP of {name}" for name in multibox.load(SHAPES).class_names)):
        assert re.search(rf"^{row} +\d+\.\d+ +\d+\.\d+ +[+-]\d+\.\d\d \(.* to .*\)$", said, re.MULTILINE), row
    before, after = map(float, re.findall(r"size: (\S+) MB in fp32, (\S+) MB in int8", said)[0])
    assert after < 0.5 * before
    assert re.search(r"time of an image: \S+ ms in fp32, \S+ ms in int8, \S+ times as fast", said)
    check_only_the_network_is_quantized(out)
    exported = multibox.load(out)
    found = exported.detect(multibox.EXAMPLE_IMAGE)
    assert found.labels.tolist() == multibox.load(SHAPES).detect(multibox.EXAMPLE_IMAGE).labels.tolist()


@pytest.mark.slow
def test_a_file_that_costs_too_much_is_not_written(out: Path, data: Path, capsys):
    """Calibrated on black images, the ranges of the activations are far too small."""
    assert export_int8(out, data, "--calibrate-split", "test", "--judge-split", "val") == 1
    said = capsys.readouterr().err
    assert re.search(
        rf"{out.name} is not written: in 8 bits AP50 falls by \d+\.\d\d points, and the limit is 0.50", said
    )
    assert "AP of star" in said
    assert list(out.parent.iterdir()) == []


def test_an_image_that_is_calibrated_on_is_not_judged(out: Path, data: Path, capsys):
    assert export_int8(out, data, "--calibrate-split", "val") == 1
    assert re.search(r"is judged, but it is the same image as .*, which is calibrated on", capsys.readouterr().err)
    assert list(out.parent.iterdir()) == []


def test_8_bits_need_data(tmp_path: Path, capsys):
    assert main(["export", SHAPES, str(tmp_path / "shapes.onnx"), "--int8"]) == 2
    assert "--int8 needs --data" in capsys.readouterr().err


def test_sets_without_images_or_objects_are_refused():
    scenes = synthetic_scenes(2, seed=1)
    nothing = dataclasses.replace(scenes, name="empty", samples=[])
    no_objects = [dataclasses.replace(each, truth=GroundTruth([], [])) for each in synthetic_scenes(2, seed=2)]
    for sets, said in (
        ((nothing, scenes), "empty has no images to calibrate on"),
        ((scenes, nothing), "empty has no images to judge by"),
        ((scenes, dataclasses.replace(scenes, name="sky", samples=no_objects)), "no image of sky has an object"),
        ((scenes, scenes), f"{scenes[0].name} is judged, but it is the same image as {scenes[0].name}, which is"),
    ):
        with pytest.raises(ValueError, match=said):
            check_apart(*sets)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--judge-split", "val"], "--judge-split is a split of --data, which is missing"),
        (["--data", "scenes", "--calibrate-split", "train"], "--calibrate-split is for 8 bits: add --int8"),
        (["--max-drop", "0.1"], "--max-drop is for 8 bits: add --int8"),
    ],
)
def test_flags_without_the_one_that_they_are_for(tmp_path: Path, capsys, flags: list[str], said: str):
    assert main(["export", SHAPES, str(tmp_path / "shapes.onnx"), *flags]) == 2
    assert said in capsys.readouterr().err


class Asked(NamedTuple):
    """What the command asks for."""

    images: list
    int8: Int8 | None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What each call of the command asks for; nothing is exported."""
    calls: list[Asked] = []

    def export(detector: Detector, path: Path, *, images: list, int8: Int8 | None, **others: object) -> Exported:
        calls.append(Asked(images, int8))
        path.write_bytes(b"")
        return Exported(Proof(len(images), 100, 0, 0.0, 0.0), None)

    monkeypatch.setattr("multibox.deploy.export.export", export)
    return calls


def test_images_that_are_only_compared_may_have_other_classes(data: Path, tmp_path: Path, asked: list[Asked], capsys):
    weights = tmp_path / "raccoon.safetensors"
    Detector.create("ssd256-tiny", ["raccoon"], seed=0).save(weights)
    command = ["export", str(weights), str(tmp_path / "raccoon.onnx"), "--data", str(data)]
    assert main(command) == 0
    assert [len(each.images) for each in asked] == [10]
    assert main([*command, "--overwrite", "--int8"]) == 1
    assert "which is none of the 1 classes: 'raccoon'" in capsys.readouterr().err
    assert len(asked) == 1


def test_images_that_training_held_out_judge(data: Path, tmp_path: Path, asked: list[Asked]):
    """And the others of the split calibrate, as they are those that were learned from."""
    only_train = tmp_path / "undivided"
    write_voc({"train": synthetic_scenes(20, seed=8)}, only_train)
    shapes = Detector.load(SHAPES)
    shapes.provenance.update(Holdout("train", 0.3, 0.0).to_provenance())
    shapes.save(tmp_path / "shapes.safetensors")
    command = ["export", str(tmp_path / "shapes.safetensors"), str(tmp_path / "shapes.onnx"), "--int8", "--data"]
    assert main([*command, str(only_train)]) == 0
    ((images, int8),) = asked
    assert int8 is not None and len(int8.calibrate) + len(int8.judge) == 20 and len(images) == len(int8.judge) > 2
    check_apart(int8.calibrate, int8.judge)
    assert main([*command, str(data), "--overwrite"]) == 0  # has the splits train and val
    assert [len(each.int8.calibrate) for each in asked[1:]] == [8] and [len(each.images) for each in asked[1:]] == [10]


@pytest.mark.slow
def test_a_file_for_another_program_is_in_8_bits_too(tmp_path: Path, data: Path):
    """Its network is the one that was judged."""
    import onnxruntime

    out = tmp_path / "shapes.onnx"
    assert export_int8(out, data, "--max-drop", "0.05", "--for", "opencv") == 0
    check_only_the_network_is_quantized(out)
    detector = multibox.load(SHAPES)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    inputs = detector.prepare(multibox.EXAMPLE_IMAGE).astype("float32")
    _, scores = session.run(["boxes", "scores"], {"images": inputs})
    found = detector.detect(multibox.EXAMPLE_IMAGE)
    assert abs(scores[0, found.default_box_indices, found.labels] - found.scores).max() < 0.1
