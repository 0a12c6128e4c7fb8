"""Distinct versions, published before anything is timed: during a run only the pointer moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from app.features.loading.synthetic import SyntheticCatalogue
from app.publishing.synthetic_model import build_model, golden_requests_of
from app.registry.artifact.export import write
from app.registry.store.model_store import ModelStore
from benchmarks.stage import DIM, HIDDEN, Stage


def store_of(stage: Stage, name: str) -> ModelStore:
    return ModelStore(stage.folder / "models", name)


def publish(
    stage: Stage,
    name: str,
    seeds: Sequence[int],
    *,
    catalogue: SyntheticCatalogue | None = None,
    hidden: tuple[int, ...] = HIDDEN,
    say: Callable[[str], None] = lambda _: None,
) -> list[int]:
    """Versions of one model with other weights for every seed; their numbers. The catalogue's features are the same."""
    catalogue = catalogue or stage.catalogue
    store, numbers = store_of(stage, name), []
    for count, seed in enumerate(seeds, 1):
        model = build_model(replace(catalogue, seed=seed), DIM, hidden)
        with store.staging() as staged:
            write(staged, model, catalogue.schema, name=name, golden=golden_requests_of(catalogue))
            numbers.append(store.publish(staged))
        if count % 50 == 0:
            say(f"{count} of {len(seeds)} versions published")
    return numbers
