"""Every kind of problem is found where a script has done the damage, and nowhere in the sound set."""

from pathlib import Path

import pytest

from multibox.doctor import KINDS, Finding, Report, examine
from multibox.doctor.examine import CHECKS
from multibox.explain.model import open_model
from tests.doctor.conftest import Copy
from tests.doctor.damages import DAMAGES, Place
from tests.doctor.sound import WRITERS

CASES = [(kind, layout) for kind, layouts in DAMAGES.items() for layout in layouts]
BY_HAND = {"object-without-default-box", "class-not-of-detector"}
"""Kinds that no file can be damaged to have, whatever the detector; tests of their own show them."""

ALWAYS = {"images-few", "map-idle", "input-larger"}
"""Kinds that the sound set has: few small images with small objects."""

COMPANIONS = {"split-unusable": {"image-missing"}, "split-part-empty": {"split-unusable"}}
"""Errors that come with a kind of damage."""


def look(folder: Path, *only: str, kind: str = "") -> Report:
    """Examines a set with all that the kind needs."""
    needs = KINDS[kind].needs if kind else "headers"
    model = open_model("ssd256-tiny") if needs == "model" else None
    return examine(folder, only=only, with_pixels=needs == "pixels", model=model)


def is_at(finding: Finding, place: Place, folder: Path) -> bool:
    file = Path(finding.file)
    there = file == folder if not place.file else place.file in (file.name, file.stem)
    return there and finding.object == place.object


@pytest.mark.parametrize("layout", WRITERS)
def test_the_sound_set_has_no_problem(sound_sets: dict[str, Path], layout: str):
    report = examine(sound_sets[layout], with_pixels=True, model=open_model("ssd256-tiny"))
    assert {finding.kind for finding in report.findings} == ALWAYS


def test_every_kind_is_damaged_and_has_a_check():
    doubts = {kind.id for kind in KINDS.values() if kind.needs == "predictions"}  # tests/review damages these
    assert DAMAGES.keys() | BY_HAND | doubts == KINDS.keys()
    checked = [kind for check in CHECKS for kind in check.kinds]
    others = [kind.id for kind in KINDS.values() if kind.needs in ("pixels", "model", "predictions")]
    assert sorted([*checked, *others]) == sorted(KINDS)


def check_damage(folder: Path, kind: str, layout: str) -> None:
    place = DAMAGES[kind][layout](folder)
    report = look(folder, kind, "error", kind=kind)
    found = report.by_kind.get(kind, [])
    assert any(is_at(finding, place, folder) for finding in found), (place, found)
    assert len(found) <= 6, found
    others = {finding.kind for finding in report.findings if KINDS[finding.kind].grade == "error"}
    assert others <= {kind} | COMPANIONS.get(kind, set())


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if KINDS[kind].grade == "error"])
def test_an_error_is_found_with_its_file_and_object(copy: Copy, kind: str):
    layout, *_ = DAMAGES[kind]
    check_damage(copy(layout), kind, layout)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "layout"), CASES)
def test_damage_is_found_in_every_layout_that_can_have_it(copy: Copy, kind: str, layout: str):
    check_damage(copy(layout), kind, layout)
