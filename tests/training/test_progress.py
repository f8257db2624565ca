from dataclasses import fields
from math import inf, nan

import pytest

from multibox.training.progress import Progress


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
        (86400, "24:00:00"),
        (nan, "0:00"),
        (inf, "0:00"),
    ],
)
def test_time_left_is_in_hours_minutes_and_seconds(seconds, expected):
    progress = Progress(**{field.name: 0 for field in fields(Progress)} | {"seconds_left": seconds})
    assert str(progress).endswith(f"  {expected} left")
