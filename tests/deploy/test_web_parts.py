"""What the page computes in JavaScript is what the package computes: run by node, without a browser."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multibox import images
from multibox.config import Postprocess
from multibox.postprocess import select

WEB = Path(images.__file__).parent / "deploy" / "web"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed: it runs the page's JavaScript")


def run_js(folder: Path, code: str, given: object) -> list:
    """The JSON that the code prints; `given` is there by that name, and all of the page's functions."""
    for file in WEB.glob("*.js"):
        shutil.copyfile(file, folder / file.name)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "given.json").write_text(json.dumps(given))
    head = (
        'import { readFileSync } from "node:fs";\nimport { prepare } from "./prepare.js";\n'
        'import { suppress } from "./suppress.js";\nconst given = JSON.parse(readFileSync("given.json"));\n'
    )
    (folder / "run.js").write_text(f"{head}console.log(JSON.stringify({code}));")
    done = subprocess.run([NODE, "run.js"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


SIZES = [(375, 500, 300, 300), (40, 31, 64, 96), (256, 256, 256, 256), (1, 1, 8, 8), (96, 64, 32, 96), (7, 400, 33, 40)]


@pytest.mark.parametrize("rule", ["antialias", "bilinear", "float"])
def test_an_image_is_prepared_to_the_bit(tmp_path: Path, rule: str):
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (rows, columns, 3), np.uint8) for rows, columns, *_ in SIZES]
    given = [
        [np.dstack([each, np.full(each.shape[:2], 255, np.uint8)]).ravel().tolist(), *size]
        for each, size in zip(pixels, SIZES, strict=True)
    ]
    code = (
        "given.map(([rgba, rows, columns, height, width]) => "
        f"Array.from(prepare(Uint8ClampedArray.from(rgba), rows, columns, {{ height, width, resize: {rule!r} }})))"
    )
    for each, (*_, height, width), found in zip(pixels, SIZES, run_js(tmp_path, code, given), strict=True):
        image = Image.fromarray(each)
        if rule == "antialias":  # some versions of Pillow take the rows first for some shapes
            image = image.resize((width, image.height), Image.Resampling.BILINEAR)
        expected = images.resize(image, height, width, rule)
        np.testing.assert_array_equal(np.array(found, expected.dtype), expected.ravel())


PLAIN = Postprocess(score_threshold=0.2)
BY_CLASS = [0.2, 0.9, 0.5]
RULES = [
    (PLAIN, None),
    (dataclasses.replace(PLAIN, class_agnostic=True, iou_threshold=0.3), None),
    (dataclasses.replace(PLAIN, max_candidates_per_class=20, max_detections=30), None),
    (dataclasses.replace(PLAIN, merge="weighted"), BY_CLASS),
    (dataclasses.replace(PLAIN, merge="weighted", class_agnostic=True, max_detections=10), None),
    (dataclasses.replace(PLAIN, class_agnostic=True), BY_CLASS),  # what is below its threshold suppresses nothing
    (dataclasses.replace(PLAIN, score_threshold=1.0), None),
]


def test_suppression_keeps_the_same_boxes(tmp_path: Path):
    """Also where scores are equal, boxes are empty, and nothing is found."""
    random = np.random.default_rng(1)
    corners = random.uniform(0, 1, (400, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.uniform(-0.02, 0.3, (400, 2)).astype(np.float32)], axis=1)
    scores = (random.integers(0, 64, (400, 3)) / 64).astype(np.float32)  # many are equal
    rules = [(by_class or [each.score_threshold] * 3, dataclasses.asdict(each)) for each, by_class in RULES]
    code = (
        "given[2].map((rules) => suppress(Float32Array.from(given[0]), Float32Array.from(given[1]), ...rules)"
        ".map((one) => [one.index, one.label, one.score, ...one.box]))"
    )
    given = [boxes.ravel().tolist(), scores.ravel().tolist(), rules]
    for (settings, by_class), found in zip(RULES, run_js(tmp_path, code, given), strict=True):
        thresholds = None if by_class is None else np.array(by_class, np.float32)
        expected = select(boxes, scores, settings=settings, score_thresholds=thresholds)
        columns = np.array(found, np.float64).reshape(-1, 7)
        assert columns[:, 0].tolist() == expected.default_box_indices.tolist()
        assert columns[:, 1].tolist() == expected.labels.tolist()
        np.testing.assert_array_equal(columns[:, 2].astype(np.float32), expected.scores)
        np.testing.assert_allclose(columns[:, 3:], expected.boxes, rtol=0, atol=1e-6)
    assert len(expected.scores) == 0


def test_a_score_that_is_no_number_is_an_error(tmp_path: Path):
    call = "suppress(Float32Array.of(0, 0, 1, 1), Float32Array.of(NaN), [0.5], {})"
    code = f"(() => {{ try {{ {call} }} catch (error) {{ return [error.message] }} }})()"
    assert run_js(tmp_path, code, []) == ["the network gives NaN"]
