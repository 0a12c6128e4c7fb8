"""Provide the folder into which a training writes its version: in the model store, or a run folder of its own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.errors import ConfigError
from app.publishing.publish import Gate, publish_staged
from app.registry.store.model_store import ModelStore

MAX_RUNS_A_SECOND = 100


@dataclass
class Destination:
    """Names the folder that a version is written into and, once it is published, its folder and number in the store."""

    folder: Path
    version: int = 0
    is_withheld: bool = False

    def withhold(self, root: Path, model: str) -> None:
        """Move the version from the model store to a new run folder: it is kept and does not go live.

        Raises:
            ConfigError: the folder cannot be made.
        """
        folder = _make_run_folder(root, model)
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        self.folder, self.is_withheld = folder, True


@contextlib.contextmanager
def publish_on_success(store: ModelStore, gate: Gate) -> Iterator[Destination]:
    """Yield a staging folder whose version becomes the store's stable one if the block succeeds and withholds it not.

    Args:
        gate: called with the version's number before it goes live; what it raises leaves the version without a label.

    Raises:
        ArtifactError: the store cannot be written to.
    """
    with store.staging() as staged:
        destination = Destination(staged)
        yield destination
        if destination.is_withheld:
            return

        def gate_numbered(version: int) -> None:
            destination.version = version
            gate(version)

        publish_staged(store, staged, gate_numbered)
    destination.folder = store.path(destination.version)


@contextlib.contextmanager
def new_run_folder(root: Path, model: str) -> Iterator[Destination]:
    """Yield a new folder `<model>-<timestamp>` for a version that is not published; it is removed if the block fails.

    Raises:
        ConfigError: the folder cannot be made.
    """
    folder = _make_run_folder(root, model)
    try:
        yield Destination(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _make_run_folder(root: Path, model: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for attempt in range(MAX_RUNS_A_SECOND):
        folder = root / (f"{model}-{stamp}" + (f"-{attempt}" if attempt else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from error
        return folder
    raise ConfigError(f"{root}: has {MAX_RUNS_A_SECOND} runs of this second")
