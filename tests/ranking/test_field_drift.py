"""A field that goes missing or moves is named within 10,000 answers, and one that stays is not."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.events.impression_id import ImpressionIds
from app.events.records import ImpressionBlock
from app.features.encoder import Encoder
from app.features.field_histogram import histogram_of
from app.features.fields import SIDES
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.features.schema import parse_schema
from app.features.slots import Keys, Slots, Values
from app.observability.metrics import Metrics
from app.ranking.field_drift import ITEMS_EVERY, WINDOW, FieldDrift
from app.ranking.metric_exporters import FieldDriftExporter
from app.ranking.request import RankRequest
from app.registry.artifact.load import load
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.registry.store.model_store import ModelStore
from tests.events.records import block, blocks, impression
from tests.factories import (
    ITEMS,
    MODEL_NAME,
    USERS,
    files_left,
    publish_files,
    raw_item,
    raw_user,
    small_schema,
    write_tiny,
)
from tests.ranking.test_impressions import Logged

FIELDS = 30
ANY_IMPRESSION = impression(1)
ALERT = 0.15
"""As deploy/prometheus/rules.yaml has it."""
SCHEMA = parse_schema(
    "version: 1\nfields:\n"
    + "".join(f"  - {{name: c{n}, entity: user, type: categorical}}\n" for n in range(FIELDS))
    + "".join(f"  - {{name: n{n}, entity: item, type: numeric}}\n" for n in range(FIELDS))
)


class World:
    """Values of users and items as they are, some of them changed."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._probabilities = [rng.dirichlet(np.full(60, 0.3)) for _ in range(FIELDS)]
        self.blended = 0.0
        """The share of users whose category of field c7 is drawn from all alike."""
        self.shifted = 0.0
        """How far the numbers of n5 are moved, in deviations."""
        self.lost = 0.0
        """The share of items that lack n3."""

    def users(self, count: int) -> Slots:
        keys = np.stack([self._rng.choice(60, count, p=p) + 100 for p in self._probabilities], axis=1)
        blend = self._rng.random(count) < self.blended
        keys[blend, 7] = self._rng.integers(100, 160, int(blend.sum()))
        return Slots(keys.astype(np.int64), np.ones(keys.shape, np.float32))

    def items(self, count: int) -> Slots:
        values = self._rng.normal(size=(count, FIELDS)).astype(np.float32)
        values[:, 5] += self.shifted
        values[self._rng.random(count) < self.lost, 3] = np.nan
        return Slots(np.ones(values.shape, np.int64), values)


class Traffic:
    """A version that was trained on the world, and answers."""

    def __init__(self, seed: int) -> None:
        self.world = World(np.random.default_rng(seed))
        trained = {"user": self.world.users(50_000), "item": self.world.items(50_000)}
        histograms = {
            field.name: histogram_of(field, place, trained[side])
            for side in ("user", "item")
            for field, place in SCHEMA.layout(side)  # type: ignore[arg-type]
        }
        self.version = self.make_version(1, histograms)
        self.live = LiveSnapshot(stable=self.version)
        self.drift = FieldDrift(lambda: self.live, self, top=50)
        self._ids = ImpressionIds()

    @staticmethod
    def make_version(version: int, histograms: dict[str, Any]) -> Any:
        manifest = SimpleNamespace(histograms=histograms)
        return SimpleNamespace(version=version, manifest=manifest, manifest_sha256=str(version), schema=SCHEMA)

    def slots(self, model: Any, rows: Any) -> Slots:
        return self.world.items(len(rows))

    def answer(self, count: int, at_once: int = 250) -> None:
        for _ in range(count // at_once):
            users = self.world.users(at_once)
            records = []
            for keys, values in zip(*users, strict=True):
                ranking: Any = SimpleNamespace(
                    label="stable",
                    artifact=self.version,
                    order=np.arange(100),
                    scored=SimpleNamespace(row_N=np.arange(100)),
                )
                self.drift.on_ranked(SimpleNamespace(model=None), ranking)  # type: ignore[arg-type]
                records.append(self._record(keys, values))
            self.drift.add(records)

    def _record(self, keys: Keys, values: Values, label: str = "stable", version: int = 1) -> ImpressionBlock:
        name = self._ids.next(1, version, label)
        return block(ANY_IMPRESSION._replace(impression_id=name, user_keys=keys, user_values=values, label=label))

    def named(self) -> set[str]:
        return {name for name, state in self.drift.states().items() if state.psi > ALERT}


def test_fields_that_stay_are_not_named() -> None:
    """Sixty fields for ten windows, 50,000 answers (seed 61)."""
    traffic = Traffic(61)
    for _ in range(10):
        traffic.answer(WINDOW)
        assert len(traffic.drift.states()) == 2 * FIELDS
        assert traffic.named() == set()


@pytest.mark.parametrize("answers_before", [1000, 4750])
def test_what_goes_missing_or_moves_is_named_within_ten_thousand(answers_before: int) -> None:
    """By 0.2 of the index each, from anywhere within a window on (seed 62)."""
    traffic = Traffic(62)
    traffic.answer(2 * WINDOW + answers_before)
    assert traffic.named() == set()
    traffic.world.blended, traffic.world.shifted, traffic.world.lost = 0.24, 0.45, 0.05
    traffic.answer(10_000)
    states = traffic.drift.states()
    assert traffic.named() == {"c7", "n5", "n3"}
    assert states["c7"].psi == pytest.approx(0.2, abs=0.08)
    assert states["n5"].psi == pytest.approx(0.2, abs=0.08)
    assert states["n3"].missing == pytest.approx(0.05, abs=0.025)


def test_answers_of_others_and_versions_without_histograms_are_left_out() -> None:
    traffic = Traffic(63)
    traffic.answer(WINDOW - 250)
    stranger = Slots(np.zeros(FIELDS, np.int64), np.ones(FIELDS, np.float32))
    traffic.drift.add([traffic._record(*stranger, label="canary"), traffic._record(*stranger, version=9)] * 3000)
    traffic.answer(250)
    assert len(traffic.drift.states()) == 2 * FIELDS
    assert traffic.named() == set()
    traffic.live = LiveSnapshot(stable=Traffic.make_version(2, {}))
    assert traffic.drift.states() == {}
    traffic.answer(WINDOW)
    assert traffic.drift.states() == {}
    traffic.live = LiveSnapshot()
    traffic.answer(250)
    assert traffic.drift.states() == {}


def test_few_values_say_nothing_yet() -> None:
    """Items that are not in the cache are not looked at; of the few that are, chance would say anything."""
    traffic = Traffic(64)
    traffic.slots = lambda model, rows: traffic.world.items(1)  # type: ignore[method-assign]
    traffic.answer(WINDOW)
    assert len(traffic.drift.states()) == FIELDS, "the users' fields"
    traffic.answer(ITEMS_EVERY * 1000 // WINDOW * WINDOW)
    assert len(traffic.drift.states()) == 2 * FIELDS
    assert traffic.named() == set()


def test_states_are_exported_and_gone_with_the_version() -> None:
    traffic, metrics = Traffic(65), Metrics()
    FieldDriftExporter(traffic.drift, metrics)
    assert "ctr_field_psi{" not in metrics.render()[0].decode()
    traffic.world.lost = 1.0
    traffic.answer(2 * WINDOW)
    text = metrics.render()[0].decode()
    assert 'ctr_field_missing_ratio{field="n3"} 1.0' in text
    assert 'ctr_field_missing_ratio{field="c1"} 0.0' in text
    traffic.live = LiveSnapshot()
    assert 'ctr_field_psi{field="n3"} NaN' in metrics.render()[0].decode()


async def test_what_a_real_ranker_scored_is_compared_with_what_its_version_was_trained_on(
    tmp_path: Path, features: MemoryFeatureStore, cache: ItemCache
) -> None:
    """Users whose ages are no longer stored, and items as they were; the catalogue is asked for evenly."""
    schema, rng = small_schema(), np.random.default_rng(66)
    rows = {
        "user": Encoder(schema, "user").encode_many(
            [raw_user(n) | {"hour": 12} for n in range(USERS)], [str(n) for n in range(USERS)]
        ),
        "item": Encoder(schema, "item").encode_many(
            [raw_item(n) for n in range(ITEMS)], [str(n) for n in range(ITEMS)]
        ),
    }
    histograms = {
        field.name: histogram_of(field, place, rows[side]) for side in SIDES for field, place in schema.layout(side)
    }
    store = ModelStore(tmp_path, MODEL_NAME)
    number = publish_files(store, files_left(lambda folder: write_tiny(folder, histograms=histograms)))
    artifact = load(store.path(number))
    assert artifact.manifest.histograms == histograms
    live = [LiveSnapshot(stable=artifact)]
    await features.start(cache)
    await cache.attach(artifact)
    logged = Logged(features, cache, live, batched=False)
    drift = FieldDrift(lambda: live[0], cache, top=ITEMS, window=200)
    features.users = {user: {k: v for k, v in raw.items() if k != "age"} for user, raw in features.users.items()}
    for _ in range(ITEMS_EVERY * 130):
        request = RankRequest(
            str(rng.integers(USERS)), [str(n) for n in range(ITEMS)], context={"hour": 12, "session_length": 3.0}
        )
        ranking = await logged.ranker.rank(request, time.perf_counter() + 10)
        logged.log.on_ranked(request, ranking)
        drift.on_ranked(request, ranking)
        if not ranking.missing_items:
            drift.add(blocks(logged.taken()[0].values()))
    states = drift.states()
    assert states.keys() == histograms.keys()
    assert {name for name, state in states.items() if state.psi > ALERT} == {"age", "age_group", "session_length"}
    assert states["age"].missing == 1.0
