"""An image's way to its detections stays short: how many functions a reader passes is counted by tracing."""

from tools import count_hops


def test_an_image_comes_to_its_detections_in_few_steps():
    found = count_hops.detect("ssd256-tiny")
    functions, files = count_hops.LIMITS["detect"]
    assert len(found) <= functions, found
    assert len({file for file, _ in found}) <= files, found


def test_what_is_called_is_seen():
    assert ("boxes.py", "nms") in count_hops.detect("ssd256-tiny")
    assert count_hops.hops(lambda: None) == []
