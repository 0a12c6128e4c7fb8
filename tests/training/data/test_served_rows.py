"""Rows that a service recorded train a model: what it reads is what was scored, and its labels are the clicks."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.commands.retrain import _read as read_rows
from app.errors import ConfigError, DataError
from app.events.event_queue import EventQueue
from app.events.event_writer import EventWriter
from app.events.item_references import ItemReferences
from app.events.joining.join import join
from app.events.logged_schema import logged_schema, schema_file
from app.events.records import Feedback
from app.features.encoder import Encoder
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.features.schema import parse_schema
from app.ranking.impressions import ImpressionLog
from app.ranking.ranker import Ranker
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.registry.store.model_store import ModelStore
from app.training.data.catalogue import open_dataset
from app.training.data.served_rows import ServedDataset
from app.training.preprocessing.encode import encode
from tests.command_line import command_line
from tests.factories import MODEL_NAME, SCHEMA_YAML, publish_tiny, raw_item, raw_items, raw_user, raw_users

USERS, ITEMS, TOP = 120, 30, 20
WINDOW, EVERY = timedelta(seconds=1), timedelta(minutes=1)


@dataclass
class Served:
    """What a service recorded, joined, and what it knew."""

    joined: Path
    artifact: Artifact
    clicked: set[tuple[str, str]]
    """Users and items."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """An hour of a service, in which users click even items, and others seldom."""
    folder = tmp_path_factory.mktemp("served")
    store = ModelStore(folder / "store", MODEL_NAME)
    artifact = load(store.path(publish_tiny(store)))
    clicked: set[tuple[str, str]] = set()

    async def serve() -> None:
        features, cache = MemoryFeatureStore(raw_users(USERS), raw_items()), ItemCache(capacity=256)
        queue = EventQueue(10**6)
        writer = EventWriter(queue, folder / "events")
        writer.start()
        await features.start(cache)
        await cache.attach(artifact)
        live = LiveSnapshot(stable=artifact)
        references = ItemReferences(cache, queue)
        ranker = Ranker(
            features,
            cache,
            lambda: live,
            store_timeout_s=1.0,
            references=references,
            references_top=TOP,
        )
        writer.put_file(schema_file(artifact.schema_hash), logged_schema(artifact.manifest))
        log, dice = ImpressionLog(queue, references, TOP), np.random.default_rng(0)
        cache.before_change = log.record_noted
        for user in map(str, range(USERS)):
            request = RankRequest(user, [str(number) for number in range(ITEMS)])
            ranking = await ranker.rank(request, time.perf_counter() + 10)
            log.on_ranked(request, ranking)
            assert ranking.impression_id
            for item_id in ranking.item_ids[:TOP]:
                if dice.random() < (0.5 if int(item_id) % 2 == 0 else 0.05):
                    clicked.add((user, item_id))
                    at_us = time.time_ns() // 1000
                    queue.put(Feedback(ranking.impression_id, item_id, "click", at_us, at_us, None, None))
        log.record_noted()
        writer.stop()

    asyncio.run(serve())
    join(folder / "events", folder / "joined", window=WINDOW, every=EVERY, until=datetime.now(UTC) + timedelta(hours=1))
    return Served(folder / "joined", artifact, clicked)


def test_rows_are_the_slots_that_were_scored_and_the_clicks(served: Served, tmp_path: Path) -> None:
    data = open_dataset("served", served.joined, cache=tmp_path)
    assert isinstance(data, ServedDataset)
    assert len(data) == USERS * TOP
    assert data.labels_N.sum() == len(served.clicked)
    assert data.schema.hash == served.artifact.schema_hash
    assert data.timestamps_N is not None
    assert (np.diff(data.timestamps_N) >= 0).all()
    rows = encode(data)
    users = {str(n): served.artifact.user_encoder.encode(raw_user(n), str(n)) for n in range(USERS)}
    items = {str(n): served.artifact.item_encoder.encode(raw_item(n), str(n)) for n in range(ITEMS)}
    by_keys = {(slots.keys.tobytes(), slots.values.tobytes()): name for name, slots in users.items()}
    by_item_keys = {(slots.keys.tobytes(), slots.values.tobytes()): name for name, slots in items.items()}
    clicked = set()
    for row in range(len(data)):
        user = by_keys[(rows.user.keys[row].tobytes(), rows.user.values[row].tobytes())]
        item = by_item_keys[(rows.item.keys[row].tobytes(), rows.item.values[row].tobytes())]
        if rows.labels_N[row]:
            clicked.add((user, item))
    assert clicked == served.clicked


def test_a_model_trained_on_them_is_written_and_ranks_what_is_clicked_first(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ctr = command_line(monkeypatch, capsys)
    status, out, err = ctr(
        *("train", "--dataset", "served", "--data", str(served.joined), "--model", "fm", "--effort", "quick"),
        *("--epochs", "3", "--no-refit", "--split", "random", "--json"),
    )
    assert status == 0, err
    document = json.loads(out)
    assert document["metrics"]["test"]["auc"] > 0.7
    trained = load(Path(document["version_dir"]))
    assert len(trained.manifest.golden) > 0
    assert trained.manifest.golden[0].items[0], "with the features of a real item"


def test_target_statistics_of_them_are_refused_for_what_is_so(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = command_line(monkeypatch, capsys)(
        *("train", "--dataset", "served", "--data", str(served.joined), "--effort", "quick"),
        *("--split", "random", "--target-statistics", "fields"),
    )
    assert status == 1
    assert "mapped from files, as all that a service recorded" in err
    assert "larger than memory" not in err


def test_what_cannot_be_done_with_them_is_said(served: Served, tmp_path: Path) -> None:
    data = open_dataset("served", served.joined, cache=tmp_path)
    with pytest.raises(ConfigError, match="feature store"):
        data.states("user")
    for path, said in ((tmp_path, "ctr join"), (None, "--data")):
        with pytest.raises((ConfigError, DataError), match=said):
            open_dataset("served", path, cache=tmp_path)
    with pytest.raises(ConfigError, match="--timestamp"):
        open_dataset("served", served.joined, timestamp="at", cache=tmp_path)
    other = tmp_path / "features.yaml"
    other.write_text("fields:\n  - {name: user_id, entity: user, type: categorical, id: true}\n")
    with pytest.raises(ConfigError, match=r"features.yaml: is not the schema .*\(new: age, .*leave --features out"):
        open_dataset("served", served.joined, features=other, cache=tmp_path)


def test_a_retraining_of_rows_by_another_schema_says_what_changed_and_names_no_option_that_nobody_gave(
    served: Served, tmp_path: Path
) -> None:
    """The live version is of a schema that has a field more, and answered nothing yet."""
    changed = SCHEMA_YAML.replace("source: age}", "source: age}\n  - {name: city, entity: user, type: categorical}")
    schema = parse_schema(changed).model_dump(mode="json")
    live = Mock(version=1, manifest=msgspec.structs.replace(served.artifact.manifest, feature_schema=schema))
    with pytest.raises(ConfigError) as refused:
        read_rows(live, "served", served.joined, None, cache=tmp_path)
    assert "were served by another schema than that of version 1 (gone: city): run `ctr join`" in str(refused.value)
    assert "--features" not in str(refused.value)
    assert "features.yaml" not in str(refused.value)


def test_each_row_has_the_place_that_its_item_had(served: Served, tmp_path: Path) -> None:
    """The rows were served before the schema had a field of the position; ranking holds it at 1."""
    place = "  - {name: place, entity: position, type: categorical, serve_as: 1}\n"
    depth = "  - {name: depth, source: place, entity: position, type: numeric, serve_as: 1}\n"
    head, first, rest = SCHEMA_YAML.partition("  - {name: age,")
    features = tmp_path / "features.yaml"
    features.write_text(head + place + first + rest + depth)
    data = open_dataset("served", served.joined, features=features, cache=tmp_path)
    assert (len(data), data.notes) == (USERS * TOP, ())
    plain, rows = encode(open_dataset("served", served.joined, cache=tmp_path)), encode(data)
    layout, before = data.schema.layout("user"), served.artifact.user_encoder.layout
    for name, columns in before.slots.items():
        np.testing.assert_array_equal(rows.user.keys[:, layout.slots[name]], plain.user.keys[:, columns])
        np.testing.assert_array_equal(rows.user.values[:, layout.slots[name]], plain.user.values[:, columns])
    np.testing.assert_array_equal(rows.item.keys, plain.item.keys)
    places = rows.user.values[:, layout.slots["depth"]].ravel().tolist()
    assert places == list(range(1, TOP + 1)) * USERS, "in the order of the answers"
    encoder = Encoder(data.schema, "user", logged=True)
    expected = {n: encoder.encode({"place": n}).keys[layout.slots["place"]].item() for n in range(1, TOP + 1)}
    assert rows.user.keys[:, layout.slots["place"]].ravel().tolist() == [expected[int(n)] for n in places]
    features.write_text(SCHEMA_YAML.replace("buckets: 4", "buckets: 5") + depth)
    with pytest.raises(ConfigError, match="fields of the position aside"):
        open_dataset("served", served.joined, features=features, cache=tmp_path)
