"""Keys are known by themselves and by their hash; a hash that is none is refused without being shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError
from app.header_keys import NAME, UNNAMED, KnownKeys, hashed, is_hashed, new_key
from app.observability.metrics import Metrics
from app.ranking.metric_exporters import KeyUseExporter
from app.settings import load_settings
from tests.observability.test_metrics import value

keys = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1).filter(
    lambda key: "sha256:" not in key.lower()
)


@given(keys, st.from_regex(NAME, fullmatch=True) | st.just(""), st.lists(keys))
def test_a_key_is_known_by_its_hash_and_no_other_is(key: str, name: str, others: list[str]) -> None:
    ring = KnownKeys([hashed(key, name), "shop=" + hashed("another")])
    assert ring.name_of(key.encode()) == (name or UNNAMED)
    assert ring.name_of(hashed(key, name).encode()) is None, "who reads the settings has no key"
    for other in others:
        if other not in (key, "another"):
            assert ring.name_of(other.encode()) is None


def test_two_keys_of_one_caller_are_live_together() -> None:
    ring = KnownKeys([hashed("old", "shop"), hashed("new", "shop"), "plain"])
    sent = (b"old", b"new", b"plain", b"gone", b"")
    assert [ring.name_of(key) for key in sent] == ["shop", "shop", UNNAMED, None, None]
    metrics = Metrics()
    exporter = KeyUseExporter(ring, metrics)
    for _ in range(2):
        exporter.export()
        assert value(metrics, "ctr_key_requests_total", key="shop") == 2
        assert value(metrics, "ctr_key_requests_total", key=UNNAMED) == 1


def test_without_keys_none_is_known() -> None:
    assert not KnownKeys()
    assert KnownKeys().name_of(b"") is None


def test_new_keys_differ_and_fit_into_a_header() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    for key in made:
        assert key.startswith("ctr_")
        assert len(key) >= 40
        assert key.isascii()
        assert "," not in key
        assert not is_hashed(key)


@pytest.mark.parametrize("wrong", ["sha256:abc", "shop=sha256:", "SHA256:" + "0" * 64, "a b=sha256:" + "0" * 64])
@pytest.mark.parametrize("setting", ["CTR_API_KEYS", "CTR_ADMIN_KEY"])
def test_what_is_meant_as_a_hash_and_is_none_is_refused(
    setting: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, wrong)
    with pytest.raises(ConfigError, match=f"{setting}: not a hash of a key; write NAME=sha256:") as refused:
        load_settings()
    assert wrong not in str(refused.value)
