"""A local HTTP server that misbehaves on demand."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file and how it is served."""

    content: bytes
    ranges: bool = True  # False: the whole file whatever is asked for
    length: bool = True  # False: without Content-Length, until the connection closes
    tag: str | None = None  # ETag; None: the content's own; "": none at all
    modified: str = ""
    cut_after: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    statuses: list[int] = field(default_factory=list)  # refusals before the first answer
    encoding: str = ""  # a Content-Encoding that the server claims
    shift: int = 0  # how many bytes before the asked-for ones a range begins
    pause: float = 0.0  # seconds between pieces of 4 kB


@dataclass
class Server:
    files: dict[str, Served] = field(default_factory=dict)
    log: list[tuple[str, str, int]] = field(default_factory=list)  # path, Range header, status
    address: str = ""

    def add(self, path: str, content: bytes, **how: object) -> str:
        self.files[path] = Served(content, **how)  # type: ignore[arg-type]
        return self.address + path

    def ranges(self, path: str) -> list[str]:
        """The Range header of every request for a path."""
        return [span for asked, span, _ in self.log if asked == path]


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, asked = self.path.split("?")[0], self.headers.get("Range", "")
            served = server.files.get(path)
            status = 404 if served is None else served.statuses.pop(0) if served.statuses else 200
            if served is None or status != 200:
                server.log.append((path, asked, status))
                self.send_error(status)
                return
            tag = f'"{hashlib.md5(served.content).hexdigest()}"' if served.tag is None else served.tag
            condition = self.headers.get("If-Range", "")
            span = re.fullmatch(r"bytes=(\d+)-", asked)
            start, content = 0, served.content
            if span and served.ranges and condition in ("", tag, served.modified):
                start = max(0, int(span[1]) - served.shift)
                status = 206 if int(span[1]) < len(content) else 416
            server.log.append((path, asked, status))
            self.send_response(status)
            if status == 416:
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if served.length:
                self.send_header("Content-Length", str(len(content) - start))
            for name, value in (
                ("ETag", tag),
                ("Last-Modified", served.modified),
                ("Content-Encoding", served.encoding),
            ):
                if value:
                    self.send_header(name, value)
            self.end_headers()
            stop = served.cut_after.pop(0) if served.cut_after else len(content)
            for at in range(start, min(len(content), start + stop), 4096):
                self.wfile.write(content[at : min(at + 4096, start + stop)])
                time.sleep(served.pause)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # clients that are killed in the middle of an answer


@contextmanager
def flaky_server() -> Iterator[Server]:
    server = Server()
    http = _Quiet(("127.0.0.1", 0), _handler(server))
    server.address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
