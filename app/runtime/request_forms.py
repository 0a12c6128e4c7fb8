"""The forms in which clients write a request's head, made plain; and words for what is no request."""

from __future__ import annotations

import httptools

from app.errors import HeadTooLarge, HeadTooSlow, NotHttp

MAX_HEADER_LINES = 100
VERSIONS = frozenset({"1.0", "1.1"})
HTTP_2_PREFACE, TLS_HANDSHAKE = b"PRI * HTTP/2", b"\x16\x03"
OFFER = frozenset({b"upgrade", b"http2-settings"})
"""The headers of an offer to change the protocol, and their tokens in Connection."""


def head_without_offer(method: bytes, target: bytes, version: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Write the head of a request again without its offer to change the protocol."""
    lines = [method, b" ", target, b" HTTP/%b\r\n" % version]
    for name, value in headers:
        if name == b"connection":
            tokens = (token.strip() for token in value.split(b","))
            value = b", ".join(token for token in tokens if token.lower() not in OFFER)
        if name not in OFFER:
            lines += [name, b": ", value, b"\r\n"]
    return b"".join(lines) + b"\r\n"


def target_of(target: bytes, version: str, max_bytes: int) -> bytes:
    """Return what a first line asks for, as a path and a query. Raises HeadTooLarge, and NotHttp for its version."""
    if len(target) > max_bytes:
        raise too_large("head", max_bytes)
    if version not in VERSIONS:  # llhttp reads 0.9 and 2.0 too
        raise NotHttp("this server speaks HTTP/1.1; end the request's first line with it")
    return target if target.startswith(b"/") else origin_form(target)


def origin_form(target: bytes) -> bytes:
    """Return the path and query of a target in absolute form, `http://host/rank`; others stay as they are."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or not scheme.isalpha():
        return target
    authority = rest.partition(b"/")[0].partition(b"?")[0]
    path = rest[len(authority) :]
    return path if path.startswith(b"/") else b"/" + path


def require_one_host(headers: list[tuple[bytes, bytes]]) -> None:
    """Raise NotHttp if a head names several hosts: a proxy may have routed it by another one (RFC 9112, 3.2).

    A head without any is let pass: nothing here goes by it.
    """
    if [name for name, _ in headers].count(b"host") > 1:
        raise NotHttp("the request has several Host headers; send one")


def describe_malformed(data: bytes, error: httptools.HttpParserError) -> str:
    """Say what was received in place of a request, without repeating it."""
    if data.startswith(TLS_HANDSHAKE):
        return "this port speaks plain HTTP, not TLS: use http://, or have a proxy in front end TLS"
    if data.startswith(HTTP_2_PREFACE):
        return "this server speaks HTTP/1.1; have the client begin with it, or a proxy in front end HTTP/2"
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return "no such method; methods are upper-case, as in POST /rank HTTP/1.1"
    if isinstance(error, httptools.HttpParserInvalidURLError | httptools.HttpParserCallbackError):
        return "the request's target cannot be read; send a path such as /rank, percent-encoded"
    return f"the request is malformed: {str(error)[:100]}"


def too_large(part: str, max_bytes: int) -> HeadTooLarge:
    """Return the refusal of a request's head, or of the trailer section of its body, that passes the bounds."""
    return HeadTooLarge(
        f"at most {max_bytes} bytes and {MAX_HEADER_LINES} lines of its {part} are read; send less, or raise "
        "CTR_MAX_HEADER_BYTES"
    )


def too_slow(timeout_s: float) -> HeadTooSlow:
    """Return the refusal of a head that was not complete in time."""
    return HeadTooSlow(f"it was not complete after {timeout_s:g} s; send it faster, or raise CTR_HEADER_TIMEOUT_S")
