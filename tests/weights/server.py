"""A server of files on this machine whose connections can be made to break."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves `files` by path; each answer may be cut off, and it remembers what was asked for.

    Attributes:
        files: The bytes of each path.
        requests: `(path, Range)` of every request, in order.
        cut_after: Bytes after which the next answers break off, one for each; then they are whole.
        knows_ranges: Whether it can send the rest of a file.
        states_length: Whether it says how many bytes come.
        statuses: Answers in the place of a file, by path.
        held: While it is not set, answers wait before their last byte.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.cut_after: list[int] = []
        self.knows_ranges = True
        self.states_length = True
        self.statuses: dict[str, int] = {}
        self.held = threading.Event()
        self.held.set()
        self.address = ""

    def url(self, path: str) -> str:
        return self.address + path


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.requests.append((self.path, wanted))
            if self.path in server.statuses or self.path not in server.files:
                self.send_error(server.statuses.get(self.path, 404))
                return
            data, first = server.files[self.path], 0
            if wanted and server.knows_ranges:
                first = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if first >= len(data):
                    self.send_error(416)
                    return
            self.send_response(206 if wanted and server.knows_ranges else 200)
            if wanted and server.knows_ranges:
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            rest = data[first:]
            if server.states_length:
                self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if server.cut_after:
                self.wfile.write(rest[: server.cut_after.pop(0)])
                return
            self.wfile.write(rest[:-1])
            server.held.wait(20)
            self.wfile.write(rest[-1:])

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        web.daemon_threads = True
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.address = f"http://127.0.0.1:{web.server_port}"
        try:
            yield server
        finally:
            web.shutdown()
            thread.join()
