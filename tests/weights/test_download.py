"""Files from the network, against a server on this machine: whole and right, or not there at all."""

import hashlib
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import time
from http.client import HTTPResponse
from pathlib import Path

import pytest

from multibox.weights import download
from multibox.weights.download import cache_folder, fetch
from tests.weights.server import Server

DATA = random.Random(0).randbytes(1_000_003)
HASH = hashlib.sha256(DATA).hexdigest()
NAME = f"weights-{HASH[:8]}.pth"


@pytest.fixture
def server(server: Server) -> Server:
    server.files[f"/{NAME}"] = DATA
    return server


@pytest.fixture(autouse=True)
def no_waiting(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("digits", [8, 64])
def test_a_file_is_fetched_once(server: Server, cache: Path, digits: int):
    path = fetch(server.url(f"/{NAME}"), sha256=HASH[:digits])
    assert path == cache / NAME
    assert path.read_bytes() == DATA
    assert files_in(cache) == [NAME]
    assert fetch(server.url(f"/{NAME}"), sha256=HASH[:digits]) == path
    assert len(server.requests) == 1


def test_the_cache_is_in_the_home_folder_unless_it_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch):
    assert cache_folder() == cache
    for unset in ("", None):
        monkeypatch.delenv("MULTIBOX_CACHE", raising=False)
        if unset is not None:
            monkeypatch.setenv("MULTIBOX_CACHE", unset)
        monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
        assert cache_folder() == Path("/home/me/.cache/multibox")


@pytest.mark.parametrize("states_length", [True, False])
def test_progress_is_told_up_to_the_end(server: Server, states_length: bool):
    server.states_length = states_length
    told: list[tuple[int, int | None, float]] = []
    fetch(server.url(f"/{NAME}"), sha256=HASH, on_progress=lambda *values: told.append(values))
    done = [values[0] for values in told]
    assert done == sorted(done) and done[-1] == len(DATA)
    assert {total for _, total, _ in told} == {len(DATA) if states_length else None}
    assert all(rate > 0 for _, _, rate in told)


def test_a_dropped_connection_is_gone_on_from_where_it_broke(server: Server):
    server.cut_after = [300_000, 0, 200_000]
    path = fetch(server.url(f"/{NAME}"), sha256=HASH)
    assert path.read_bytes() == DATA
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", "bytes=300000-", "bytes=500000-"]


def test_a_download_that_was_given_up_goes_on_with_the_next_call(server: Server, cache: Path):
    server.cut_after = [400_000, *[0] * 5]
    with pytest.raises(ConnectionError, match=r"broke 5 times in a row .*0\.4 MB are kept, and the next call resumes"):
        fetch(server.url(f"/{NAME}"), sha256=HASH)
    assert files_in(cache) == [f"{NAME}.part"]
    server.requests.clear()
    assert fetch(server.url(f"/{NAME}"), sha256=HASH).read_bytes() == DATA
    assert [wanted for _, wanted in server.requests] == ["bytes=400000-"]
    assert files_in(cache) == [NAME]


def test_a_server_without_ranges_sends_it_all_again(server: Server):
    server.knows_ranges = False
    server.cut_after = [300_000, 700_000]
    assert fetch(server.url(f"/{NAME}"), sha256=HASH).read_bytes() == DATA
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", "bytes=700000-"]


@pytest.mark.parametrize(
    "part", [b"of another file", DATA + b"more", DATA[:-1] + b"?"], ids=["other", "longer", "last"]
)
def test_a_part_of_another_file_does_no_harm(server: Server, cache: Path, part: bytes):
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(part)
    assert fetch(server.url(f"/{NAME}"), sha256=HASH).read_bytes() == DATA
    assert files_in(cache) == [NAME]


def test_a_whole_part_is_only_checked(server: Server, cache: Path):
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(DATA)
    assert fetch(server.url(f"/{NAME}"), sha256=HASH).read_bytes() == DATA
    assert len(server.requests) == 1


@pytest.mark.parametrize("changed", [DATA[:-1] + b"?", DATA[:-1], b"<html>log in</html>"], ids=["byte", "less", "page"])
def test_a_wrong_file_never_gets_into_its_place(server: Server, cache: Path, changed: bytes):
    server.files[f"/{NAME}"] = changed
    found = hashlib.sha256(changed).hexdigest()
    with pytest.raises(ValueError, match=rf"has the SHA-256 {found[:16]}\.\.\., expected {HASH[:8]}\.\.\."):
        fetch(server.url(f"/{NAME}"), sha256=HASH[:8])
    assert files_in(cache) == []
    server.files[f"/{NAME}"] = DATA
    assert fetch(server.url(f"/{NAME}"), sha256=HASH[:8]).read_bytes() == DATA


def test_a_file_that_someone_put_into_the_cache_is_checked(server: Server, cache: Path):
    cache.mkdir()
    (cache / NAME).write_bytes(b"<html>log in</html>")
    with pytest.raises(ValueError, match=rf"{NAME}: has the SHA-256 .*, expected {HASH[:8]}\.\.\.: .*; delete it"):
        fetch(server.url(f"/{NAME}"), sha256=HASH[:8])
    (cache / NAME).write_bytes(DATA)
    assert fetch(server.url(f"/{NAME}"), sha256=HASH[:8]) == cache / NAME
    assert server.requests == []


def test_a_file_in_the_cache_is_read_once_in_a_process(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    cache.mkdir()
    (cache / NAME).write_bytes(DATA)
    fetch(server.url(f"/{NAME}"), sha256=HASH)
    monkeypatch.setattr(download, "file_sha256", lambda path: pytest.fail("it was read again"))
    fetch(server.url(f"/{NAME}"), sha256=HASH)


def test_a_connection_that_ends_in_an_error_of_its_encryption_is_made_anew(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    broken = [ssl.SSLError(ssl.SSL_ERROR_SSL, "decryption failed or bad record mac")]
    read = HTTPResponse.read

    def read_or_break(response: HTTPResponse, amount: int) -> bytes:
        if broken:
            raise broken.pop()
        return read(response, amount)

    monkeypatch.setattr(HTTPResponse, "read", read_or_break)
    assert fetch(server.url(f"/{NAME}"), sha256=HASH).read_bytes() == DATA
    assert len(server.requests) == 2


def test_what_is_not_there_is_said(server: Server, cache: Path):
    with pytest.raises(FileNotFoundError, match=r"/none\.pth: the server has no such file \(HTTP 404\)"):
        fetch(server.url("/none.pth"), sha256=HASH)
    assert files_in(cache) == []


@pytest.mark.parametrize("status", [403, 503])
def test_a_refusal_is_said(server: Server, status: int):
    server.statuses[f"/{NAME}"] = status
    with pytest.raises(ConnectionError, match=f"the server answers HTTP {status}"):
        fetch(server.url(f"/{NAME}"), sha256=HASH)


def test_offline_is_said_with_the_place_for_a_copy(cache: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as nobody:  # a port where nobody listens
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/{NAME}"
        with pytest.raises(
            ConnectionError, match=r"'127\.0\.0\.1' cannot be reached \(Connection refused\)"
        ) as refused:
            fetch(url, sha256=HASH)
    assert str(cache / NAME) in str(refused.value)

    def no_name(*arguments: object, **values: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(ConnectionError, match=r"'no\.such\.host' cannot be reached \(Name or service not known\)"):
        fetch(f"http://no.such.host/{NAME}", sha256=HASH)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the disk that is always full is Linux's")
def test_a_full_disk_is_said(server: Server, cache: Path):
    cache.mkdir()
    (cache / f"{NAME}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"no room on the disk for .* \(1\.0 MB, 0\.0 MB are there\).*MULTIBOX_CACHE"):
        fetch(server.url(f"/{NAME}"), sha256=HASH)
    assert not (cache / NAME).exists()


def test_a_disk_with_too_little_room_is_left_alone(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(DATA) - 1))
    with pytest.raises(OSError, match="no room on the disk"):
        fetch(server.url(f"/{NAME}"), sha256=HASH)
    assert files_in(cache) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(DATA)))
    assert fetch(server.url(f"/{NAME}"), sha256=HASH).read_bytes() == DATA


def test_a_second_process_waits_for_the_first(server: Server, cache: Path):
    server.held.clear()
    code = "import sys; from multibox.weights.download import fetch; print(fetch(sys.argv[1], sha256=sys.argv[2]))"
    command = [sys.executable, "-c", code, server.url(f"/{NAME}"), HASH]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        until = time.monotonic() + 20
        while not server.requests and time.monotonic() < until:
            server.held.wait(0.05)
        server.held.wait(0.5)  # time for the other to come
        assert len(server.requests) == 1
        server.held.set()
        said = [process.communicate(timeout=20)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert said == [f"{cache / NAME}\n"] * 2
    assert len(server.requests) == 1
    assert (cache / NAME).read_bytes() == DATA


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [
        ("file:///etc/passwd", HASH, "only http and https"),
        ("ftp://host/file", HASH, "only http and https"),
        ("http://host/file", "", "8 to 64 hexadecimal digits"),
        ("http://host/file", "abc", "8 to 64 hexadecimal digits"),
    ],
)
def test_only_what_can_be_checked_is_fetched(url: str, sha256: str, message: str):
    with pytest.raises(ValueError, match=message):
        fetch(url, sha256=sha256)
