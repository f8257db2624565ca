"""The report in a real browser: its numbers are those of the evaluation, every count shows its images, no request."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from multibox.evaluation.errors import count_confusions, find_errors
from multibox.messages import percent
from multibox.presets import preset
from multibox.report.evaluation import RunHistory, write_report
from tests.deploy.browser import CHROMEDRIVER, CHROMIUM, Browser, browse
from tests.report.test_evaluation import NAMES, evaluated, scenes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="chromium and chromedriver are not installed"),
]

DATASET = scenes()
METRICS = evaluated(DATASET, wrong=0.5)

READ_CLASSES = """
return [...document.querySelectorAll("#classes tbody tr")].map(row => [...row.cells].map(cell => cell.textContent));
"""
READ_MATRIX = """
return [...document.querySelectorAll("#confusions tbody tr")].map(
  row => [...row.querySelectorAll("td")].map(cell => Number(cell.textContent)));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("report")
    rows = [{"step": float(step), "epoch": float(step), "ap": 0.1, "confidence": 2.0} for step in range(5)]
    run = RunHistory(rows, "The run has finished.")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_confusions", "draw_precision_recall", "draw_f1"):
            patch.setattr(f"multibox.report.evaluation.{name}", lambda *_: None)
        write_report(folder, DATASET, METRICS, name="run", config=preset("ssd256-tiny"), run=run)
    with browse(folder) as opened:
        opened.wait("document.querySelector('#classes tbody tr')")
        yield opened


def move(browser: Browser, threshold: float) -> None:
    browser.run(f"""
        const slider = document.getElementById("threshold");
        slider.value = {threshold};
        slider.dispatchEvent(new Event("input"));
    """)
    browser.wait(f"document.querySelector('.bar output').textContent === '{threshold:.2f}'")


def errors_at(threshold: float) -> list:
    return [
        find_errors(sample.truth, found, [threshold] * len(NAMES))
        for sample, found in zip(DATASET, METRICS.detections, strict=True)
    ]


def test_the_numbers_that_evaluate_gives_too_are_equal(browser: Browser):
    move(browser, METRICS.score_threshold)
    rows = {name: cells for name, *cells in browser.run(READ_CLASSES)}
    for name, row in {"all classes": vars(METRICS), **METRICS.per_class}.items():
        objects, ap, ap50, *_, best, at = rows[name]
        assert (objects, ap, ap50) == (str(row["objects"]), percent(row["ap"]), percent(row["ap50"]))
        known = row["score_threshold"]
        assert (best, at) == (percent(row["f1"]), "-" if known is None else f"{known:.2f}")
    found, missed, false, precision, recall, f1 = rows["all classes"][3:9]
    assert (int(found), int(false)) == (METRICS.true_positives, METRICS.false_positives)
    assert int(missed) == METRICS.objects - METRICS.true_positives
    assert [precision, recall, f1] == [percent(value) for value in (METRICS.precision, METRICS.recall, METRICS.f1)]
    tiles = browser.run("""
        return Object.fromEntries([...document.querySelectorAll(".tile")].map(
          tile => [tile.dataset.metric, tile.querySelector("b").textContent]));
    """)
    values = json.loads(METRICS.to_json())
    assert tiles == {key: percent(values[key]) for key in tiles}
    assert {"ap", "ap50", "ap75", "f1"} <= tiles.keys()


@pytest.mark.parametrize("threshold", [0.35, 0.6, 0.85])
def test_the_matrix_follows_the_slider(browser: Browser, threshold: float):
    move(browser, threshold)
    matrix = count_confusions(errors_at(threshold), len(NAMES))
    seen = [i for i in range(len(NAMES)) if matrix[i].any() or matrix[:, i].any()] + [len(NAMES)]
    assert browser.run(READ_MATRIX) == matrix[seen][:, seen].tolist()
    kinds = [image.false for image in errors_at(threshold)]
    assert browser.run("return Number(document.querySelectorAll('#classes tbody tr')[0].cells[6].textContent)") == sum(
        map(len, kinds)
    )


def test_a_count_shows_its_images_and_closes_by_key(browser: Browser):
    threshold = METRICS.score_threshold
    move(browser, threshold)
    browser.run("document.querySelectorAll('#classes tbody tr')[0].cells[5].querySelector('button').click()")
    missed = [image.missed for image in errors_at(threshold)]
    title = browser.run("return document.querySelector('dialog[open] h2').textContent")
    images = sum(map(bool, missed))
    assert title == f"all classes, missed: {sum(map(len, missed))} in {images} images"
    assert browser.run("return document.querySelectorAll('dialog figure').length") == images
    assert browser.run("return document.querySelectorAll('dialog rect.missed.strong').length") == sum(map(len, missed))
    assert browser.run("return [...document.querySelectorAll('dialog img')].every(image => image.naturalWidth > 0)")
    browser.run("document.querySelector('dialog').close()")
    assert not browser.run("return document.querySelector('dialog').open")


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_fits_its_window_and_makes_no_request(browser: Browser, width: int):
    browser.chrome(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
    )
    assert browser.run("return document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('.text')].filter(table => table.scrollWidth > table.parentElement.clientWidth)"
    )
    assert browser.run(f"return {wide}.map(table => table.textContent)") == []  # prose is read without scrolling
    assert browser.run("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:'))") == []
    log = browser.send("POST", "/se/log", type="browser")
    assert [entry for entry in log if entry["level"] == "SEVERE"] == []


def test_flags_in_prose_are_not_broken_across_lines(browser: Browser):
    flags = browser.run("return [...document.querySelectorAll('#errors .flag')].map(flag => flag.textContent)")
    assert flags == ["--iou", "--class-agnostic", "--size"]
    assert browser.run(
        "return [...document.querySelectorAll('.flag')].every(flag => flag.getClientRects().length === 1)"
    )
    whole = browser.run("""return words("Try `multibox train --size 384` or --size 240x320, not a-b.").map(
        each => each instanceof Element ? [each.className, each.textContent] : each)""")
    assert whole == ["Try ", ["", "multibox train --size 384"], " or ", ["flag", "--size 240x320"], ", not a-b."]


def test_every_section_is_reached_by_a_link(browser: Browser):
    targets = browser.run("return [...document.querySelectorAll('nav a')].map(link => link.getAttribute('href'))")
    assert len(targets) >= 9
    assert all(browser.run(f"return document.querySelector('{target}') !== null") for target in targets)


def test_the_page_is_one_file(browser: Browser, tmp_path: Path):
    assert browser.run("return document.querySelectorAll('script[src], link[rel=stylesheet], iframe').length") == 0
