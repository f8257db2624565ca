"""No image is judged by a detector that saw it, or a copy of it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from multibox.data.read import read_dataset
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.data.write import write_voc
from multibox.detector import Detector
from multibox.training.recipes import TrainConfig
from multibox.trials import folds as folds_module
from multibox.trials import job as job_module
from multibox.trials.folds import divide, predict_on_folds


def named(names: list[str]):
    scenes = synthetic_scenes(1, seed=0)
    return replace(scenes, samples=[replace(scenes[0], name=name) for name in names])


def test_folds_are_disjoint_of_like_size_and_keep_stems_together():
    names = [f"{number}.jpg" for number in range(20)] + ["3_jpg.rf.abc.jpg", "3_jpg.rf.def.jpg", "a/7.png"]
    parts = divide(named(names), 3)
    assert sorted(index for part in parts for index in part) == list(range(len(names)))
    assert max(map(len, parts)) - min(map(len, parts)) <= 4
    where = {names[index]: fold for fold, part in enumerate(parts) for index in part}
    assert where["3_jpg.rf.abc.jpg"] == where["3_jpg.rf.def.jpg"]
    assert divide(named(names), 3) == parts


@pytest.mark.parametrize("folds", [0, 1, 4])
def test_a_number_of_folds_that_cannot_be_is_refused(folds):
    with pytest.raises(ValueError, match=f"from 2 to the number of images, but is {folds} for 3 images"):
        divide(named(["a.jpg", "b.jpg", "c.jpg"]), folds)


def test_each_image_is_judged_by_a_detector_of_other_images(tmp_path, monkeypatch):
    write_voc({"train": synthetic_scenes(7, seed=4)}, tmp_path / "data")
    copied = next((tmp_path / "data/JPEGImages").iterdir())
    for folder, suffix in (("JPEGImages", copied.suffix), ("Annotations", ".xml")):
        file = tmp_path / "data" / folder / f"{copied.stem}{suffix}"
        shutil.copy(file, file.with_stem("another_name"))
    with (tmp_path / "data/ImageSets/Main/train.txt").open("a") as lines:
        lines.write("another_name\n")
    dataset = read_dataset(tmp_path / "data", split="train")
    assert len(dataset) == 8
    learned: list[set[bytes]] = []
    judged: list[set[bytes]] = []
    detector = Detector.create("ssd256-tiny", CLASS_NAMES, seed=0)
    evaluate = folds_module.evaluate

    def train(model, train_set, val_set, config, *, out, resume, on_progress) -> None:
        learned.append({sample.image.read_bytes() for sample in train_set})
        out.mkdir()
        detector.save(out / "best.safetensors")

    def judge(detector, held_out, **values):
        judged.append({sample.image.read_bytes() for sample in held_out})
        return evaluate(detector, held_out, **values)

    monkeypatch.setattr(job_module, "train", train)
    monkeypatch.setattr(folds_module, "evaluate", judge)
    found = predict_on_folds(dataset, tmp_path / "folds", folds=3, model="ssd256-tiny")
    assert [each.path for each in found] == [sample.image for sample in dataset]
    assert len(learned) == len(judged) == 3
    for seen, held_out in zip(learned, judged, strict=True):
        assert not seen & held_out
        assert len(seen | held_out) == 7


@pytest.mark.slow
def test_folds_of_real_trainings_are_the_same_when_they_are_read_again(tmp_path):
    scenes = synthetic_scenes(9, seed=2)
    config = TrainConfig(steps=2, batch_size=2, workers=0, device="cpu", precision="fp32")
    first = predict_on_folds(scenes, tmp_path / "folds", model="multibox/shapes", config=config)
    again = predict_on_folds(scenes, tmp_path / "folds", model="multibox/shapes", config=config)
    for one, other in zip(first, again, strict=True):
        assert len(one)
        np.testing.assert_array_equal(one.boxes, other.boxes)
