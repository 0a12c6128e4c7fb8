"""`LoadShedder` answers requests of an overloaded process from their bytes, before the server parses them.

To parse a request and to refuse it in the application takes a tenth of answering it, so that at ten times its capacity
a process would do little else. This takes a hundredth (docs/adr/0025).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from app.api.headers import request_id_of
from app.api.problems import problem_response
from app.errors import Overloaded
from app.ranking.admission import Admission

PLAIN = re.compile(
    rb"""
    (?-i:POST\ /rank\ HTTP/1\.1\r\n)
    (?:
        (?(1)(?!)|content-length:[ \t]*([0-9]{1,9})[ \t]*\r\n)  # group 1, once
      | x-request-id:([^\r\n\0]*)\r\n  # group 2: the last one counts, as for the application
      | connection:[ \t]*keep-alive[ \t]*\r\n  # many clients say it, though HTTP/1.1 means it anyway
      | (?!content-length|x-request-id:|transfer-encoding|expect|upgrade|connection|proxy-connection|origin)
        [^\r\n\0\ \t:]+:[^\r\n\0]*\r\n
    )*+  # each line is matched in one way alone, and never tried in another
    \r\n
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""The head of a request that has a body of a known length, and no header by which it would be answered in another form
or end elsewhere."""
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
        if not self._admission.overloaded or (head := PLAIN.match(data)) is None:
            return None
        length, sent_id = head.groups()
        if length is None or len(data) != head.end() + int(length) or not self._admission.sheds(int(length)):
            return None
        self._on_refused(self._error)
        sent = {} if sent_id is None else {b"x-request-id": sent_id.strip(b" \t")}
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
