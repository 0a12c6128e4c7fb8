"""`decoded` undoes the Content-Encoding of a body, without ever holding more than a body may have."""

from __future__ import annotations

import zlib

from app.api.headers import Headers
from app.errors import BodyTooLarge, NotJson, UnsupportedMedia

GZIP = frozenset({b"gzip", b"x-gzip"})
ACCEPTED = "gzip"
"""The value of Accept-Encoding in the answer to another coding (RFC 9110, 12.5.3)."""
MAX_MEMBERS = 8
"""Most members of a gzip body, each of which costs a decoder, however little it holds."""


def decoded(raw: bytes, headers: Headers, limit: int) -> bytes:
    """Return the body that a request's headers describe.

    Args:
        limit: the most bytes that the decoded body may have; decoding ends there, so a bomb costs no more.

    Raises:
        UnsupportedMedia: the coding is not gzip.
        NotJson: the body is not what Content-Encoding says.
        BodyTooLarge: it is larger than the limit once it is decoded.
    """
    coding = headers.get(b"content-encoding", b"").strip().lower()
    if coding in (b"", b"identity"):
        return raw
    if coding not in GZIP:
        raise UnsupportedMedia("only gzip is read; send the body with Content-Encoding: gzip, or without any")
    parts: list[bytes] = []
    size = 0
    for _ in range(MAX_MEMBERS):
        decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            part = decoder.decompress(raw, limit - size + 1)
        except zlib.error:
            what = "it has something behind its end" if parts else "the body is not gzip"
            raise NotJson(f"Content-Encoding says gzip, but {what}") from None
        parts.append(part)
        size += len(part)
        if size > limit:
            raise BodyTooLarge(f"at most {limit} bytes are read, also of a body that was gzip")
        if not decoder.eof:
            raise NotJson("the gzip body is empty or cut off")
        raw = decoder.unused_data
        if not raw:
            return b"".join(parts)
    raise NotJson(f"the gzip body has more than {MAX_MEMBERS} members")
