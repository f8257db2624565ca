"""Download files into the cache. A file gets into its place complete and with the right hash, or not at all."""

import errno
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

from multibox.files import file_sha256

OnProgress = Callable[[int, int | None, float], None]
"""Function that is called now and then during a download with the number of bytes fetched, the size of the file
(`None` if the server does not say), and bytes per second."""

_CHUNK = 1 << 18
_TRIES = 5
"""Number of connections in a row that may break without a byte before the download is given up."""

_TIMEOUT = 30.0
"""Seconds to wait for an answer of the server."""

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Returns the folder in which fetched files are kept: `MULTIBOX_CACHE`, or `~/.cache/multibox`."""
    return Path(os.environ.get("MULTIBOX_CACHE") or Path.home() / ".cache" / "multibox")


def fetch(url: str, *, sha256: str, on_progress: OnProgress | None = None) -> Path:
    """Returns the path of a file in the cache, and downloads the file if it is not there.

    A file in the cache is checked by its hash once per process. A download that breaks off is kept beside the file's
    place as `.part`, and the next call resumes it. A second process that wants the same file waits for the first.

    Args:
        url: Address of the file. Its last part is the name in the cache.
        sha256: SHA-256 of the file in hexadecimal digits, or the first eight or more of them.
        on_progress: Called with the progress of the download.

    Raises:
        FileNotFoundError: The server has no such file.
        ConnectionError: The server cannot be reached, refuses, or breaks off again and again.
        ValueError: The file does not have this hash.
        OSError: The file cannot be written, for example because the disk is full.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url}: only http and https addresses can be fetched")
    if not re.fullmatch("[0-9a-f]{8,64}", sha256):
        raise ValueError(f"{url}: a SHA-256 has 8 to 64 hexadecimal digits, unlike '{sha256}'")
    target = cache_folder() / Path(parts.path).name
    if not target.is_file():
        with locked(target):
            if not target.is_file():  # another process may have fetched it meanwhile
                _log.info("fetching %s", url)
                _Download(url, target, on_progress).run(sha256)
                return target
    stamp = target.stat()
    found = _sha256_once(target, stamp.st_size, stamp.st_mtime_ns)
    if not found.startswith(sha256):  # put there by the user, or damaged since
        raise ValueError(
            f"{target}: has the SHA-256 {_start(found, sha256)}..., expected {sha256}...: it is not the file of {url}; "
            "delete it, and the next call fetches it"
        )
    return target


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Makes the folder of the file, and keeps other processes waiting that want to make the same file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        yield


class _Download:
    """One file on its way into the cache."""

    def __init__(self, url: str, target: Path, on_progress: OnProgress | None) -> None:
        self.url = url
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self.on_progress = on_progress
        self.total: int | None = None

    def run(self, sha256: str) -> None:
        """Fetches the file and puts it into its place if its hash is right."""
        resumed = self._size() > 0
        self._read_all()
        found = file_sha256(self.part)
        if not found.startswith(sha256) and resumed:  # the part may have been one of another file
            self.part.unlink()
            self._read_all()
            found = file_sha256(self.part)
        if not found.startswith(sha256):
            self.part.unlink()
            raise ValueError(
                f"{self.url}: the fetched file has the SHA-256 {_start(found, sha256)}..., expected "
                f"{sha256}...; it was deleted (is there a proxy or a login page in between?)"
            )
        os.replace(self.part, self.target)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _read_all(self) -> None:
        """Fetches until the `.part` is whole, over as many connections as that takes."""
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
        """Fetches the rest of the file over one connection."""
        have = self._size()
        headers = {"User-Agent": "multibox", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            response = urlopen(Request(self.url, headers=headers), timeout=_TIMEOUT)
        except HTTPError as error:
            if error.code != 416:
                raise
            error.close()  # the part has as many bytes as the file, or more; its hash decides
            return
        with response:
            resumes = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if not resumes:  # the server does not know ranges and sends the whole file
                have = 0
            length = response.headers.get("Content-Length")
            self.total = have + int(length) if length and length.isdecimal() else None
            self._check_room(have)
            with open(self.part, "ab" if resumes else "wb", buffering=0) as file:
                self._copy(response, file, have)

    def _copy(self, response: HTTPResponse, file: io.RawIOBase, have: int) -> None:
        """Appends the response to the `.part`, which has `have` bytes."""
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
            raise ConnectionResetError(f"the connection broke off after {have:,} of {self.total:,} bytes")

    def _check_room(self, have: int) -> None:
        if self.total is not None and shutil.disk_usage(self.part.parent).free < self.total - have:
            raise self._disk_full(have)

    def _disk_full(self, have: int) -> OSError:
        size = "of unknown size" if self.total is None else f"{self.total / 1e6:.1f} MB"
        return OSError(
            f"{self.part.parent}: no room on the disk for {self.target.name} ({size}, {have / 1e6:.1f} MB are there); "
            "make room and try again, or name another folder with MULTIBOX_CACHE"
        )

    def _refused(self, error: HTTPError) -> OSError:
        error.close()
        if error.code in (404, 410):
            return FileNotFoundError(f"{self.url}: the server has no such file (HTTP {error.code})")
        return ConnectionError(f"{self.url}: the server answers HTTP {error.code} ({error.reason}); try again later")

    def _worth_another_try(self, error: Exception) -> bool:
        """Returns whether to connect again: yes after a broken connection, no if there was no connection."""
        return not isinstance(error, URLError)

    def _unreachable(self, error: Exception) -> ConnectionError:
        have = self._size()
        kept = f"; {have / 1e6:.1f} MB are kept, and the next call resumes there" if have else ""
        if not isinstance(error, URLError):
            return ConnectionError(f"{self.url}: the connection broke {_TRIES} times in a row ({error}){kept}")
        return ConnectionError(
            f"{self.url}: '{urlsplit(self.url).hostname}' cannot be reached ({_reason(error)}); is this machine "
            f"offline? If you have the file from elsewhere, copy it to {self.target}{kept}"
        )


def _reason(error: URLError) -> str:
    reason = error.reason
    return getattr(reason, "strerror", None) or str(reason)


@cache
def _sha256_once(path: Path, size: int, changed: int) -> str:
    """Returns the SHA-256 of a file, computed once for each size and time of change."""
    return file_sha256(path)


def _start(found: str, expected: str) -> str:
    """Returns the beginning of the found hash, as long as the expected one but at least 16 digits."""
    return found[: max(len(expected), 16)]
