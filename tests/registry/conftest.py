"""A lifecycle beside the store."""

from __future__ import annotations

import pytest

from app.registry.lifecycle import Lifecycle
from app.registry.model_store import ModelStore
from tests.registry.lifecycles import Recorder, make


@pytest.fixture
def seen() -> Recorder:
    return Recorder()


@pytest.fixture
def lifecycle(store: ModelStore, seen: Recorder) -> Lifecycle:
    return make(store, seen)
