"""An image's ways to its detections and to its loss stay short: the functions on them are counted by tracing."""

from tools import count_hops


def test_an_image_comes_to_its_detections_in_few_steps():
    found = count_hops.detect("ssd256-tiny")
    functions, files = count_hops.LIMITS["detect"]
    assert len(found) <= functions, found
    assert len({file for file, _ in found}) <= files, found


def test_an_image_comes_to_its_loss_in_few_steps():
    found = count_hops.train("ssd256-tiny")
    functions, _ = count_hops.LIMITS["train"]
    assert len(found) <= functions, found
    assert len({file for file, _ in found}) <= 13, found  # CONTRIBUTING.md says why they are more than wanted


def test_what_is_called_is_seen():
    assert ("boxes.py", "nms") in count_hops.detect("ssd256-tiny")
    assert ("ssd/cpu.py", "multibox_loss") in count_hops.train("ssd256-tiny")
    assert count_hops.hops(lambda: None) == []
