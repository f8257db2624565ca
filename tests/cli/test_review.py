"""`multibox check` with predictions: what a detector doubts, decided on and mended; folds, and the learning curve."""

import json
import re
from pathlib import Path
from xml.etree.ElementTree import parse

import pytest

from multibox.data.holdout import Holdout
from multibox.data.read import read_dataset
from multibox.data.sample import Dataset
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.data.write import write_voc
from multibox.detector import Detector
from multibox.review.suspects import FINDING_OF
from multibox.training.finish import provenance_of
from multibox.training.recipes import TrainConfig
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


@pytest.mark.parametrize(("holdout", "split", "count"), [(Holdout("train", 0.25), None, 2), (None, "val", 0)])
def test_it_is_said_how_many_images_a_detector_learned_from(
    multibox: Multibox, data: Path, tmp_path: Path, holdout: Holdout | None, split: str | None, count: int
):
    train_set = read_dataset(data, split="train")
    if holdout:
        train_set = holdout.divide(train_set)["train"]
        assert len(train_set) == count
    detector = Detector.create("ssd256-tiny", train_set.class_names, seed=0)
    detector.provenance |= provenance_of(TrainConfig(steps=1), train_set, holdout, None)
    detector.save(tmp_path / "mine.safetensors")
    command = ("check", data, "--only", "label-missing", "--predict", tmp_path / "mine.safetensors")
    err = multibox(*command, *(["--split", split] if split else []), "--page", tmp_path / "page.html").err
    said = [line for line in err if "learned from" in line]
    assert bool(said) == bool(count)
    assert not count or f"learned from {count} of these 9 images, mistakes included" in said[0]


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--predict", SHAPES, "--folds", 3], "--predict and --folds are two questions"),
        (["--folds", 3, "--learning-curve"], "--folds and --learning-curve are two questions"),
        (["--folds", 1], "--folds must be at least 2"),
        (["--steps", 9], "--steps is the length of trainings"),
        (["--decisions", "decisions.json"], "say where to write it: --fix OUT"),
        (["--learning-curve", "--fix", "new"], "leave out --fix"),
        (["--learning-curve", "--only", "files", "--json", "-"], "leave out --only, --json"),
        (["--learning-curve", "--fast", "--pixels", "--skip", "note"], "leave out --skip, --fast, --pixels"),
        (["--learning-curve", "--model", "ssd256-tiny", "--size", 64], "leave out --size"),
        (["--learning-curve", "--page", "new.html"], "--page is the page of a review; it goes with --predict or"),
        (["--page", "new.html"], "--page is the page of a review"),
        (["--seeds", 3], "--seeds is the number of trainings on each part"),
        (["--folds", 2, "--seeds", 3], "it goes with --learning-curve"),
        (["--predict", SHAPES, "--work", "new"], "--work is the folder of trainings"),
        (["--folds", 2, "--model", "ssd256-tiny", "--size", 64], "--size does not reach the trainings of --folds"),
        (["--predict", SHAPES, "--only", "files"], "which --only or --skip leaves out"),
        (["--predict", "ssd256-tiny"], "is a preset, a network that is not trained yet"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch, flags: list[object], what: str
):
    monkeypatch.chdir(tmp_path)  # without a page or trainings of an earlier check
    status, out, err = multibox("check", data, *flags)
    assert (status, out) == (2, [])
    assert what in err[0]


def test_a_decision_about_an_image_of_two_splits_is_applied_where_the_copy_has_it(
    multibox: Multibox, data: Path, tmp_path: Path
):
    lists = data / "ImageSets" / "Main"
    name = lists.joinpath("train.txt").read_text().split()[0]
    with (lists / "val.txt").open("a") as file:
        file.write(f"{name}\n")
    found = {"name": CLASS_NAMES[0], "box": [1, 2, 30, 40]}
    image = next(sample.name for sample in read_dataset(data, split="train") if Path(sample.name).stem == name)
    decision = {"split": "train", "image": image, "kind": "missing", "decision": "change", "found": found}
    decisions = tmp_path / "decisions.json"
    decisions.write_text(json.dumps({"version": 1, "data": "scenes", "decisions": [decision]}))
    multibox("check", data, "--fix", tmp_path / "mended", "--decisions", decisions)
    changes = (tmp_path / "mended" / "changes.csv").read_text()
    assert "image-in-two-splits" in changes and "label added" in changes
    (sample,) = [each for each in read_dataset(tmp_path / "mended", split="val") if Path(each.name).stem == name]
    assert [1, 2, 30, 40] in sample.truth.boxes.tolist()


def test_a_file_that_holds_no_decisions_is_refused(multibox: Multibox, data: Path, tmp_path: Path):
    (tmp_path / "notes.json").write_text("{}")
    status, out, err = multibox("check", data, "--fix", tmp_path / "new", "--decisions", tmp_path / "notes.json")
    assert (status, out, len(err)) == (1, [], 1)
    assert "not the decisions" in err[0]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("flags", "kinds"),
    [
        (["--only", "label-missing"], {"label-missing"}),
        (["--only", "labels", "--skip", "label-missing"], {"label-swapped", "label-misplaced", "label-phantom"}),
    ],
)
def test_only_and_skip_choose_among_the_doubts(
    multibox: Multibox, scenes: Path, tmp_path: Path, flags: list[str], kinds: set[str]
):
    page = tmp_path / "review.html"
    _, out, _ = multibox("check", scenes, "--predict", SHAPES, *flags, "--page", page, "--json", "-")
    report = json.loads("\n".join(out))
    assert {kind for kind in report["looked_for"] if kind in FINDING_OF.values()} == kinds
    found = {kind["id"] for kind in report["kinds"]} & {*FINDING_OF.values()}
    assert found <= kinds
    assert ("label-missing" in found) == ("label-missing" in kinds)
    assert {FINDING_OF[row["kind"]] for row in (rows_of(page) if page.exists() else [])} <= kinds


@pytest.mark.parametrize("content", [None, 0.5])
def test_without_a_usable_image_the_report_comes_all_the_same(
    multibox: Multibox, data: Path, weights: Path, tmp_path: Path, content: float | None
):
    for image in (data / "JPEGImages").iterdir():
        whole = image.read_bytes()
        image.unlink()
        if content:
            image.write_bytes(whole[: int(content * len(whole))])
    _, out, err = multibox("check", data, "--predict", weights, "--page", tmp_path / "review.html")
    assert err == ["there is no image to judge: none can be used"]
    assert "kinds looked for" in out[-1]


@pytest.fixture
def learning_curve_sets(monkeypatch) -> list[Dataset]:
    """The sets that the learning curve would be measured with, which stops there."""
    sets: list[Dataset] = []

    def measure(train_set: Dataset, val_set: Dataset, *_: object, **__: object) -> None:
        sets.extend((train_set, val_set))
        raise ValueError("measured")

    monkeypatch.setattr("multibox.trials.learning_curve.measure_learning_curve", measure)
    return sets


@pytest.mark.parametrize("has_test", [True, False])
def test_the_learning_curve_is_not_scored_on_what_was_learned(
    multibox: Multibox, data: Path, tmp_path: Path, learning_curve_sets: list[Dataset], has_test: bool
):
    lists = data / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text((lists / "train.txt").read_text() + (lists / "val.txt").read_text())
    if not has_test:
        (lists / "test.txt").unlink()
    multibox("check", data, "--learning-curve", "--split", "trainval", "--work", tmp_path / "work")
    learned, scored = ({sample.image for sample in each} for each in learning_curve_sets)
    assert len(learned | scored) == len(learned) + len(scored) == (9 if has_test else 7)


def test_the_learning_curve_checks_its_validation_set_before_it_trains(
    multibox: Multibox, data: Path, tmp_path: Path, learning_curve_sets: list[Dataset]
):
    for name in (data / "ImageSets" / "Main" / "val.txt").read_text().split():
        file = data / "Annotations" / f"{name}.xml"
        file.write_text(re.sub(r"<object>.*</object>", "", file.read_text(), flags=re.DOTALL))
    status, _, err = multibox("check", data, "--learning-curve", "--work", tmp_path / "work")
    assert (status, learning_curve_sets) == (1, [])
    assert "no image has an annotated object" in err[-1]


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
