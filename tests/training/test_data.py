"""A detector is compared with the data before a run begins."""

from dataclasses import replace

import pytest

from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.detector import Detector
from multibox.presets import preset
from multibox.training.data import check_data


def test_a_sigmoid_detector_is_not_trained_with_the_softmax_loss():
    """As TensorFlow's converted detectors are: the loss would learn another meaning of the logits."""
    config = replace(preset("ssd256-tiny"), scoring="sigmoid")
    detector = Detector.create(config, CLASS_NAMES, seed=0)
    scenes = synthetic_scenes(1, seed=0)
    with pytest.raises(ValueError, match=r"softmax .* sigmoid; make one to train with detector\.with_classes\("):
        check_data(detector, [scenes])
    check_data(detector.with_classes(CLASS_NAMES), [scenes])
