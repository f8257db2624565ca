"""The page finds in a browser what the detector finds in Python: a headless Chromium runs it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession
from PIL import Image

import multibox
from multibox.cli import main
from multibox.data.synthetic import synthetic_scenes
from multibox.deploy import web_page
from multibox.deploy.export import Exported
from multibox.deploy.proof import Proof
from multibox.deploy.web_page import write_page
from multibox.detections import Detections
from multibox.detector import Detector
from tests.deploy.browser import CHROMEDRIVER, CHROMIUM, Browser, browse
from tests.deploy.conftest import Exporter

SHAPES = "multibox/shapes"

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None, reason="Chromium is not installed (Debian: chromium, chromium-driver)"
)


def skip_without_engine(folder: Path) -> None:
    pytest.skip("no onnxruntime-web: set MULTIBOX_ONNXRUNTIME_WEB, or run multibox export --web once")


@pytest.fixture(scope="module")
def page(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page, with a model that other tests share."""
    folder = tmp_path_factory.mktemp("web") / "page"
    model = exporter(Detector.load(SHAPES), ".onnx", suppression="runtime")

    def copy(detector: Detector, path: Path, **how: object) -> Exported:
        shutil.copyfile(model, path)
        return Exported(Proof(0, 0, 0, 0.0, 0.0), None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_page, "_fetch_engine", skip_without_engine)
        patch.setattr(web_page, "export", copy)
        write_page(Detector.load(SHAPES), folder)
    return folder


@pytest.fixture(scope="module")
def open_browser(page: Path) -> Iterator[Browser]:
    with browse(page) as browser:
        yield browser


@pytest.fixture
def browser(open_browser: Browser) -> Browser:
    """A browser with the page as it opens, and an empty log."""
    open_browser.send("POST", "/se/log", type="browser")  # it holds what was logged since it was last read
    open_browser.send("POST", "/refresh")
    open_browser.wait("document.body.dataset.engine === 'wasm'")
    return open_browser


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five: of several sizes and formats, one with transparent parts, and one in which nothing is found."""
    folder = tmp_path_factory.mktemp("images")
    wide, tall = (scene.open() for scene in synthetic_scenes(2, seed=5, height=300, width=400))
    wide.save(folder / "wide.jpg", quality=95)
    tall.rotate(90, expand=True).resize((280, 300)).save(folder / "tall.png")
    see_through = wide.convert("RGBA")
    see_through.paste((0, 0, 0, 0), (0, 0, 200, 150))
    see_through.save(folder / "see-through.png")
    Image.new("RGB", (61, 40), (120, 130, 140)).save(folder / "nothing.png")
    return [multibox.EXAMPLE_IMAGE, *sorted(folder.iterdir())]


def found_by(browser: Browser, image: Path) -> list[dict]:
    """What the page finds in an image."""
    browser.run("delete document.body.dataset.found")
    browser.choose_file(image)
    return json.loads(str(browser.wait("document.body.dataset.found", seconds=600)))


def found_above(browser: Browser, score: float) -> list[dict]:
    """What the page shows of that image if the slider is moved to a score."""
    code = f"const slider = document.getElementById('threshold'); slider.value = {score}; slider.oninput()"
    return json.loads(str(browser.run(f"{code}; return document.body.dataset.found")))


def status_of(browser: Browser) -> str:
    return str(browser.run("return document.getElementById('status').textContent"))


def check_same(found: list[dict], expected: Detections) -> None:
    """Above a score of 0.05; of equal scores far below, another may be the last that the limit lets in."""
    expected = expected[expected.scores > 0.05]
    found = [one for one in found if one["score"] > 0.05]
    of_page = {(one["label"], one["default_box_index"]): one for one in found}
    keys = list(zip(expected.labels.tolist(), expected.default_box_indices.tolist(), strict=True))
    assert len(found) == len(of_page) == len(keys)
    assert of_page.keys() == set(keys)
    np.testing.assert_allclose([of_page[key]["score"] for key in keys], expected.scores, atol=1e-5)
    np.testing.assert_allclose(np.reshape([of_page[key]["box"] for key in keys], (-1, 4)), expected.boxes, atol=0.01)
    assert [of_page[key]["name"] for key in keys] == [expected.class_names[label] for label, _ in keys]


@needs_chromium
def test_the_page_finds_what_python_finds(browser: Browser, images: list[Path]):
    detector = Detector.load(SHAPES)
    numbers = []
    for image in images:
        check_same(found_by(browser, image), expected := detector.detect(image))
        said = "1 object," if len(expected) == 1 else f"{len(expected) or 'No'} objects, "
        assert status_of(browser).startswith(said)
        rows = "return document.getElementById('found').hidden ? 0 : document.querySelectorAll('td i').length"
        assert browser.run(rows) == len(expected)
        numbers.append(len(expected))
    assert min(numbers) == 0 and max(numbers) > 4
    check_same(found_above(browser, 0.01), detector.detect(images[-1], score_threshold=0.01))
    for image in images:
        check_same(found_by(browser, image), detector.detect(image, score_threshold=0.01))
    log = browser.send("POST", "/se/log", type="browser")
    assert [line["message"] for line in log if line["level"] == "SEVERE"] == []


@needs_chromium
def test_the_page_says_what_goes_wrong_and_goes_on(browser: Browser, tmp_path: Path):
    wrong = tmp_path / "notes.png"
    wrong.write_text("no image")
    browser.choose_file(wrong)
    browser.wait("document.querySelector('#status.wrong')")
    assert status_of(browser) == "notes.png: this browser cannot read it as an image; save it as JPEG or PNG"
    browser.run("dispatchEvent(new DragEvent('drop', { dataTransfer: new DataTransfer() }))")
    assert status_of(browser) == "what was dropped is no file; save the image and choose it"
    browser.run(
        "const engine = document.getElementById('engine'); engine.add(new Option('the moon', 'moon')); "
        "engine.value = 'moon'; engine.onchange()"
    )
    browser.wait("document.body.dataset.engine === 'wasm'")
    assert status_of(browser).startswith("the detector does not run on the moon here (")
    assert browser.run("return document.getElementById('engine').value") == "wasm"
    assert len(found_by(browser, multibox.EXAMPLE_IMAGE)) == 6


@needs_chromium
@pytest.mark.slow
def test_a_page_that_is_not_whole_says_so(page: Path, tmp_path: Path):
    for name in ("index.html", "style.css", "app.js", "prepare.js", "suppress.js"):
        shutil.copyfile(page / name, tmp_path / name)
    with browse(tmp_path) as browser:
        browser.wait("document.querySelector('#status.wrong')")
        assert status_of(browser).startswith("detector.json cannot be read; write the page again with multibox export")


@needs_chromium
@pytest.mark.slow
def test_the_camera(browser: Browser):
    """Also if it is stopped, or started again, before it is open."""
    browser.run(
        "const { mediaDevices } = navigator; const open = mediaDevices.getUserMedia.bind(mediaDevices); "
        "window.streams = []; "
        "mediaDevices.getUserMedia = async (wanted) => { streams.push(await open(wanted)); return streams.at(-1); }"
    )
    click = "document.getElementById('camera').click()"
    browser.run(f"{click}; {click}")
    browser.wait("streams.length === 1 && !streams[0].active")
    assert status_of(browser) == "Ready."
    browser.run(f"{click}; {click}; {click}")
    browser.wait("document.body.dataset.found && document.getElementById('camera').textContent === 'Stop'")
    browser.wait("streams.length === 3")
    assert browser.run("return streams.map((stream) => stream.active)") == [False, False, True]
    browser.run(click)
    assert browser.run("return streams[2].active") is False
    assert browser.run("return document.getElementById('status').ariaLive") == "polite"


@needs_chromium
@pytest.mark.slow  # a GPU in software
def test_the_page_finds_the_same_on_webgpu(browser: Browser, images: list[Path]):
    detector = Detector.load(SHAPES)
    if not browser.run("return Boolean(navigator.gpu) && navigator.gpu.requestAdapter().then(Boolean)"):
        pytest.skip("this Chromium has no WebGPU here")
    browser.run("const engine = document.getElementById('engine'); engine.value = 'webgpu'; engine.onchange()")
    browser.wait("document.body.dataset.engine === 'webgpu'", seconds=300)
    for image in images:
        found_by(browser, image)
        check_same(found_above(browser, 0.01), detector.detect(image, score_threshold=0.01))


@pytest.mark.slow
def test_a_whole_page_comes_from_one_command(tmp_path: Path, capsys):
    """Its model takes one image, and leaves suppression to the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_page, "_fetch_engine", skip_without_engine)
        assert main(["export", SHAPES, "--web", str(tmp_path / "page")]) == 0
    assert f"python -m http.server -d {tmp_path / 'page'} 8000" in capsys.readouterr().out
    session = InferenceSession(tmp_path / "page" / "model.onnx")
    assert [each.shape for each in session.get_inputs()] == [[1, 3, 256, 256]]
    assert [each.name for each in session.get_outputs()] == ["boxes", "scores"]


def test_the_page_is_whole_and_names_no_other_server(page: Path):
    names = {str(path.relative_to(page)) for path in page.rglob("*") if path.is_file()}
    scripts = {"app.js", "prepare.js", "suppress.js"}
    assert {"index.html", "style.css", "model.onnx", "detector.json", *scripts} < names
    for name in ("index.html", "style.css", *scripts):
        assert "http:" not in (page / name).read_text() and "https:" not in (page / name).read_text()
    assert multibox.load(page / "model.onnx").class_names == Detector.load(SHAPES).class_names


def test_an_engine_that_is_not_there_is_said(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("MULTIBOX_ONNXRUNTIME_WEB", str(tmp_path))
    assert main(["export", SHAPES, "--web", str(tmp_path / "page")]) == 1
    assert f"MULTIBOX_ONNXRUNTIME_WEB is {tmp_path}, but there is no ort.wasm.min.mjs in it" in capsys.readouterr().err
    monkeypatch.delenv("MULTIBOX_ONNXRUNTIME_WEB")
    monkeypatch.setenv("MULTIBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    assert main(["export", SHAPES, "--web", str(tmp_path / "page")]) == 1
    assert "the page needs the npm package onnxruntime-web@" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_a_page_replaces_only_a_page(tmp_path: Path, capsys):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert main(["export", SHAPES, "--web", str(folder)]) == 1
    assert "is not empty; choose another folder" in capsys.readouterr().err
    assert main(["export", SHAPES, "--web", str(folder), "--overwrite"]) == 1
    assert "holds files that no multibox export --web wrote (notes.txt)" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "name the file to write, such as detector.onnx; or a folder for a web page: --web DIR"),
        (["--web", "page", "--nms", "none"], "--nms is for a file, and the page has its own form"),
        (["--web", "page", "--for", "opencv"], "--for is for a file, and the page has its own form"),
    ],
)
def test_wrong_usage(tmp_path: Path, monkeypatch, capsys, flags: list[str], said: str):
    monkeypatch.chdir(tmp_path)
    assert main(["export", SHAPES, *flags]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_exported_file_is_not_exported_again(tmp_path: Path, capsys):
    (tmp_path / "shapes.onnx").write_bytes(b"")
    assert main(["export", str(tmp_path / "shapes.onnx"), "--web", str(tmp_path / "page")]) == 2
    assert "is an exported file, without the network; give the .safetensors file" in capsys.readouterr().err
