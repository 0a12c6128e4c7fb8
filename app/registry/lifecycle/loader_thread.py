"""The thread on which a process reads the model store and loads versions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from app.errors import ArtifactError
from app.registry.artifact.artifact import Artifact
from app.registry.store.model_store import ModelStore
from app.runtime.thread_pacer import in_background

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class LoaderThread:
    """One thread of its own: loads never wait for other work, and every model comes from one malloc arena."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model-store")

    def run(self, function: Callable[[*Arguments], T], *args: *Arguments) -> asyncio.Future[T]:
        """Call a function on the thread, after those that were given to it before."""
        return asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def load(self, store: ModelStore, version: int, device: str) -> asyncio.Future[Artifact]:
        """Load a version, throttled beside requests. Raises ArtifactError, whatever goes wrong."""
        return self.run(_load, store, version, device)

    def stop(self) -> None:
        """Take no more work, without waiting for what is under way."""
        self._executor.shutdown(wait=False)


def _load(store: ModelStore, version: int, device: str) -> Artifact:
    try:
        with in_background():
            return store.load(version, device)
    except ArtifactError:
        raise
    except Exception as error:  # running out of memory or files is a reason to refuse as good as any other
        raise ArtifactError("load", f"cannot be loaded: {error!r}") from error
