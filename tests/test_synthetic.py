"""The synthetic catalogue and model: the same everywhere for the same seed, spread out, known to the vocabulary."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import redis
import torch
from typer.testing import CliRunner
from xxhash import xxh3_64_intdigest

from app.cli import cli
from app.errors import ConfigError, StoreError
from app.features.encoder import Encoder
from app.features.fields import Side
from app.features.key_template import KeyTemplate
from app.registry.artifact.load import load
from app.registry.store.model_store import ModelStore
from app.synthetic import BATCH, Catalogue, build_model, hashed, load_features

SMALL = Catalogue(users=30, items=700, user_fields=3, item_fields=4, cardinality=50, seed=7)


def logits(catalogue: Catalogue, dim: int, hidden: tuple[int, ...], pairs: int = 4000) -> torch.Tensor:
    slots = []
    rng = np.random.default_rng(0)
    sides: tuple[Side, Side] = ("user", "item")
    for side in sides:
        raws = catalogue.raw(side, 0, min(catalogue.count(side), 500))
        encoded = Encoder(catalogue.schema, side).encode_many(raws, [None] * len(raws))
        chosen = rng.integers(0, len(raws), pairs)
        slots += [torch.from_numpy(encoded.keys[chosen]), torch.from_numpy(encoded.values[chosen])]
    with torch.inference_mode():
        found: torch.Tensor = build_model(catalogue, dim, hidden)(*slots)
        return found


def test_hashed_is_splitmix64() -> None:
    """Each place is one step of the published generator further: written out with plain integers."""
    mask = 2**64 - 1
    state = xxh3_64_intdigest(b"3 x")
    for found in hashed(3, "x", 0, 5).tolist():
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        assert found == z ^ (z >> 31)
        state = (state + 0x9E3779B97F4A7C15) & mask


def test_same_seed_same_features_and_weights() -> None:
    """Pinned, so that another release or machine that draws other numbers is found out."""
    model = build_model(SMALL, dim=4, hidden=(8, 4))
    digest = hashlib.sha256()
    for name, tensor in [*sorted(model.named_parameters()), ("vocabulary_V", model.vocabulary_V)]:
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    digest.update(
        SMALL.values("user", 0, 30).astype("<i8").tobytes() + SMALL.values("item", 0, 700).astype("<i8").tobytes()
    )
    assert digest.hexdigest()[:16] == "fe74ff869ad00658"


def test_other_seed_other_weights_and_features() -> None:
    other = Catalogue(users=30, items=700, user_fields=3, item_fields=4, cardinality=50, seed=8)
    assert not np.array_equal(SMALL.values("item", 0, 700), other.values("item", 0, 700))
    table = build_model(SMALL, 4, (8,)).table_RE
    assert not torch.equal(table, build_model(other, 4, (8,)).table_RE)


def test_a_slice_of_the_catalogue_is_that_slice() -> None:
    assert np.array_equal(SMALL.values("item", 123, 456), SMALL.values("item", 0, 700)[123:456])


def test_values_are_uniform() -> None:
    counts = np.bincount(Catalogue(cardinality=10).values("item", 0, 20_000).ravel(), minlength=10)
    assert counts.sum() == 400_000
    assert np.abs(counts / 40_000 - 1).max() < 0.03


@pytest.mark.parametrize(("dim", "hidden"), [(16, (256, 128, 64)), (8, (64,)), (16, (400, 400, 400))])
def test_probabilities_spread(dim: int, hidden: tuple[int, ...]) -> None:
    probability = torch.sigmoid(logits(Catalogue(cardinality=100), dim, hidden))
    low, high = torch.quantile(probability, torch.tensor([0.02, 0.98])).tolist()
    assert low < 0.06
    assert high > 0.94
    assert 0.35 < float(probability.mean()) < 0.65


def test_the_vocabulary_knows_every_value() -> None:
    model = build_model(SMALL, 4, (8,))
    raws = SMALL.raw("item", 0, 700)
    slots = Encoder(SMALL.schema, "item").encode_many(raws, [None] * 700)
    rows, _ = model.item.expand(model.vocabulary_V, torch.from_numpy(slots.keys), torch.from_numpy(slots.values))
    assert int(rows.min()) >= model.item.first_vocabulary_row
    assert len(model.vocabulary_V) == 50 * 7


@pytest.mark.parametrize("wrong", [{"users": 0}, {"cardinality": 0}, {"user_fields": 600, "item_fields": 600}])
def test_an_impossible_catalogue_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Catalogue(**wrong)


def test_features_reach_the_store(redis_client: redis.Redis) -> None:
    told: list[int] = []
    assert SMALL.items > BATCH
    load_features(redis_client, KeyTemplate("i:{id}"), SMALL, "item", told.append)
    assert sum(told) == 700
    assert redis_client.dbsize() == 700
    raws = SMALL.raw("item", 0, 700)
    for number in (0, 1, BATCH - 1, BATCH, 699):
        assert redis_client.hgetall(f"i:{number}") == raws[number]


def test_a_store_that_refuses_is_told(redis_client: redis.Redis) -> None:
    redis_client.set("i:650", "another program's")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        load_features(redis_client, KeyTemplate("i:{id}"), SMALL, "item", lambda _: None)
    assert redis_client.ping()


def test_the_command_publishes_and_loads(
    tmp_path: Path, redis_client: redis.Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTR_MODEL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CTR_REDIS_URL", valkey_url)
    size = "--users 5 --items 9 --user-fields 2 --item-fields 3 --cardinality 20 --dim 4 --hidden 8,4"
    result = CliRunner().invoke(cli, ["synth", *size.split(), "--publish", "--load", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["version"], told["users"], told["items"], told["keys"]) == (1, 5, 9, 100)
    store = ModelStore(tmp_path / "store", "deepfm")
    assert store.pointer().stable == 1
    version = load(Path(told["version_dir"]))  # replays its golden requests
    assert [field.name for field in version.schema.fields] == ["user_f0", "user_f1", "item_f0", "item_f1", "item_f2"]
    assert redis_client.dbsize() == 14
    assert redis_client.hgetall("ctr:v1:user:4").keys() == {"user_f0", "user_f1"}


def test_the_command_without_publish_keeps_the_version_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    size = "--users 5 --items 9 --user-fields 2 --item-fields 3 --cardinality 20 --dim 4 --hidden 8"
    result = CliRunner().invoke(cli, ["synth", *size.split(), "--json"])
    assert result.exit_code == 0, result.output
    assert load(Path(json.loads(result.stdout)["version_dir"])).version == 0
    assert not (tmp_path / "model_store").exists()
