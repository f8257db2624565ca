import pytest

from multibox.training.machine import _default_workers


@pytest.mark.parametrize(
    ("device", "cores", "workers"),
    [("cpu", 1, 0), ("cpu", 3, 0), ("cpu", 4, 1), ("cpu", 8, 2), ("cuda", 1, 1), ("cuda", 2, 1), ("cuda:1", 16, 15)],
)
def test_processes_that_read_images_by_default(device, cores, workers):
    """One core of four, which can feed the other three; with a GPU, all cores but one."""
    assert _default_workers(device, cores) == workers
