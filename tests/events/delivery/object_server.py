"""A server that speaks as much of S3 as the event log asks of one: put, get, list and delete, in memory."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape


@dataclass
class ObjectServer:
    """Objects by their paths, and how the server behaves."""

    objects: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    """503 refuses all."""
    silent: threading.Event = field(default_factory=threading.Event)
    """While it is set, requests are taken and not answered."""
    requests: int = 0
    port: int = 0


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    state = ObjectServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _is_away(self) -> bool:
            state.requests += 1
            while state.silent.is_set():
                time.sleep(0.01)
            if state.status != 200:
                self._answer(state.status, b"<Error><Code>SlowDown</Code></Error>")
            return state.status != 200

        @property
        def _path(self) -> str:
            return unquote(urlsplit(self.path).path).lstrip("/")

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._is_away():
                state.objects[self._path] = body
                self._answer(200, ETag='"e"')

        def do_GET(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            if self._is_away():
                return
            if "list-type" in query:
                self._list(query.get("prefix", ""))
            elif self._path in state.objects:
                self._answer(200, state.objects[self._path], ETag='"e"', Last_Modified=formatdate(1, usegmt=True))
            else:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

        def _list(self, prefix: str) -> None:
            bucket = self._path.rstrip("/")
            names = {path.removeprefix(f"{bucket}/"): len(body) for path, body in state.objects.items()}
            found = "".join(
                f"<Contents><Key>{escape(name)}</Key><Size>{size}</Size><ETag>e</ETag>"
                "<LastModified>2026-11-29T10:00:00.000Z</LastModified></Contents>"
                for name, size in sorted(names.items())
                if name.startswith(prefix)
            )
            self._answer(200, f"<ListBucketResult>{found}<IsTruncated>false</IsTruncated></ListBucketResult>".encode())

        def do_DELETE(self) -> None:
            if not self._is_away():
                state.objects.pop(self._path, None)
                self._answer(204)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._is_away():
                keys = [node.text or "" for node in ElementTree.fromstring(body).iter() if node.tag.endswith("Key")]
                for key in keys:
                    state.objects.pop(f"{self._path.rstrip('/')}/{key}", None)
                deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
                self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.silent.clear()
        server.shutdown()
        server.server_close()
        thread.join()
