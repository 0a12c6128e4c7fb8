from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.features.resp_commands import key_command, pack_command


def test_a_command_is_an_array_of_bulk_strings_counted_in_bytes() -> None:
    assert pack_command("GET", "é") == b"*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xa9\r\n"


@given(st.text(st.characters(exclude_categories=())))
def test_a_key_command_is_the_same_whatever_the_key(key: str) -> None:
    assert key_command("HLEN")(key) == pack_command("HLEN", key)
    assert key_command("HMGET", ["ä", "b"])(key) == pack_command("HMGET", key, "ä", "b")
