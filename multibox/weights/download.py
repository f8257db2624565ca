"""Files from the network, each into its place in the cache: whole and of the right hash, or not at all."""

import errno
import hashlib
import io
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock

OnProgress = Callable[[int, int | None, float], None]
"""Called now and then with the bytes that are there, of how many (`None` where the server does not say), and bytes a
second."""

_CHUNK = 1 << 18
_TRIES = 5
"""How often in a row a connection may break without a byte before it is given up."""

_TIMEOUT = 30.0
"""Seconds without an answer."""

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where fetched files are kept: `MULTIBOX_CACHE`, or `~/.cache/multibox`."""
    return Path(os.environ.get("MULTIBOX_CACHE") or Path.home() / ".cache" / "multibox")


def fetch(url: str, *, sha256: str, on_progress: OnProgress | None = None) -> Path:
    """The file of that URL, from the cache or fetched into it.

    A file that is there is checked, once in a process. What breaks off is kept beside its place as `.part`, and the
    next call goes on from there. A second process that wants the same file waits for the first.

    Args:
        url: Its last part is the name of the file.
        sha256: The file's hash in hexadecimal digits, or the first eight or more of them.
        on_progress: Told how far it is.

    Raises:
        FileNotFoundError: The server has no such file.
        ConnectionError: The server cannot be reached, refuses, or breaks off again and again.
        ValueError: The file is not the one with this hash.
        OSError: It cannot be written, for example because the disk is full.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url}: only http and https are fetched")
    if not re.fullmatch("[0-9a-f]{8,64}", sha256):
        raise ValueError(f"{url}: a SHA-256 has 8 to 64 hexadecimal digits, unlike '{sha256}'")
    target = cache_folder() / Path(parts.path).name
    if not target.is_file():
        with locked(target):
            if not target.is_file():  # now it may be: another process had the lock
                _log.info("fetching %s", url)
                _Download(url, target, on_progress).run(sha256)
                return target
    stamp = target.stat()
    found = _sha256_once(target, stamp.st_size, stamp.st_mtime_ns)
    if not found.startswith(sha256):  # someone put it there, or it was damaged since
        raise ValueError(
            f"{target}: has the SHA-256 {_start(found, sha256)}..., expected {sha256}...: it is not the file of {url}; "
            "delete it, and the next call fetches it"
        )
    return target


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keeps other processes waiting that want to make the same file; its folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        yield


class _Download:
    def __init__(self, url: str, target: Path, on_progress: OnProgress | None) -> None:
        self.url = url
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self.on_progress = on_progress
        self.total: int | None = None

    def run(self, sha256: str) -> None:
        resumed = self._size() > 0
        self._read_all()
        found = _sha256(self.part)
        if not found.startswith(sha256) and resumed:  # what was there may have been of another file
            self.part.unlink()
            self._read_all()
            found = _sha256(self.part)
        if not found.startswith(sha256):
            self.part.unlink()
            raise ValueError(
                f"{self.url}: the file that came has the SHA-256 {_start(found, sha256)}..., expected "
                f"{sha256}...; it was thrown away (is there a proxy or a login page in between?)"
            )
        os.replace(self.part, self.target)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _read_all(self) -> None:
        """Fetches until the `.part` is whole, over as many connections as it takes."""
        failures = 0
        while True:
            before = self._size()
            try:
                self._read_once()
                return
            except (URLError, HTTPException, ConnectionError, TimeoutError, SSLError) as error:
                if isinstance(error, HTTPError):
                    raise self._refused(error) from error
                failures = 0 if self._size() > before else failures + 1
                if failures == _TRIES or not self._worth_another_try(error):
                    raise self._unreachable(error) from error
                time.sleep(min(0.1 * 2**failures, 5))

    def _read_once(self) -> None:
        have = self._size()
        headers = {"User-Agent": "multibox", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            response = urlopen(Request(self.url, headers=headers), timeout=_TIMEOUT)
        except HTTPError as error:
            if error.code != 416:
                raise
            error.close()  # the part has as many bytes as the file, or more: its hash tells whether it is the file
            return
        with response:
            goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if not goes_on:  # a server that knows no ranges sends it all
                have = 0
            length = response.headers.get("Content-Length")
            self.total = have + int(length) if length and length.isdecimal() else None
            self._check_room(have)
            with open(self.part, "ab" if goes_on else "wb", buffering=0) as file:
                self._copy(response, file, have)

    def _copy(self, response: HTTPResponse, file: io.RawIOBase, have: int) -> None:
        began, first = time.monotonic(), have
        while data := response.read(_CHUNK):
            rest = memoryview(data)
            while rest:
                try:
                    rest = rest[file.write(rest) :]
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise self._disk_full(have) from error
                    raise
            have += len(data)
            if self.on_progress is not None:
                rate = (have - first) / max(time.monotonic() - began, 1e-9)
                self.on_progress(have, self.total, rate)
        if self.total is not None and have < self.total:
            raise ConnectionResetError(f"it broke off after {have:,} of {self.total:,} bytes")

    def _check_room(self, have: int) -> None:
        if self.total is not None and shutil.disk_usage(self.part.parent).free < self.total - have:
            raise self._disk_full(have)

    def _disk_full(self, have: int) -> OSError:
        size = "its size is not known" if self.total is None else f"it has {self.total / 1e6:.1f} MB"
        return OSError(
            f"{self.part.parent}: no room on the disk for {self.target.name} ({size}, {have / 1e6:.1f} MB are there); "
            "make room and call again, or name another folder with MULTIBOX_CACHE"
        )

    def _refused(self, error: HTTPError) -> OSError:
        error.close()
        if error.code in (404, 410):
            return FileNotFoundError(f"{self.url}: the server has no such file (HTTP {error.code})")
        return ConnectionError(f"{self.url}: the server answers HTTP {error.code} ({error.reason}); try again later")

    def _worth_another_try(self, error: Exception) -> bool:
        """Without a connection there is nothing to wait for; one that broke may be made anew."""
        return not isinstance(error, URLError)

    def _unreachable(self, error: Exception) -> ConnectionError:
        have = self._size()
        kept = f"; {have / 1e6:.1f} MB are kept, and the next call goes on from there" if have else ""
        if not isinstance(error, URLError):
            return ConnectionError(f"{self.url}: the connection broke again and again ({error}){kept}")
        return ConnectionError(
            f"{self.url}: '{urlsplit(self.url).hostname}' cannot be reached ({_reason(error)}); is this machine "
            f"offline? A copy of the file from elsewhere goes to {self.target}{kept}"
        )


def _reason(error: URLError) -> str:
    reason = error.reason
    return getattr(reason, "strerror", None) or str(reason)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _sha256_once(path: Path, size: int, changed: int) -> str:
    """Of a file that has this size and was changed at this time."""
    return _sha256(path)


def _start(found: str, expected: str) -> str:
    """As much of a hash as was expected, and enough to look for."""
    return found[: max(len(expected), 16)]
