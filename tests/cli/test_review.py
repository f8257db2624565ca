"""`multibox check` with predictions: what a detector doubts, decided on and mended; folds, and the learning curve."""

import json
import re
from pathlib import Path
from xml.etree.ElementTree import parse

import pytest

from multibox.data.read import read_dataset
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_voc
from tests.cli.conftest import Multibox

SHAPES = "multibox/shapes"


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Scenes of the size that the detector of shapes knows; one object of `val` has no label."""
    folder = tmp_path / "shapes"
    write_voc({"train": synthetic_scenes(3, seed=11), "val": synthetic_scenes(3, seed=12)}, folder)
    file = folder / "Annotations" / f"{lost_of(folder)[0]}.xml"
    tree = parse(file)
    tree.getroot().remove(tree.getroot().findall("object")[0])
    tree.write(file)
    return folder


def lost_of(folder: Path) -> tuple[str, str, list[int]]:
    """The image, class and box of the object that gets no label: the first one of the first image of `val`."""
    sample = synthetic_scenes(3, seed=12)[0]
    name = (folder / "ImageSets/Main/val.txt").read_text().split()[0]
    return name, sample.truth.labels[0], sample.truth.boxes[0].round().astype(int).tolist()


def rows_of(page: Path) -> list[dict]:
    (text,) = re.findall(r'id="data">(.*)</script>', page.read_text(encoding="utf-8"))
    return json.loads(text)["suspects"]


def test_a_missing_label_is_found_decided_on_and_added_to_a_copy(multibox: Multibox, scenes: Path, tmp_path: Path):
    page, report = tmp_path / "review.html", tmp_path / "report.json"
    command = ("check", scenes, "--only", "labels", "--predict", SHAPES, "--page", page, "--json", report)
    _, out, err = multibox(*command)
    assert any("label-missing" in line for line in out)
    assert any(f"to walk through: {page}" in line for line in err)
    kinds = {kind["id"]: kind for kind in json.loads(report.read_text())["kinds"]}
    image = lost_of(scenes)[0]
    assert Path(kinds["label-missing"]["findings"][0]["file"]).stem == image

    row = rows_of(page)[0]
    assert (row["kind"], Path(row["image"]).stem, row["split"]) == ("missing", image, "val")
    label = {name: row["found"][name] for name in ("name", "box")}
    decision = {"split": "val", "image": row["image"], "kind": "missing", "decision": "change", "found": label}
    decisions = tmp_path / "decisions.json"
    decisions.write_text(json.dumps({"version": 1, "data": "shapes", "decisions": [decision]}))
    before = len(read_dataset(scenes, split="val")[0].truth)
    multibox("check", scenes, "--fix", tmp_path / "mended", "--decisions", decisions)
    mended = read_dataset(tmp_path / "mended", split="val")[0].truth
    assert len(mended) == before + 1
    assert len(read_dataset(scenes, split="val")[0].truth) == before
    changes = (tmp_path / "mended" / "changes.csv").read_text()
    assert re.search(rf'label-missing,val,{row["image"]},"no label at .*",label added', changes)

    assert multibox(*command).status == 1  # the page is there already
    assert multibox(*command, "--overwrite").err[-1] == f"written to {report}"


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--predict", SHAPES, "--folds", 3], "--predict and --folds are two questions"),
        (["--folds", 3, "--learning-curve"], "--folds and --learning-curve are two questions"),
        (["--folds", 1], "--folds must be at least 2"),
        (["--steps", 9], "--steps is the length of trainings"),
        (["--decisions", "decisions.json"], "say where to write it: --fix OUT"),
        (["--predict", "ssd256-tiny"], "is a preset, a network that is not trained yet"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(multibox: Multibox, data: Path, flags: list[object], what: str):
    status, out, err = multibox("check", data, *flags)
    assert (status, out) == (2, [])
    assert what in err[0]


def test_a_file_that_holds_no_decisions_is_refused(multibox: Multibox, data: Path, tmp_path: Path):
    (tmp_path / "notes.json").write_text("{}")
    status, out, err = multibox("check", data, "--fix", tmp_path / "new", "--decisions", tmp_path / "notes.json")
    assert (status, out, len(err)) == (1, [], 1)
    assert "not the decisions" in err[0]
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_folds_and_the_learning_curve_keep_their_trainings(
    multibox: Multibox, scenes: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folds = ("check", scenes, "--only", "labels", "--folds", 2, "--steps", 2, "--model", SHAPES)
    assert any(line.startswith("2 trainings of 2 steps on 6 images, kept in runs") for line in multibox(*folds).err)
    assert sorted(path.name for path in Path("runs/shapes-folds").iterdir()) == ["fold-1", "fold-2", "plan.json"]
    written = Path("runs/shapes-folds/fold-1/last.safetensors").stat().st_mtime_ns
    multibox(*folds, "--overwrite")
    assert Path("runs/shapes-folds/fold-1/last.safetensors").stat().st_mtime_ns == written
    status, out, _ = multibox("check", scenes, "--learning-curve", "--steps", 2, "--seeds", 2, "--model", SHAPES)
    assert status == 0
    assert out[0].split() == ["images", "AP", "AP", "by", "seed", "AP50"]
    assert "a forecast by a power law" in " ".join(out)
    assert Path("runs/shapes-learning-curve/learning-curve.png").is_file()
    assert max(map(len, out)) <= 80
