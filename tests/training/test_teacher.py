"""A run with a teacher: what fits, what does not, and what the run leaves behind."""

import csv
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.detector import Detector
from multibox.presets import preset
from multibox.ssd.distillation import distillation_loss
from multibox.training import TrainConfig, fit, train
from multibox.training.teacher import LoadedTeacher, Teacher, load_teacher
from multibox.weights.file import load_weights

pytestmark = pytest.mark.usefixtures("plain_recipes")

CONFIG = TrainConfig(steps=4, batch_size=4, validate_every=1000, device="cpu", workers=0)


@pytest.fixture(scope="module")
def train_set():
    return synthetic_scenes(12, seed=1, height=64, width=64)


@pytest.fixture(scope="module")
def inputs():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), np.uint8))


def sure(detector):
    """The detector with logits that leave many default boxes to the teacher's word, and many not."""
    torch.manual_seed(1)
    for head in detector.network.logits.values():
        for weights in head.parameters():
            torch.nn.init.normal_(weights, std=0.5)
    return detector


@pytest.fixture
def teacher(new_detector):
    return sure(new_detector(seed=7))


@pytest.fixture(autouse=True)
def no_card(monkeypatch):
    """Drawing takes longer than the runs here. `finished` is made before."""
    monkeypatch.setattr(fit, "finalize", lambda *arguments, **values: None)


def rows_of(out):
    with (out / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def aligned(teacher, student):
    return Teacher(load_teacher(teacher, progress=False), student)


def test_the_teacher_predicts_what_its_network_predicts_in_evaluation_mode(teacher, new_detector, inputs):
    student = new_detector()
    teacher.network.train()
    found = aligned(teacher, student).predict(inputs)
    assert teacher.network.training  # the teacher itself is not touched
    expected = teacher.network.eval()(inputs)
    assert torch.equal(found.offsets, expected.offsets) and torch.equal(found.logits, expected.logits)
    assert not found.logits.requires_grad


def test_classes_are_aligned_by_their_names(teacher, new_detector, inputs):
    turned = teacher.with_classes(CLASS_NAMES[::-1])
    found, same = (aligned(each, new_detector()).predict(inputs) for each in (turned, teacher))
    assert not torch.equal(turned.network.eval()(inputs).logits, same.logits)
    torch.testing.assert_close(found, same)


def test_inputs_are_resized_to_the_teacher_s_size(new_detector, small_config, inputs):
    """A teacher of twice the size has the same table: cells one stage deeper, and boxes of twice the size."""
    layers = ("stage4", "conv6_2", "conv7_2", "conv8_2")
    maps = tuple(
        replace(
            row,
            layer=layer,
            step=tuple(2 * pixels for pixels in row.step),
            box_sizes=tuple((2 * width, 2 * height) for width, height in row.box_sizes),
        )
        for row, layer in zip(small_config.feature_maps, layers, strict=True)
    )
    extras = preset("ssd256-tiny").extras[:6]
    config = replace(small_config, name="large", height=128, width=128, extras=extras, feature_maps=maps)
    large = Detector.create(config, CLASS_NAMES, seed=0)
    even = torch.full_like(inputs, 77)
    found = aligned(large, new_detector()).predict(even)
    torch.testing.assert_close(found, large.network.eval()(torch.full((2, 3, 128, 128), 77, dtype=torch.uint8)))


def test_other_default_boxes_are_counted_and_the_first_is_shown(teacher, new_detector):
    first, *rest = teacher.config.feature_maps
    wider = replace(first, box_sizes=((first.box_sizes[0][0] * 2, first.box_sizes[0][1]), *first.box_sizes[1:]))
    other = Detector.create(replace(teacher.config, name="wider", feature_maps=(wider, *rest)), CLASS_NAMES, seed=0)
    count = len(teacher.network.default_boxes)
    with pytest.raises(
        ValueError, match=rf"^64 of the {count} default boxes of the teacher \(wider\) .* is number 0: \["
    ):
        aligned(other, new_detector())
    fewer = replace(teacher.config, name="fewer", feature_maps=(first, *rest[:-1]))
    with pytest.raises(
        ValueError, match=rf"the teacher \(fewer\) has \d+ default boxes, the student \(small\) {count};"
    ):
        aligned(Detector.create(fewer, CLASS_NAMES, seed=0), new_detector())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda detector: detector.with_classes(["circle", "zebra"]), "only the teacher has 'zebra'; only the student"),
        (lambda detector: with_values(detector, scoring="sigmoid"), "scores each class by a sigmoid"),
        (lambda detector: with_values(detector, size_variance=0.1), "size_variance is 0.1, the student's 0.2"),
    ],
)
def test_a_teacher_that_does_not_fit(teacher, new_detector, change, message):
    with pytest.raises(ValueError, match=message):
        aligned(change(teacher), new_detector())


def with_values(detector, **values):
    return Detector.create(replace(detector.config, **values), CLASS_NAMES, seed=0)


def test_the_origin_is_the_file_its_hash_and_what_it_learned(tmp_path, teacher):
    teacher.provenance["trained on"] = "many scenes"
    file = tmp_path / "large.safetensors"
    teacher.save(file)
    _, origin, notes = load_teacher(file, progress=False)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert origin == f"{file}, small, SHA-256 {digest}, trained on many scenes"
    assert notes == {"teacher": str(file)}
    assert load_teacher(teacher, progress=False) == LoadedTeacher(teacher, "small, trained on many scenes", {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, new_detector, train_set, plain_recipes):
    """Folders of a run with a teacher and of one without, and the teacher's file."""
    folder = tmp_path_factory.mktemp("runs")
    sure(new_detector(seed=7)).save(folder / "teacher.safetensors")
    for name, teacher in (("taught", folder / "teacher.safetensors"), ("alone", None)):
        train(new_detector(), train_set, None, CONFIG, out=folder / name, teacher=teacher)
    return folder


def test_a_run_leaves_its_teacher_s_traces(finished):
    file = finished / "teacher.safetensors"
    weights = load_weights(finished / "taught" / "best.safetensors")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in weights.provenance["teacher"]
    assert yaml.safe_load((finished / "taught" / "config.yaml").read_text())["teacher"] == str(file)
    card = json.loads((finished / "taught" / "card.json").read_text("utf-8"))
    assert card["provenance"]["teacher"] == weights.provenance["teacher"]
    assert f"the teacher: {file}, small" in (finished / "taught" / "log.txt").read_text("utf-8")
    assert all(float(row["distillation"]) > 0 for row in rows_of(finished / "taught"))


def test_a_run_without_a_teacher_has_none_of_them(finished):
    assert "teacher" not in load_weights(finished / "alone" / "best.safetensors").provenance
    assert "teacher" not in yaml.safe_load((finished / "alone" / "config.yaml").read_text())
    assert all(row["distillation"] == "" for row in rows_of(finished / "alone"))
    taught, alone = (load_weights(finished / name / "best.safetensors").tensors for name in ("taught", "alone"))
    assert any(not np.array_equal(taught[name], alone[name]) for name in taught)


def test_a_weight_of_0_is_a_run_without_a_teacher_to_the_bit(tmp_path, finished, new_detector, train_set):
    config = replace(CONFIG, distillation_weight=0.0)
    best = train(new_detector(), train_set, None, config, out=tmp_path, teacher=finished / "teacher.safetensors")
    alone = load_weights(finished / "alone" / "best.safetensors").tensors
    assert all(np.array_equal(values.numpy(), alone[name]) for name, values in best.network.state_dict().items())


def test_parts_of_a_step_are_taught_as_the_whole(tmp_path, new_detector, train_set, teacher):
    losses = []
    for accumulate in (1, 2):
        config = replace(CONFIG, steps=1, accumulate=accumulate)
        folder = tmp_path / str(accumulate)
        train(new_detector(), train_set, None, config, out=folder, teacher=teacher)
        losses.append(float(rows_of(folder)[-1]["distillation"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.2)  # BatchNorm sees other images
    assert losses[0] > 0


def test_a_student_comes_to_its_teacher(tmp_path, new_detector, train_set, teacher):
    student = new_detector()
    progress = []
    config = replace(CONFIG, steps=60, learning_rate=0.003, distillation_weight=10.0)
    train(student, train_set, None, config, out=tmp_path, teacher=teacher, on_progress=progress.append)
    rows = [float(row["distillation"]) for row in rows_of(tmp_path)]
    assert rows[-1] < 0.8 * progress[0].distillation


def test_a_resumed_run_needs_its_teacher_again(tmp_path, finished, new_detector, train_set, caplog):
    file = finished / "teacher.safetensors"
    longer = replace(CONFIG, steps=6)
    train(new_detector(), train_set, None, longer, out=tmp_path / "whole", teacher=file)
    parts = tmp_path / "parts"

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, None, longer, out=parts, teacher=file, on_progress=stop)
    with pytest.raises(ValueError, match=r"it learns from a teacher \(.*teacher.safetensors, .*which is missing; give"):
        train(new_detector(), train_set, None, longer, out=parts, resume=True)
    train(new_detector(), train_set, None, longer, out=parts, teacher=file, resume=True)
    whole, resumed = (load_weights(folder / "best.safetensors").tensors for folder in (tmp_path / "whole", parts))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert "the teacher is" not in caplog.text
    other = replace(longer, steps=7)
    train(new_detector(), train_set, None, other, out=parts, teacher=new_detector(seed=9), resume=True)
    assert "the teacher is small from here on, and was" in caplog.text


def test_a_weight_without_a_teacher_is_said(tmp_path, new_detector, train_set, caplog):
    train(new_detector(), train_set, None, replace(CONFIG, steps=1, distillation_weight=2.0), out=tmp_path)
    assert "distillation_weight has no effect without a teacher" in caplog.text


def test_a_teacher_that_is_not_there_is_reported_before_the_data_are_read(tmp_path, new_detector):
    with pytest.raises(
        FileNotFoundError, match=r"^the teacher '.*' is neither a weights file nor the name of published weights"
    ):
        train(new_detector(), tmp_path / "no data", out=tmp_path / "run", teacher=tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"123")
    with pytest.raises(ValueError, match=r"bad\.safetensors"):
        train(new_detector(), tmp_path / "no data", out=tmp_path / "run", teacher=tmp_path / "bad.safetensors")


def test_bf16_teaches_as_float32_does(teacher, new_detector, inputs):
    student = new_detector()
    made = aligned(teacher, student)
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.no_grad():
            losses.append(distillation_loss(student.network(inputs), made.predict(inputs), divisor=1.0).item())
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
