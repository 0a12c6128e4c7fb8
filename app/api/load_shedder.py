"""`LoadShedder` answers requests of an overloaded process from their bytes, before the server parses them.

To parse a request and to refuse it in the application takes a tenth of answering it, so that at ten times its capacity
a process would do little else. This takes a hundredth (docs/adr/0025).
"""

from __future__ import annotations

from collections.abc import Callable

from app.api.headers import request_id_of
from app.api.problems import problem_response
from app.errors import Overloaded
from app.ranking.admission import Admission

BEGIN = b"POST /rank HTTP/1.1\r\n"
LENGTH, REQUEST_ID = b"\r\ncontent-length:", b"\r\nx-request-id:"
LEFT_TO_THE_SERVER = tuple(
    b"\r\n" + name
    for name in (
        b"transfer-encoding",
        b"expect",
        b"upgrade",
        b"connection",
        b"proxy-connection",
        b"origin",
        b" ",
        b"\t",
    )
)
"""Headers of requests that are answered in another form, or end elsewhere than Content-Length says."""
KEEP_ALIVE = b"\r\nconnection: keep-alive\r\n"
"""What many clients say, though HTTP/1.1 means it anyway."""
_PLACEHOLDER = "REQUEST-ID"


class LoadShedder:
    """Refuses whole requests for POST /rank, in one piece and in their plain form; the server takes all others."""

    def __init__(self, admission: Admission, on_refused: Callable[[Overloaded], None]) -> None:
        """
        Args:
            on_refused: told of each request that is refused here.
        """
        self._admission = admission
        self._on_refused = on_refused
        self._error = Overloaded("requests would wait too long for those before them")
        response = problem_response(self._error, _PLACEHOLDER)
        before, _, after = bytes(response.body).partition(_PLACEHOLDER.encode())
        self._body_parts = before, after
        headers = [header for header in response.raw_headers if header[0] != b"content-length"]
        self._head = b"HTTP/1.1 503 Service Unavailable\r\n" + b"".join(b"%b: %b\r\n" % header for header in headers)

    def __call__(self, data: bytes) -> bytes | None:
        """Return the answer to bytes that are one request which is refused, None if the server is to take them."""
        if not self._admission.overloaded or not data.startswith(BEGIN):
            return None
        end = data.find(b"\r\n\r\n")
        head = data[: end + 2].lower()
        begin = head.find(LENGTH)
        if end < 0 or begin < 0 or head.count(b"\n") != head.count(b"\r\n") or b"\0" in head:
            return None
        telling = head.replace(KEEP_ALIVE, b"\r\n")
        if any(name in telling for name in LEFT_TO_THE_SERVER):
            return None
        length = _value(head, begin + len(LENGTH))
        if head.find(LENGTH, begin + 1) >= 0 or not length.isdigit() or len(length) > 9:
            return None
        size = int(length)
        if len(data) != end + 4 + size or not self._admission.sheds(size):
            return None
        self._on_refused(self._error)
        begin = head.rfind(REQUEST_ID)  # the last counts, as for the application
        sent = {} if begin < 0 else {b"x-request-id": _value(data, begin + len(REQUEST_ID))}
        request_id = request_id_of(sent).encode()
        before, after = self._body_parts
        return b"%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b%b%b" % (
            self._head,
            len(before) + len(request_id) + len(after),
            request_id,
            before,
            request_id,
            after,
        )


def _value(head: bytes, begin: int) -> bytes:
    return head[begin : head.find(b"\r\n", begin)].strip(b" \t")
