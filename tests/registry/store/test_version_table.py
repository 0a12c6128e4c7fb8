"""Rows of the version table, whole or damaged."""

from __future__ import annotations

from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import Pointer
from app.registry.store.version_table import read_row, read_serving
from tests.factories import publish_tiny


def test_a_row_has_labels_and_manifest_or_what_is_wrong(store: ModelStore) -> None:
    publish_tiny(store)
    publish_tiny(store, 1, labels=("canary", "shadow"))
    labels = store.pointer().versions_by_label()
    first, second = (read_row(store, version, labels) for version in (1, 2))
    assert (first.labels, second.labels) == (["stable"], ["canary", "shadow"])
    assert first.manifest == store.manifest(1)
    assert (first.problem, first.gate) == (None, None)
    (store.path(2) / "manifest.json").write_bytes(b"{")
    damaged = read_row(store, 2, labels)
    assert damaged.manifest is None
    assert damaged.problem is not None
    assert damaged.problem.startswith("manifest.json cannot be read")


def test_a_damaged_pointer_is_an_empty_one_and_a_problem(store: ModelStore) -> None:
    assert read_serving(store) == (Pointer(), None)
    publish_tiny(store)
    (store.folder / "serving.json").write_bytes(b"{")
    pointer, problem = read_serving(store)
    assert pointer == Pointer()
    assert problem is not None
    assert problem.startswith("serving.json does not fit")
