"""A headless Chromium that opens a folder as a web page, over WebDriver: chromedriver speaks JSON over HTTP."""

import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

_FLAGS = [
    "--headless",
    "--no-sandbox",  # it does not start as root otherwise
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    # a GPU in software
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
]


class Browser:
    """A browser with one page."""

    def __init__(self, session: str) -> None:
        self._session = session

    def send(self, method: str, path: str, **values: object) -> object:
        return _send(method, f"{self._session}{path}", values)

    def run(self, code: str) -> object:
        """What the page's JavaScript returns."""
        return self.send("POST", "/execute/sync", script=code, args=[])

    def wait(self, code: str, seconds: float = 60) -> object:
        """What the code returns as soon as it is neither false nor null."""
        end = time.monotonic() + seconds
        while not (found := self.run(f"return {code}")):
            assert time.monotonic() < end, f"{code}: {self.run('return document.body.innerText')}"
            time.sleep(0.05)
        return found

    def choose_file(self, path: Path) -> None:
        """Chooses a file in the page's file input."""
        element = self.send("POST", "/element", using="css selector", value="#file")
        (name,) = element.values()
        self.send("POST", f"/element/{name}/value", text=str(path))

    def chrome(self, command: str, **values: object) -> object:
        """Gives a command of the Chrome DevTools Protocol."""
        return self.send("POST", "/goog/cdp/execute", cmd=command, params=values)


@contextmanager
def browse(folder: Path) -> Iterator[Browser]:
    """Serves the folder and opens it."""
    handler = partial(_Quiet, directory=str(folder))
    driver = subprocess.Popen([CHROMEDRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            port = (
                next(line for line in driver.stdout if "successfully on port" in line)
                .split("on port ")[1]
                .strip(" .\n")
            )
            options = {"binary": CHROMIUM, "args": _FLAGS}
            wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
            made = _send("POST", f"http://127.0.0.1:{port}/session", {"capabilities": wanted})
            browser = Browser(f"http://127.0.0.1:{port}/session/{made['sessionId']}")
            try:
                browser.send("POST", "/url", url=f"http://127.0.0.1:{server.server_port}/")
                yield browser
            finally:
                browser.send("DELETE", "")
        finally:
            server.shutdown()
            driver.terminate()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def _send(method: str, url: str, values: dict) -> object:
    body = json.dumps(values).encode() if method == "POST" else None
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=180) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(json.load(error)["value"]["message"]) from None
