"""`ctr bench rank` says what to do where a service asks for a key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.command_line import Ctr


class Refusal(BaseHTTPRequestHandler):
    """Answers every request that it has none of the keys."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(401)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Keep standard error for the command."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_service_that_asks_for_a_key_is_said_with_how_to_give_one(ctr: Ctr, url: str) -> None:
    status, _, err = ctr("bench", "rank", "--url", url, "--seconds", "0.1", "--concurrency", "1")
    assert status == 1
    assert f"{url} asks for an API key; none was sent: give one of its keys with --api-key" in " ".join(err.split())
