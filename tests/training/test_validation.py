"""Validation detects as `Detector.detect` and `evaluate` do: the same pixels, decoded at a reduced size too."""

import csv
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from multibox.data.sample import Dataset, Sample
from multibox.data.synthetic import synthetic_scenes
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate
from multibox.training import TrainConfig, train, validation
from multibox.training.distributed import ProcessGroup
from multibox.training.interrupts import Interrupts, Stopped

ALONE = ProcessGroup(rank=0, size=1, device="cpu")


@pytest.fixture(scope="module")
def large_jpegs(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Scenes of 64 x 64 pixels in JPEG files of ten times the size, more than a batch of them."""
    folder = tmp_path_factory.mktemp("large")
    samples = []
    for number, scene in enumerate(synthetic_scenes(validation.BATCH_SIZE + 3, seed=5, height=64, width=64)):
        path = folder / f"{number}.jpg"
        Image.fromarray(scene.image.transpose(1, 2, 0)).resize((640, 640), Image.Resampling.NEAREST).save(path)
        truth = scene.truth
        samples.append(Sample(path.name, path, 640, 640, type(truth)(truth.boxes * 10, truth.labels), image_id=number))
    return Dataset("large", synthetic_scenes(1, seed=0).class_names, samples)


def test_large_jpegs_are_seen_as_the_detector_sees_them(new_detector, large_jpegs):
    detector = new_detector()
    assert detector.config.draft_decoding
    found = validation.predict(detector, large_jpegs, ALONE, Interrupts())
    expected = detector.detect(
        [sample.image for sample in large_jpegs], score_threshold=detector.config.postprocess.score_threshold
    )
    whole = detector.detect([sample.open() for sample in large_jpegs], score_threshold=0.01)
    assert len(found) == len(expected) == len(large_jpegs)
    for one, other in zip(found, expected, strict=True):
        assert len(one) > 0
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.boxes, other.boxes)
    assert any(
        len(one) != len(other) or (one.scores != other.scores).any() for one, other in zip(found, whole, strict=True)
    )


@pytest.mark.usefixtures("plain_recipes")
def test_the_ap_of_a_run_is_that_of_evaluate(new_detector, large_jpegs, tmp_path):
    config = TrainConfig(epochs=4, batch_size=4, workers=0, device="cpu", seed=0, precision="fp32")
    train(new_detector(), large_jpegs, large_jpegs, replace(config, validate_every=100), out=tmp_path)
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    ap = evaluate(Detector.load(tmp_path / "best.safetensors"), large_jpegs).ap
    assert ap is not None and ap > 0
    assert float(last["ap"]) == pytest.approx(ap, rel=1e-3)


def test_a_stop_is_heard_between_two_images(new_detector, large_jpegs):
    interrupts, seen = Interrupts(), []

    class Watched(Dataset):
        def __getitem__(self, index):
            seen.append(index)
            if index == 2:
                interrupts.heard = signal.SIGINT
            return super().__getitem__(index)

    watched = Watched(large_jpegs.name, large_jpegs.class_names, large_jpegs.samples)
    with pytest.raises(Stopped):
        validation.predict(new_detector(), watched, ALONE, interrupts)
    assert seen == [0, 1, 2]


def test_an_image_that_cannot_be_read_names_the_set_but_the_network_s_error_does_not(
    new_detector, large_jpegs, tmp_path
):
    first, *others = large_jpegs.samples
    gone = replace(large_jpegs, samples=[*others, replace(first, image=tmp_path / "gone.jpg")])
    with pytest.raises(ValueError, match=r"gone\.jpg: there is no such image; the image belongs to large"):
        validation.predict(new_detector(), gone, ALONE, Interrupts())
    detector = new_detector()
    for values in detector.network.parameters():
        values.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN") as caught:
        validation.predict(detector, large_jpegs, ALONE, Interrupts())
    assert "belongs to" not in str(caught.value)
