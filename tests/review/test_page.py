"""The page holds all that it shows, and what is decided on it can be applied."""

import json
import re
import shutil
from pathlib import Path

import pytest

from multibox.review.decisions import apply_decisions, read_decisions
from multibox.review.gather import gather
from multibox.review.page import MOST, write_page
from multibox.review.suspects import KINDS, find_suspects
from tests.deploy.browser import CHROMEDRIVER, CHROMIUM, browse
from tests.review.damaged import damaged_scenes


@pytest.fixture(scope="module")
def reviewed():
    dataset, found, damages = damaged_scenes()
    gathered = gather({"train": dataset})
    return gathered, find_suspects([sample.truth for sample in dataset], found)[: len(damages)]


@pytest.fixture(scope="module")
def page(reviewed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    write_page(path, *reviewed, command="multibox check </script> --fix OUT")
    return path


def data_of(page: Path) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*)</script>', page.read_text(encoding="utf-8"))
    return json.loads(text)


def test_the_page_fetches_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert set(re.findall(r"https?://[^\s\"'<>)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|WebSocket)\b\s*\(", text)


def test_the_page_holds_every_suspect_with_its_crop(page, reviewed):
    gathered, suspects = reviewed
    data = data_of(page)
    assert data["command"] == "multibox check </script> --fix OUT"
    assert [row["kind"] for row in data["suspects"]] == [suspect.kind for suspect in suspects]
    for row, suspect in zip(data["suspects"], suspects, strict=True):
        sample = gathered.dataset[suspect.image]
        assert row["image"] == sample.name
        assert len(row["others"]) == len(sample.truth) - (suspect.object is not None)
        crop = row["crop"]
        assert crop["source"].startswith("data:image/jpeg;base64,")
        for each in filter(None, (row["object"], row["found"])):
            left, top, right, bottom = each["box"]
            assert crop["x"] - 1 <= left < right <= crop["x"] + crop["width"] + 1
            assert crop["y"] - 1 <= top < bottom <= crop["y"] + crop["height"] + 1
        assert min(crop["x"], crop["y"]) >= 0
        assert crop["x"] + crop["width"] <= sample.width
        assert crop["y"] + crop["height"] <= sample.height


def test_only_the_first_ones_are_on_the_page(tmp_path, reviewed):
    gathered, suspects = reviewed
    write_page(tmp_path / "page.html", gathered, suspects * 4, command="")
    assert len(data_of(tmp_path / "page.html")["suspects"]) == MOST


def test_a_page_without_suspects_is_refused(tmp_path, reviewed):
    with pytest.raises(ValueError, match="no suspect"):
        write_page(tmp_path / "page.html", reviewed[0], [], command="")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver")
def test_decisions_by_key_and_click_are_saved_and_applied(page, reviewed, tmp_path):
    gathered, suspects = reviewed
    press = "dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
    catch = (
        "window.saved = ''; URL.createObjectURL = (blob) => { blob.text().then((text) => saved = text); return '#'; }"
    )
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(page, folder / "index.html")
    with browse(folder) as browser:
        browser.run(catch)
        assert browser.run("return document.getElementById('save').disabled")
        browser.run(press % "k")
        browser.run(press % "u")  # undoes what was decided last, not what is open now
        assert f"0 of {len(suspects)} decided" in str(
            browser.run("return document.getElementById('about').textContent")
        )
        for place, suspect in enumerate(suspects):
            text = str(browser.run("return document.getElementById('place').textContent"))
            assert text.startswith(f"{place + 1} of {len(suspects)} · {suspect.kind}")
            if suspect.kind == "phantom":
                browser.run(press % "c")  # there is nothing to take instead, so this decides nothing
                browser.run(press % "d")
            elif place % 2:
                browser.run(press % "c")
            else:
                browser.run("document.querySelector('#choices [data-decision=change]').click()")
        browser.run(press % "s")
        text = str(browser.wait("window.saved"))
        browser.send("POST", "/refresh")  # what was decided is remembered
        assert "16 of 16 decided" in str(browser.run("return document.getElementById('about').textContent"))
        browser.run(press % "u")
        assert "15 of 16 decided" in str(browser.run("return document.getElementById('about').textContent"))
        assert not browser.send("POST", "/se/log", type="browser")
    (tmp_path / "decisions.json").write_text(text)
    decisions = read_decisions(tmp_path / "decisions.json").decisions
    assert {each.kind for each in decisions} == set(KINDS)
    mended = apply_decisions({"train": gathered.dataset}, decisions)
    assert len(mended.changes) == len(suspects)
    _, found, _ = damaged_scenes()
    assert find_suspects([sample.truth for sample in mended.splits["train"]], found) == []
