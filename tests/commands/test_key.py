"""`ctr key` makes a key that its hash in the settings knows."""

from __future__ import annotations

import json

import pytest

from app.header_keys import KnownKeys
from tests.command_line import Ctr, command_line


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctr:
    return command_line(monkeypatch, capsys)


def test_the_key_and_its_hash_are_printed(ctr: Ctr) -> None:
    status, out, err = ctr("key", "shop")
    key, setting = out.splitlines()
    assert (status, KnownKeys([setting]).name_of(key.encode())) == (0, "shop")
    assert key not in err
    made = json.loads(ctr("key", "--json")[1])
    assert KnownKeys([made["hash"]]).name_of(made["key"].encode()) == "unnamed"


def test_a_name_that_the_setting_cannot_hold_is_refused(ctr: Ctr) -> None:
    for name in ("a,b", "a=b", "x" * 65, "ann smith"):
        status, out, err = ctr("key", name)
        assert (status, out) == (1, "")
        assert "use at most 64 letters" in err
