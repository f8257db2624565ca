"""The numbers in the tour's text are what the code gives, in both languages, and its pictures are there and small."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.make_tour import FOLDER, QUALITY, Tour, facts, pictures

ROOT = Path(__file__).parent.parent
TOURS = [ROOT / "docs" / "tour.md", ROOT / "docs" / "tour.ko.md"]
MOST_BYTES = 600_000


@pytest.fixture(scope="module")
def tour() -> Tour:
    return Tour.begin()


def test_every_number_of_the_tour_is_what_the_code_gives(tour: Tour) -> None:
    for page in TOURS:
        text = " ".join(page.read_text(encoding="utf-8").split())
        for name, value in facts(tour).items():
            assert re.search(rf"(?<![\d.,]){re.escape(value)}(?![.,]?\d)", text), f"{page.name}: {name} is {value}"


def test_the_pictures_are_those_that_the_tour_shows_and_small() -> None:
    files = sorted(FOLDER.iterdir())
    for page in TOURS:
        shown = re.findall(r"!\[[^\]]+\]\((images/tour/[^)]+)\)", page.read_text(encoding="utf-8"))
        assert sorted(page.parent / each for each in shown) == files
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES


@pytest.mark.slow
def test_the_pictures_are_as_the_code_draws_them(tour: Tour) -> None:
    for name, picture in pictures(tour):
        drawn = io.BytesIO()
        picture.save(drawn, "jpeg", quality=QUALITY)
        with Image.open(FOLDER / f"{name}.jpg") as committed, Image.open(drawn) as now:
            assert committed.size == now.size, f"{name}: make docs"
            difference = np.asarray(committed, float) - np.asarray(now, float)
        assert np.abs(difference).mean() < 1, f"{name}: make docs"
