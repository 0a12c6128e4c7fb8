"""Values beyond the bound are dropped as they arrive, and everything else is what hiredis makes of the same bytes."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.features.resp_reader import OVERSIZED, RespReader
from app.native.layout import MAX_VALUE_BYTES

TOO_LARGE = MAX_VALUE_BYTES + 1


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(values: list[bytes | None], kind: bytes = b"*") -> bytes:
    return b"%b%d\r\n%b" % (kind, len(values), b"".join(map(bulk, values)))


def _as_read(value: bytes | None) -> Any:
    if value is None:
        return None
    return OVERSIZED if len(value) == TOO_LARGE else value.decode(errors="replace")


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes where a connection may."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


values = st.none() | st.binary(max_size=8) | st.sampled_from([b"$70000\r\n", b"\r\n", b"$", b"*2\r\n"])
replies = st.one_of(
    st.lists(values, max_size=4).map(array),
    st.lists(values, min_size=1, max_size=3).map(lambda words: array([b"invalidate", *words], b">")),
    values.map(bulk),
    st.sampled_from(
        [b"+OK\r\n", b":7\r\n", b"-ERR no\r\n", b"_\r\n", b"%1\r\n+a\r\n$1\r\nb\r\n", b"=5\r\ntxt:a\r\n", b"$0\r\n\r\n"]
    ),
)


@given(st.lists(replies, max_size=6), st.lists(st.integers(0, 400), max_size=6))
def test_what_is_within_the_bound_is_read_as_hiredis_reads_it_however_it_is_cut(
    sent: list[bytes], places: list[int]
) -> None:
    data = b"".join(sent)
    reader, reference = RespReader(), hiredis.Reader(encoding="utf-8", errors="replace")
    reference.feed(data)
    expected = [reference.gets() for _ in sent]
    read = [reply for piece in cut(data, places) for reply in reader.read(piece)]
    assert repr(read) == repr(expected)


@given(
    st.lists(st.lists(values | st.just(b"L" * TOO_LARGE), min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 2 * TOO_LARGE), max_size=8),
)
def test_a_value_beyond_the_bound_is_marked_in_its_place(lists: list[list[bytes | None]], places: list[int]) -> None:
    reader = RespReader()
    read = [reply for piece in cut(b"".join(map(array, lists)), places) for reply in reader.read(piece)]
    expected = [[_as_read(value) for value in one] for one in lists]
    assert read == expected
    assert reader.read(b"+PONG\r\n") == ["PONG"]


def test_the_bound_is_exact() -> None:
    reader = RespReader()
    assert reader.read(bulk(b"x" * MAX_VALUE_BYTES)) == ["x" * MAX_VALUE_BYTES]
    assert reader.read(bulk(b"x" * TOO_LARGE)) == [OVERSIZED]


def test_a_value_of_30_megabytes_takes_no_memory() -> None:
    reader, piece = RespReader(), bytes(65536)
    reader.read(b"*2\r\n$30000000\r\n")
    tracemalloc.start()
    for _ in range(30_000_000 // len(piece)):
        assert reader.read(piece) == []
    assert reader.read(bytes(30_000_000 % len(piece)) + b"\r\n$1\r\na\r\n") == [[OVERSIZED, "a"]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_line_without_an_end_is_no_reply() -> None:
    reader = RespReader()
    assert reader.read(b"+" + b"x" * (MAX_VALUE_BYTES - 1)) == []
    with pytest.raises(hiredis.ProtocolError):
        reader.read(b"xx")


def test_a_reply_of_the_server_in_the_words_of_the_mark_is_no_mark() -> None:
    reader = RespReader()
    (reply,) = reader.read(b"-OVERSIZED\r\n")
    assert isinstance(reply, hiredis.ReplyError)
