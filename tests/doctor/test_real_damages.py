"""Every kind of damage in `real_damages.py` is found in small copies of the shared sets, and mended where it can be.

There are 105 kinds over the three formats, a kind that formats share counted once: blood cells in VOC's XML, COCO's own
images, boards in YOLO's text, and a part of VOC 2007.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from multibox.cli import main
from tests.doctor.real_damages import DAMAGES, Damage
from tests.doctor.real_sets import Coco, Place, RealSet, Voc, Yolo, small_coco, small_voc, small_yolo

pytestmark = pytest.mark.slow

FORMATS: dict[str, type[RealSet]] = {
    "bccd": Voc,
    "bccd-whole": Voc,
    "voc2007-trainval": Voc,
    "coco-mini": Coco,
    "deeppcb": Yolo,
}
EMPTY_BOXES = {"BloodImage_00343": 4, "BloodImage_00338": 13}  # the object of BCCD's image that has no width

Found = dict[str, Any]


class Report(NamedTuple):
    """What `multibox check --json` wrote."""

    status: int
    kinds: dict[str, Found]

    def findings(self, kind: str) -> list[Found]:
        return list(self.kinds[kind]["findings"]) if kind in self.kinds else []

    def of_grade(self, *grades: str) -> set[tuple[str, str]]:
        """The kind and place of each finding of these grades."""
        found = (each for each in self.kinds.values() if each["grade"] in grades)
        return {(each["id"], finding["where"]) for each in found for finding in each["findings"]}

    def fixable(self) -> list[str]:
        return [kind for kind, each in self.kinds.items() if each["fixable"]]


def check(folder: Path, output: Path, *flags: str) -> Report:
    """Runs the command on the folder. The paths of the report are relative to it."""
    status = main(["check", str(folder), "--json", str(output), *flags])
    text = output.read_text().replace(f"{folder}/", "").replace(str(folder), "")
    return Report(status, {each["id"]: each for each in json.loads(text)["kinds"]})


@pytest.fixture(scope="session")
def small_set(shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder of a part of a shared set, which is made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name == "bccd-whole":
            return shared_data("bccd") / "BCCD"
        if name not in made:
            source, target = shared_data(name), tmp_path_factory.mktemp("small") / name
            if name == "coco-mini":
                small_coco(source / "coco-mini", target)
            elif name == "deeppcb":
                small_yolo(source / "deeppcb", target)
            elif name == "bccd":
                small_voc(source / "BCCD", target, must=tuple(EMPTY_BOXES))
            else:
                small_voc(source / "VOCdevkit" / "VOC2007", target, train=90)
            made[name] = target
        return made[name]

    return make


@pytest.fixture(scope="session")
def undamaged(
    small_set: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, tuple[str, ...]], Report]:
    """Returns what is reported about a part of a shared set as it is."""
    places = tmp_path_factory
    reports: dict[tuple[str, tuple[str, ...]], Report] = {}

    def look(name: str, flags: tuple[str, ...]) -> Report:
        if (name, flags) not in reports:
            reports[name, flags] = check(small_set(name), places.mktemp("reports") / "found.json", *flags)
        return reports[name, flags]

    return look


def is_at(finding: Found, place: Place) -> bool:
    return (
        str(finding["file"] or "").endswith(place.file)
        and (place.object is None or finding["object"] == place.object)
        and place.value in f"{finding['where']} {finding['split']} {finding['value']}"
    )


@pytest.mark.parametrize(
    ("name", "damage"),
    [pytest.param(name, each, id=f"{name}-{each.name}") for each in DAMAGES for name in each.sets],
)
def test_a_damage_is_found_with_its_file_and_object_and_mended(
    name: str,
    damage: Damage,
    small_set: Callable[[str], Path],
    undamaged: Callable[[str, tuple[str, ...]], Report],
    tmp_path: Path,
) -> None:
    before = undamaged(name, damage.flags)
    folder = Path(shutil.copytree(small_set(name), tmp_path / name))
    places = damage.put(FORMATS[name](folder))

    report = check(folder, tmp_path / "found.json", *damage.flags, "--fix", str(tmp_path / "mended"))
    new = [each for each in report.findings(damage.kind) if each not in before.findings(damage.kind)]
    for place in places:
        assert any(is_at(each, place) for each in new), (place, new or sorted(report.kinds))

    allowed = {damage.kind, *damage.also}
    false_alarms = report.of_grade("error", "warning") - before.of_grade("error", "warning")
    assert not [each for each in false_alarms if each[0] not in allowed]

    after = check(tmp_path / "mended", tmp_path / "left.json", *damage.flags)
    assert not after.fixable()


def test_damages_of_many_images_are_all_found_together(small_set: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_set("voc2007-trainval"), tmp_path / "voc"))
    data, before = Voc(folder), check(folder, tmp_path / "before.json")
    boxes = [each for each in DAMAGES if each.kind.startswith("box-") and "bccd" in each.sets]
    assert len(boxes) >= 20
    places = [(each.kind, place) for each in boxes for place in each.put(data)]

    report = check(folder, tmp_path / "found.json", "--fix", str(tmp_path / "mended"))
    for kind, place in places:
        assert any(is_at(each, place) for each in report.findings(kind)), (kind, place)
    new = report.of_grade("error") - before.of_grade("error")
    assert {kind for kind, _ in new} <= {each.kind for each in boxes}
    files = {place.file for _, place in places}
    assert {where.partition(", object")[0] for _, where in new} <= files
    assert not check(tmp_path / "mended", tmp_path / "left.json").fixable()


def test_there_are_at_least_fifty_kinds_of_damage():
    assert len({each.kind for each in DAMAGES}) >= 50


def test_the_two_empty_boxes_of_bccd_are_named(shared_data: Callable[[str], Path], tmp_path: Path):
    report = check(shared_data("bccd") / "BCCD", tmp_path / "found.json")
    found = {Path(each["file"]).stem: each["object"] for each in report.findings("box-empty")}
    assert found == EMPTY_BOXES
    assert {kind for kind, _ in report.of_grade("error")} == {"box-empty"}
    assert report.status == 1
