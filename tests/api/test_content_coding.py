"""A body's Content-Encoding is undone within bounds, or refused with what to do."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.content_coding import MAX_MEMBERS, decoded
from app.errors import BodyTooLarge, NotJson, RequestError, UnsupportedMedia

GZIP = {b"content-encoding": b"gzip"}
LIMIT = 1000


@given(st.binary(max_size=LIMIT), st.integers(1, 9))
def test_what_gzip_wrote_is_read(body: bytes, level: int) -> None:
    assert decoded(gzip.compress(body, level), GZIP, LIMIT) == body


def test_members_that_follow_each_other_are_one_body() -> None:
    assert decoded(gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"c"), GZIP, LIMIT) == b"abc"
    with pytest.raises(NotJson, match="members"):
        decoded(gzip.compress(b"") * (MAX_MEMBERS + 1), GZIP, LIMIT)


def test_the_limit_is_for_decoded_bytes_and_a_bomb_costs_no_more() -> None:
    assert len(decoded(gzip.compress(b"x" * LIMIT), GZIP, LIMIT)) == LIMIT
    bomb = gzip.compress(b"\0" * 50_000_000)
    for body in (gzip.compress(b"x" * (LIMIT + 1)), bomb, gzip.compress(b"x" * 999) + gzip.compress(b"xx")):
        tracemalloc.start()
        with pytest.raises(BodyTooLarge, match="at most 1000 bytes"):
            decoded(body, GZIP, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        gzip.compress(b"{}")[:-1],
        gzip.compress(b"{}") + b"x",
        zlib.compress(b"{}"),
        gzip.compress(b"{}")[:5],
    ],
    # gzip holds the time, and a test's name must not change from one second to the next.
    ids=["nothing", "plain", "cut short", "with more behind it", "zlib", "a head"],
)
def test_what_is_not_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(NotJson, match="gzip"):
        decoded(body, GZIP, LIMIT)


@given(st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(RequestError):
        assert len(decoded(body, GZIP, LIMIT)) <= LIMIT


def test_only_gzip_is_read() -> None:
    assert decoded(b"{}", {}, LIMIT) == decoded(b"{}", {b"content-encoding": b" Identity"}, LIMIT) == b"{}"
    for coding in (b"deflate", b"br", b"zstd", b"gzip, br"):
        with pytest.raises(UnsupportedMedia, match="only gzip"):
            decoded(b"{}", {b"content-encoding": coding}, LIMIT)
