"""The synthetic catalogue: the same everywhere for the same seed, uniform, and written whole to the store."""

from __future__ import annotations

import numpy as np
import pytest
import redis
from xxhash import xxh3_64_intdigest

from app.errors import ConfigError, StoreError
from app.features.key_template import KeyTemplate
from app.features.loading.synthetic import BATCH, SyntheticCatalogue, load_features, splitmix64

SMALL = SyntheticCatalogue(users=30, items=700, user_fields=3, item_fields=4, cardinality=50, seed=7)


def test_bits_are_those_of_splitmix64() -> None:
    """Each index is one step of the published generator further; here it is written out with plain integers."""
    mask = 2**64 - 1
    state = xxh3_64_intdigest(b"3 x")
    for bits in splitmix64(3, "x", 0, 5).tolist():
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        assert bits == z ^ (z >> 31)
        state = (state + 0x9E3779B97F4A7C15) & mask


def test_a_slice_of_the_catalogue_is_that_slice() -> None:
    assert np.array_equal(SMALL.values("item", 123, 456), SMALL.values("item", 0, 700)[123:456])


def test_values_are_uniform() -> None:
    counts = np.bincount(SyntheticCatalogue(cardinality=10).values("item", 0, 20_000).ravel(), minlength=10)
    assert counts.sum() == 400_000
    assert np.abs(counts / 40_000 - 1).max() < 0.03


@pytest.mark.parametrize("wrong", [{"users": 0}, {"cardinality": 0}, {"user_fields": 600, "item_fields": 600}])
def test_an_impossible_catalogue_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        SyntheticCatalogue(**wrong)


def test_features_reach_the_store(redis_client: redis.Redis) -> None:
    written: list[int] = []
    assert SMALL.items > BATCH
    load_features(redis_client, KeyTemplate("i:{id}"), SMALL, "item", written.append)
    assert sum(written) == 700
    assert redis_client.dbsize() == 700
    raws = SMALL.raw("item", 0, 700)
    for number in (0, 1, BATCH - 1, BATCH, 699):
        assert redis_client.hgetall(f"i:{number}") == raws[number]


def test_a_store_that_refuses_is_told(redis_client: redis.Redis) -> None:
    redis_client.set("i:650", "another program's")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        load_features(redis_client, KeyTemplate("i:{id}"), SMALL, "item", lambda _: None)
    assert redis_client.ping()
