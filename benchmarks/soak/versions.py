"""Publishes distinct versions before anything is timed: during a run only the pointer moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from app.features.loading.synthetic import SyntheticCatalogue
from app.publishing.synthetic_model import build_model, golden_requests_of
from app.registry.artifact.export import write
from app.registry.store.model_store import ModelStore
from benchmarks.testbed import DIM, HIDDEN, Testbed


def store_of(testbed: Testbed, name: str) -> ModelStore:
    """Return the store of the testbed's model of this name."""
    return ModelStore(testbed.folder / "models", name)


def publish(
    testbed: Testbed,
    name: str,
    seeds: Sequence[int],
    *,
    catalogue: SyntheticCatalogue | None = None,
    hidden: tuple[int, ...] = HIDDEN,
    notify: Callable[[str], None] = lambda _: None,
) -> list[int]:
    """Publish a version for every seed, with other weights and the same features, and return their numbers."""
    catalogue = catalogue or testbed.catalogue
    store, numbers = store_of(testbed, name), []
    for count, seed in enumerate(seeds, 1):
        model = build_model(replace(catalogue, seed=seed), DIM, hidden)
        with store.staging() as staged:
            write(staged, model, catalogue.schema, name=name, golden=golden_requests_of(catalogue))
            numbers.append(store.publish(staged))
        if count % 50 == 0:
            notify(f"{count} of {len(seeds)} versions published")
    return numbers
