from dataclasses import fields
from math import inf, nan

import pytest

from multibox.evaluation.metrics import Metrics
from multibox.training.progress import Progress, RunLength, progress_line
from multibox.training.recipes import TrainConfig


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0:00"),
        (0.2, "0:01"),
        (59.9, "1:00"),
        (60.5, "1:01"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (7260, "2:01:00"),
        (86400, "24 h"),
        (nan, "0:00"),
        (inf, "0:00"),
    ],
)
def test_time_left_is_in_hours_minutes_and_seconds(seconds, expected):
    progress = Progress(**{field.name: 0 for field in fields(Progress)} | {"seconds_left": seconds})
    assert str(progress).endswith(f"  {expected} left")


def at(step: int, *, loss: float = 3.83, speed: float = 54.0, left: float = 130.0) -> Progress:
    values = {field.name: 0 for field in fields(Progress)}
    return Progress(**values | {"step": step, "localization": loss, "images_per_second": speed, "seconds_left": left})


def metrics(ap50: float | None, ap: float | None) -> Metrics:
    return Metrics("coco", "continuous", images=1, objects=1, ap=ap, ap50=ap50, per_class={})


def length(epoch_steps: float = 25.625, **values: float) -> RunLength:
    return RunLength.of(TrainConfig(**values), epoch_steps=epoch_steps)


def test_the_line_of_an_epoch():
    position = length(epochs=40).position(77, 60.0)
    line = progress_line(at(77), position, validates=True, metrics=metrics(0.5523, 0.2651), best=True)
    assert line == "epoch 3/40     loss 3.83   AP50 55.2  AP 26.5  best  54 images/s  2:10 left"


def test_the_lines_of_a_run_are_aligned():
    runs = length(epochs=40)
    lines = [
        progress_line(at(step, loss=loss), runs.position(step, 0.0), validates=True, metrics=scores, best=best)
        for step, loss, scores, best in [
            (26, 13.83, metrics(0.0512, 0.0049), True),
            (260, 3.5, metrics(1.0, 0.9), False),
            (270, 3.25, None, False),  # between two validations
            (512, 2.25, metrics(None, None), False),
        ]
    ]
    assert [line.index("54 images/s") for line in lines] == [lines[0].index("54 images/s")] * 4
    assert [line.index("AP50") for line in (lines[0], lines[1], lines[3])] == [lines[0].index("AP50")] * 3
    assert lines[2].startswith("epoch 10.5/40")
    assert "AP50 -" in lines[3]
    without = progress_line(at(26), runs.position(26, 0.0))
    assert without == "epoch 1/40     loss 3.83   54 images/s  2:10 left"


@pytest.mark.parametrize(
    ("values", "step", "seconds", "expected"),
    [
        ({"epochs": 2}, 52, 9.0, "epoch 2/2"),  # the last batch is filled with images of the third epoch
        ({"epochs": 40, "validate_every": 0.5}, 64, 9.0, "epoch 2.5/40"),
        ({"steps": 2000}, 120, 9.0, "step 120/2000"),
        ({"minutes": 10}, 120, 126.0, "minute 2.1/10"),
        ({"epochs": 40, "minutes": 10}, 256, 30.0, "epoch 10/40"),  # a quarter of the epochs, a twentieth of the time
        ({"epochs": 40, "minutes": 10}, 256, 300.0, "minute 5.0/10"),
        ({"epochs": 40, "steps": 100}, 50, 9.0, "step 50/100"),
        ({"steps": 100, "minutes": 10}, 50, 9.0, "step 50/100"),
    ],
)
def test_the_position_of_a_run(values, step, seconds, expected):
    assert length(**values).position(step, seconds) == expected


@pytest.mark.parametrize("values", [{"epochs": 1000}, {"steps": 120_000}, {"minutes": 2880}])
def test_a_line_fits_a_terminal(values):
    runs = length(**values)
    for step, seconds, left, loss in ((119_000, 1e5, 126_000, 12.34), (1, 1.0, 359_000, 123.4)):
        position = runs.position(step, seconds)
        line = progress_line(
            at(step, left=left, loss=loss, speed=1234.0), position, validates=True, metrics=metrics(1, 1), best=True
        )
        assert len(line) <= 80, line


@pytest.mark.parametrize(
    ("values", "seconds", "expected"),
    [
        ({"epochs": 100}, 1.2, "100 epochs, about 51 minutes on this CPU without the validations, at 1.2 s a step"),
        ({"epochs": 1}, 0.25, "1 epoch, about 6.5 seconds on this CPU without the validations, at 250 ms a step"),
        ({"epochs": 232}, 20.0, "232 epochs, about 33 hours on this CPU without the validations, at 20 s a step"),
        ({"steps": 300}, 1.0, "300 steps, about 5 minutes on this CPU without the validations, at 1 s a step"),
        ({"minutes": 10}, 0.5, "10 minutes are at most 47 epochs on this CPU, at 500 ms a step"),
        ({"minutes": 1, "epochs": 100}, 0.5, "1 minute is at most 4.7 epochs on this CPU, at 500 ms a step"),
    ],
)
def test_the_forecast(values, seconds, expected):
    said = length(**values).forecast(0, 0.0, seconds, device="CPU")
    assert said.removesuffix("; --minutes limits it") == expected
    assert said.endswith("--minutes limits it") == ("minutes" not in values)
