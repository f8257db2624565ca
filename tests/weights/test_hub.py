"""Weights on the Hugging Face Hub: read from a server here that answers as the hub does, written to a fake of it."""

import hashlib
import socket
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from multibox.detector import Detector
from multibox.weights.hub import model_card

huggingface_hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("huggingface_hub.constants")  # its parts are loaded when they are asked for


@pytest.fixture(scope="module")
def detector() -> Detector:
    made = Detector.create("ssd256-tiny", ["cat", "dog"], seed=0)
    made.provenance["trained on"] = "drawn cats"
    return made


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Files by `owner/name/file`, served as the hub does: HEAD says commit and etag, GET gives the bytes."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            data = self.answer()
            if data is not None:
                self.wfile.write(data)

        def answer(self) -> bytes | None:
            key = self.path.partition("?")[0].strip("/").replace("/resolve/main/", "/")
            data = files.get(key)
            if data is None:
                known = any(name.startswith("/".join(key.split("/")[:2]) + "/") for name in files)
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", "0")
            else:
                self.send_response(200)
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            return data

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        web.daemon_threads = True
        thread = Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{web.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("no_proxy", "*")
        try:
            yield files
        finally:
            web.shutdown()
            thread.join()


def test_a_repository_is_loaded_by_its_name(hub: dict[str, bytes], detector: Detector, tmp_path: Path):
    detector.save(tmp_path / "it.safetensors")
    hub["me/cats/model.safetensors"] = (tmp_path / "it.safetensors").read_bytes()
    loaded = Detector.load("hf://me/cats")
    assert loaded.class_names == ("cat", "dog")
    assert loaded.config == detector.config
    assert loaded.provenance == detector.provenance


def test_what_the_hub_does_not_have_is_said(hub: dict[str, bytes]):
    hub["me/text/README.md"] = b"no weights"
    with pytest.raises(FileNotFoundError, match=r"hf://me/text: the repository has no model\.safetensors"):
        Detector.load("hf://me/text")
    with pytest.raises(FileNotFoundError, match=r"hf://me/none: the hub has no such repository, or it is not open"):
        Detector.load("hf://me/none")


def test_what_is_on_the_hub_is_checked_as_any_file(hub: dict[str, bytes]):
    hub["me/pickle/model.safetensors"] = b"\x80\x02 no safetensors"
    with pytest.raises(ValueError, match=r"not a \.safetensors file, or damaged"):
        Detector.load("hf://me/pickle")


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        ConnectionError, match=r"hf://me/cats: the hub cannot be reached, and .* was not fetched before"
    ):
        Detector.load("hf://me/cats")


def test_without_a_network_one_line_comes_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog, capfd):
    """The package itself tries for half a minute, and logs each try."""
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "*")
    began = time.monotonic()
    with pytest.raises(ConnectionError, match=r"hf://me/cats: the hub cannot be reached, and .* was not fetched"):
        Detector.load("hf://me/cats")
    assert time.monotonic() - began < 5
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_what_was_fetched_before_is_loaded_without_a_network(
    hub: dict[str, bytes], detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    detector.save(tmp_path / "it.safetensors")
    hub["me/cats/model.safetensors"] = (tmp_path / "it.safetensors").read_bytes()
    Detector.load("hf://me/cats")

    def unreachable(*arguments: object, **values: object) -> None:
        raise huggingface_hub.errors.HTTPError("no route to the hub")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    assert Detector.load("hf://me/cats").class_names == ("cat", "dog")


@pytest.mark.parametrize("name", ["cats", "me/", "/cats", "me/cats/more", ""])
def test_a_name_that_is_none_is_said(name: str, detector: Detector):
    with pytest.raises(ValueError, match=f"'{name}' is no repository of the hub"):
        Detector.load(f"hf://{name}")
    with pytest.raises(ValueError, match=f"'{name}' is no repository of the hub"):
        detector.push_to_hub(name)


class FakeApi:
    """What `push_to_hub` calls of `HfApi`, keeping what is uploaded."""

    def __init__(self, **settings: object) -> None:
        self.uploaded: dict[str, bytes] = {}
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.has_page = False

    def create_repo(self, repo_id: str, **values: object) -> str:
        self.calls.append((repo_id, values))
        return f"https://hub/{repo_id}"

    def file_exists(self, repo_id: str, filename: str) -> bool:
        return self.has_page

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        self.uploaded = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **settings: fake)
    return fake


def test_the_fake_takes_what_the_package_takes():
    import inspect

    for name in ("create_repo", "file_exists", "upload_folder"):
        real = inspect.signature(getattr(huggingface_hub.HfApi, name)).parameters
        given = set(inspect.signature(getattr(FakeApi, name)).parameters) - {"values"}
        assert given <= set(real)
    assert {"private", "exist_ok"} <= set(inspect.signature(huggingface_hub.HfApi.create_repo).parameters)
    assert "library_name" in inspect.signature(huggingface_hub.HfApi.__init__).parameters


def test_what_is_pushed_is_what_is_loaded(api: FakeApi, detector: Detector, tmp_path: Path):
    assert detector.push_to_hub("me/cats", license="mit", private=True) == "https://hub/me/cats"
    assert api.calls == [("me/cats", {"private": True, "exist_ok": True})]
    assert set(api.uploaded) == {"model.safetensors", "README.md"}
    (tmp_path / "it.safetensors").write_bytes(api.uploaded["model.safetensors"])
    assert Detector.load(tmp_path / "it.safetensors").class_names == detector.class_names
    page = api.uploaded["README.md"].decode()
    assert yaml.safe_load(page.split("---")[1])["license"] == "mit"


def test_a_page_that_is_there_is_left(api: FakeApi, detector: Detector):
    api.has_page = True
    detector.push_to_hub("me/cats")
    assert set(api.uploaded) == {"model.safetensors"}


def test_a_refusal_is_said(api: FakeApi, detector: Detector, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: Any, **values: Any) -> str:
        raise huggingface_hub.errors.LocalTokenNotFoundError("no token")

    monkeypatch.setattr(api, "create_repo", refuse)
    with pytest.raises(ConnectionError, match=r"me/cats: the hub refuses \(no token\); are you logged in"):
        detector.push_to_hub("me/cats")


def test_pushing_without_a_network_is_said(detector: Detector, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as nobody:  # a port where nobody listens
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setattr(
            huggingface_hub, "HfApi", partial(huggingface_hub.HfApi, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        )
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setenv("HF_TOKEN", "none")
        with pytest.raises(ConnectionError, match=r"me/cats: the hub cannot be reached \(.*refused\); is this machine"):
            detector.push_to_hub("me/cats")


def test_the_page_says_what_it_is(detector: Detector):
    page = model_card("me/cats", detector._weights(half=False), None)
    _, head, text = page.split("---\n", 2)
    values = yaml.safe_load(head)
    assert values == {"library_name": "multibox", "pipeline_tag": "object-detection", "tags": ["ssd", "ssd256-tiny"]}
    for words in ("# cats", 'multibox.load("hf://me/cats")', "cat, dog", "256 x 256", "trained on: drawn cats", "0.5"):
        assert words in text
