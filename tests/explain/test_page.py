"""The page is one file that fetches nothing, and what it computes in a browser is what Python says."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from multibox.data.sample import Sample
from multibox.data.synthetic import synthetic_scenes
from multibox.detector import Detector
from multibox.explain.draw import draw_detections, draw_matches
from multibox.explain.explanation import Explanation, explain
from multibox.explain.page import page, write_page
from tests.deploy.browser import CHROMEDRIVER, CHROMIUM, Browser, browse

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None, reason="Chromium is not installed (Debian: chromium, chromium-driver)"
)


@pytest.fixture(scope="module")
def shapes() -> Detector:
    return Detector.load("multibox/shapes")


@pytest.fixture(scope="module")
def sample() -> Sample:
    """A scene with many objects, of another shape than the network's input."""
    return max(synthetic_scenes(5, seed=21, height=240, width=400), key=lambda scene: len(scene.truth))


@pytest.fixture(scope="module")
def explanation(shapes: Detector, sample: Sample) -> Explanation:
    models = {"start": Detector.create(shapes.config, shapes.class_names, seed=0), "end": shapes}
    return explain(models, sample.image, sample=sample, score_threshold=0.1)


def test_the_page_holds_the_json_and_the_image_and_fetches_nothing(explanation: Explanation, sample: Sample):
    named = dataclasses.replace(explanation, record=explanation.record | {"model": "</script><b>{{STYLE}}"})
    text = page(named, sample.image)
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["explanation"] == named.record
    assert "data:image/jpeg;base64," in text
    assert set(re.findall(r"""https?://[^"' ]+""", text)) == {"http://www.w3.org/2000/svg"}  # names SVG, not a place
    assert not re.search(r"\b(?:src|href)=\"(?!data:)", text)
    assert text.count("</script>") == 2


def test_the_drawings_have_a_panel_for_each_map(explanation: Explanation, sample: Sample):
    maps = len(explanation.record["feature_maps"])
    assert draw_detections(explanation, sample.image).size == (640, 384)
    drawn = draw_matches(explanation, sample.image)
    assert drawn.height == 8 + -(-(maps + 1) // 4) * (288 + 8 + 2 * 22)
    without = dataclasses.replace(explanation, record=explanation.record | {"truth": None})
    with pytest.raises(ValueError, match="this explanation knows no objects, so there are no matches to draw"):
        draw_matches(without, sample.image)


@pytest.fixture(scope="module")
def browser(explanation: Explanation, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("explained")
    write_page(explanation, sample.image, folder)
    assert json.loads((folder / "explanation.json").read_text(encoding="utf-8")) == explanation.record
    with browse(folder) as opened:
        opened.wait("document.body.dataset.tab")
        yield opened


def data(browser: Browser, name: str) -> list:
    return json.loads(str(browser.run(f"return document.body.dataset.{name}")))


def slide(browser: Browser, name: str, value: float) -> None:
    browser.run(f"const it = document.getElementById('{name}'); it.value = {value}; it.oninput()")


def tab(browser: Browser, name: str) -> None:
    browser.run(f"document.getElementById('tab-{name}').click()")


@needs_chromium
@pytest.mark.slow
def test_what_the_page_computes_is_what_python_says(
    browser: Browser, explanation: Explanation, shapes: Detector, sample: Sample
):
    record = explanation.record
    tab(browser, "cells")
    best = data(browser, "coverage")
    assert [one["overlap"] for one in best] == pytest.approx([one["best_overlap"] for one in record["truth"]], abs=1e-4)
    assert [one["index"] for one in best] == [one["matches"][0]["index"] for one in record["truth"]]
    tab(browser, "suppression")
    for iou in (record["detector"]["iou_threshold"], 0.2, 0.8, 1.0):
        slide(browser, "iou", iou)
        expected = explain({"it": shapes}, sample.image, score_threshold=0.1, iou_threshold=iou).record["detections"]
        assert data(browser, "kept") == [
            [one["default_box"]["index"], one["label"], len(one["suppressed"])] for one in expected
        ]
    tab(browser, "negatives")
    for number, stage in enumerate(record["hard_negatives"]):
        slide(browser, "weights", number)
        assert data(browser, "lit") == [one["index"] for one in stage["default_boxes"]]


@needs_chromium
@pytest.mark.slow
def test_other_sizes_and_ratios_cover_objects_otherwise(browser: Browser, explanation: Explanation):
    """Default boxes twice as large at a map have the overlaps of default boxes twice as large."""
    tab(browser, "cells")
    before = data(browser, "coverage")
    slide(browser, "size", -1.5)
    smaller = data(browser, "coverage")
    chosen = int(str(browser.run("return document.querySelector('[id^=map-][aria-pressed=true]').id.slice(4)")))
    for old, new in zip(before, smaller, strict=True):
        assert (new["overlap"] < old["overlap"]) if old["map"] == chosen else (new["overlap"] >= old["overlap"])
    browser.run("document.getElementById('reset').click()")
    slide(browser, "ratio", 0)
    squares = data(browser, "coverage")
    assert squares != before
    browser.run("document.getElementById('reset').click()")
    assert data(browser, "coverage") == before


@needs_chromium
@pytest.mark.slow
def test_it_works_by_keyboard_and_asks_no_server(browser: Browser):
    tab(browser, "cells")
    press = "document.getElementById('{}').dispatchEvent(new KeyboardEvent('keydown', {{ key: '{}', bubbles: true }}))"
    browser.run(press.format("stage", "2"))
    assert "16" in str(browser.run("return document.querySelector('[id^=map-][aria-pressed=true]').textContent"))
    place = str(browser.run("return document.getElementById('cell').textContent"))
    for key, moves in (("ArrowRight", True), ("ArrowLeft", True), ("ArrowDown", True), ("ArrowUp", True), ("x", False)):
        browser.run(press.format("stage", key))
        now = str(browser.run("return document.getElementById('cell').textContent"))
        assert (now != place) == moves or key in ("ArrowRight", "ArrowDown")  # the last column and row stay
        place = now
    for name in ("matches", "negatives", "offsets", "suppression", "cells"):
        browser.run(press.format("tabs", "ArrowRight"))
        assert browser.run("return document.body.dataset.tab") == name
        assert browser.run("return document.activeElement.id") == f"tab-{name}"
    fetched = browser.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert [name for name in fetched if not str(name).startswith("data:")] == []
    log = browser.send("POST", "/se/log", type="browser")
    assert [line["message"] for line in log if line["level"] == "SEVERE"] == []


@needs_chromium
@pytest.mark.slow
def test_a_page_without_objects_or_with_nothing_found_says_so(shapes: Detector, sample: Sample, tmp_path: Path):
    explanation = explain({"it": shapes}, sample.image, score_threshold=1.0)
    write_page(explanation, sample.image, tmp_path)
    with browse(tmp_path) as opened:
        opened.wait("document.body.dataset.tab")
        said = {}
        for name in ("cells", "matches", "negatives", "offsets", "suppression"):
            tab(opened, name)
            said[name] = str(opened.run("return document.getElementById('panel').textContent"))
        assert "There are no detections to cover." in said["cells"]
        assert said["matches"].startswith("The objects are not known.") and "--truth FILE" in said["negatives"]
        assert said["offsets"].startswith("Nothing was found.") and "0 boxes kept, 0 suppressed" in said["suppression"]
        log = opened.send("POST", "/se/log", type="browser")
        assert [line["message"] for line in log if line["level"] == "SEVERE"] == []
