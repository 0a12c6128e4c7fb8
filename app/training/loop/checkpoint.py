"""Keep a training run's state on disk, so that a killed run can be resumed and ends with the same metrics.

The state is one file that is replaced as a whole: a new checkpoint is written to a temporary file, flushed to disk and
renamed, so a kill at any moment leaves the last whole checkpoint. Reading it runs no code that the file may hold.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pickle
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.errors import DataError

FORMAT = 2
"""Raised where a state of before would go on as another run."""


@dataclass
class Checkpoint:
    """Writes a run's state to a file from time to time, and reads it back to resume the run."""

    path: Path
    every_seconds: float = 60.0
    """Time between two checkpoints within an epoch; each epoch ends with one as well. It writes 12 bytes per number of
    the tables, so raise it for a very large table."""
    resume: bool = False
    """Whether to resume from the file if it exists; otherwise training starts anew."""
    on_failure: Callable[[str], None] | None = None
    """Called with the reason when the file cannot be written for the first time; the run then goes on without."""
    _is_given_up: bool = field(default=False, repr=False)
    _last_written: float = field(default_factory=time.monotonic, repr=False)
    _created_folders: list[Path] = field(default_factory=list, repr=False)

    def sibling(self, name: str) -> Checkpoint:
        """Return a checkpoint for another fit of the same run, in a file beside this one."""
        path = self.path.with_stem(f"{self.path.stem}-{re.sub('[^a-z0-9]+', '-', name)}")
        return Checkpoint(
            path,
            self.every_seconds,
            self.resume,
            self.on_failure,
            self._is_given_up,
            _created_folders=self._created_folders,
        )

    @property
    def due(self) -> bool:
        """Tell whether `every_seconds` have passed since the last checkpoint."""
        return not self._is_given_up and time.monotonic() - self._last_written >= self.every_seconds

    def try_write(self, run: dict[str, Any], state: dict[str, Any]) -> None:
        """Replace the file as `write` does; a run whose state cannot be kept goes on without, and says so once."""
        if self._is_given_up:
            return
        try:
            self.write(run, state)
        except DataError as error:
            self._is_given_up = True
            if self.on_failure:
                self.on_failure(f"{error}; training goes on, and cannot be resumed")

    @property
    def exists(self) -> bool:
        """Tell whether this run, or another fit of it, has written a state to resume from."""
        return any(self.path.parent.glob(f"{glob.escape(self.path.stem)}*{self.path.suffix}"))

    def write(self, run: dict[str, Any], state: dict[str, Any]) -> None:
        """Replace the file.

        Args:
            run: what must be the same in a run that resumes from it: options, data.
            state: tensors, numbers, text, and dicts and lists of them.

        Raises:
            DataError: the file cannot be written.
        """
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self._created_folders += [folder for folder in self.path.parents if not folder.exists()]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save({"format": FORMAT, "run": run, "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise DataError(f"{self.path}: the checkpoint cannot be written: {error.strerror or error}") from None
        self._last_written = time.monotonic()

    def read(self, run: dict[str, Any]) -> dict[str, Any] | None:
        """Return the saved state, or None if there is no file or `resume` is False.

        Raises:
            DataError: the file is damaged, or of a run with other options or data.
        """
        if not self.resume or not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            saved_run, state, version = content["run"], content["state"], content["format"]
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError):
            raise DataError(f"{self.path}: not a whole checkpoint; delete it or run without --resume") from None
        different = sorted(key for key in {*run, *saved_run} if run.get(key) != saved_run.get(key))
        if version != FORMAT or different:
            raise DataError(
                f"{self.path}: the checkpoint is of another run ({', '.join(different) or 'format'} differ); "
                "delete it or run without --resume"
            )
        return dict(state)

    def delete(self) -> None:
        """Delete the file, and the folders that were made for it if nothing else is in them."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            for folder in self._created_folders:
                folder.rmdir()
