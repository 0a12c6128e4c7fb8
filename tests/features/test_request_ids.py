"""Ids read from JSON without a parser: the same strings as a parser gives, or None."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from app.features.request_ids import RequestIds, id_hash

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
plain = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\'), min_size=1, max_size=256)
usual = st.lists(plain | st.integers(-(10**18) + 1, 10**18 - 1), min_size=1, max_size=20)
white = st.sampled_from(["", " ", "\n\t ", "\r\n"])


@given(usual, white, white)
def test_usual_ids_are_read_as_a_parser_reads_them(items: list[str | int], before: str, after: str) -> None:
    wire = f"[{before}" + f"{after},{before}".join(json.dumps(item) for item in items) + f"{after}]"
    ids = RequestIds.from_json(wire.encode(), 20)
    assert ids is not None
    assert len(ids) == len(items)
    assert ids.hash_N.tolist() == [id_hash(str(item)) for item in items]
    assert list(ids) == [str(item) for item in items]


@given(st.binary(max_size=40) | st.text('[]",\\0123-.eE ab', max_size=40).map(str.encode))
@example(b"[]")
@example(b"[-0]")
@example(b"[01]")
@example(b"[1.0]")
@example(b"[1e3]")
@example(b"[9999999999999999999]")
@example(b'[""]')
@example(b'["a",]')
@example(b'["a"]]')
@example(b'["a"')
@example(b'["a" "b"]')
@example(b'["a\\u0041"]')
@example('["é"]'.encode())
@example(b'["' + b"x" * 257 + b'"]')
def test_any_bytes_give_exactly_what_a_parser_gives_or_none(wire: bytes) -> None:
    ids = RequestIds.from_json(wire, 10)
    if ids is None:
        return
    read = [str(item) for item in json.loads(wire)]
    assert list(ids) == read
    assert ids.hash_N.tolist() == [id_hash(item_id) for item_id in read]


def test_no_more_are_read_than_the_limit() -> None:
    wire = json.dumps([str(number) for number in range(5)]).encode()
    assert RequestIds.from_json(wire, 4) is None
    assert len(RequestIds.from_json(wire, 5) or ()) == 5


@given(st.lists(texts, max_size=20))
def test_any_strings_can_be_held(items: list[str]) -> None:
    """Ids with escapes have no hash; their text alone identifies them."""
    ids = RequestIds.from_strings(items)
    assert list(ids) == items
    assert ids.at(range(len(items) - 1, -1, -1)) == items[::-1]
    begins = np.frombuffer(ids.words_2N.tobytes(), np.int32)
    start = (ids.begins - ids.pointer) // 4
    for index, item in enumerate(items):
        text = ids.json[begins[start + index] : begins[start + index + (ids.ends - ids.begins) // 4]]
        assert json.loads(b'"' + text + b'"') == item
        assert ids.hash_N[index] in (0, id_hash(item))
        assert (ids.hash_N[index] == 0) == (b"\\" in text)


def test_hashes_depend_on_every_byte_and_are_never_zero() -> None:
    names = [f"{prefix}{number}" for prefix in ("", "a", "item:", "x" * 40) for number in range(5000)]
    hashes = [id_hash(name) for name in names]
    assert len(set(hashes)) == len(names)
    assert 0 not in hashes
    bits = np.array([[hash_ >> bit & 1 for bit in range(64)] for hash_ in hashes[::5]])
    assert np.abs(bits.mean(0) - 0.5).max() < 0.05
