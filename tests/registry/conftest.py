"""A lifecycle that follows the empty store, and a record of what it calls."""

from __future__ import annotations

import pytest

from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.store.model_store import ModelStore
from tests.registry.lifecycle.lifecycles import Recorder, make


@pytest.fixture
def seen() -> Recorder:
    return Recorder()


@pytest.fixture
def lifecycle(store: ModelStore, seen: Recorder) -> Lifecycle:
    return make(store, seen)
