"""A detector is judged by its own default boxes, wherever they are kept, and the doctor counts as coverage does."""

import base64
import re
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement

import numpy as np
import pytest

from multibox.data.read import read_dataset
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_coco
from multibox.default_boxes import feature_maps_of, make_default_boxes, place_of
from multibox.doctor import examine
from multibox.explain.coverage import by_map, measure_coverage
from multibox.explain.model import Model, open_model
from multibox.presets import preset
from multibox.runtimes.exported import ExportFacts
from multibox.weights.file import Weights, make_header, save_weights

CONFIG = replace(preset("ssd256-tiny"), stored_default_boxes=True)
TABLE = make_default_boxes(CONFIG) * np.array([1, 1, 0.5, 0.7], np.float32)
WEIGHTS = Weights(CONFIG, ("star",), {"default_boxes": TABLE}, {}, {})


def write_exported(path: Path, default_boxes: str) -> None:
    """Writes what an OpenVINO file says of its detector, without its network."""
    root = Element("net")
    rows = SubElement(SubElement(root, "rt_info"), "multibox")
    facts = ExportFacts("none", CONFIG.postprocess, default_boxes)
    for name, value in {**make_header(WEIGHTS), "export": facts.to_text()}.items():
        SubElement(rows, name, value=value)
    ElementTree(root).write(path)


@pytest.fixture(params=[".safetensors", ".xml"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    """A detector that was read from a file with stored default boxes."""
    path = tmp_path / f"mine{request.param}"
    if request.param == ".xml":
        write_exported(path, base64.b64encode(TABLE.tobytes()).decode())
    else:
        save_weights(path, WEIGHTS)
    return open_model(str(path))


def test_stored_default_boxes_are_taken_in_place_of_the_configs(stored: Model):
    assert (stored.config, stored.class_names) == (CONFIG, ("star",))
    np.testing.assert_array_equal(stored.default_boxes, TABLE)


def test_the_doctor_counts_as_coverage_does(stored: Model, tmp_path: Path):
    write_coco({"train": synthetic_scenes(20, seed=3, height=300, width=200)}, tmp_path / "scenes")
    covered = measure_coverage(read_dataset(tmp_path / "scenes"), CONFIG, stored.default_boxes)
    report = examine(tmp_path / "scenes", model=stored, only=["detector"])
    uncovered = ("object-uncovered", "object-ratio", "object-without-default-box")
    found = sum(finding.kind in uncovered for finding in report.findings)
    assert found == (~covered.covered).sum() > 0
    usual = measure_coverage(read_dataset(tmp_path / "scenes"), CONFIG)
    assert found != (~usual.covered).sum()
    idle = {finding.value for finding in report.findings if finding.kind == "map-idle"}
    counts = {row.name: f"{row.objects} of {len(covered)} objects" for row in by_map(covered, CONFIG)}
    assert idle == {
        f"{row.layer} ({row.rows} x {row.columns} cells): {counts[row.layer]}"
        for row in CONFIG.feature_maps
        if int(counts[row.layer].split()[0]) < 0.01 * len(covered)
    }


def test_a_table_of_another_detector_is_named(tmp_path: Path):
    path = tmp_path / "mine.xml"
    write_exported(path, "AAAA")
    with pytest.raises(ValueError, match=re.escape(f"{path}: its metadata are damaged (export: ")):
        open_model(str(path))


def test_a_backbone_of_timm_is_a_detector_too():
    pytest.importorskip("timm")
    model = open_model("timm/resnet18", height=128, width=192)
    assert (model.config.height, model.config.width, model.class_names) == (128, 192, None)
    np.testing.assert_array_equal(model.default_boxes, make_default_boxes(model.config))


def test_each_default_box_has_the_map_of_its_place():
    maps = feature_maps_of(CONFIG)
    assert len(maps) == CONFIG.num_default_boxes
    assert maps[::17].tolist() == [place_of(index, CONFIG).feature_map for index in range(0, len(maps), 17)]
