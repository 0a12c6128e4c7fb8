"""A run's state on disk, so that a killed run goes on where it was and ends with the same metrics.

One file, replaced as a whole: what is written aside is flushed to disk and then takes the file's name, so that a kill
at any moment leaves the last whole checkpoint. It is read without running any code that the file may hold.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.errors import DataError

FORMAT = 1


@dataclass
class Checkpoint:
    path: Path
    every_seconds: float = 60.0
    """Between two checkpoints within an epoch; the end of each epoch is written too. Writing takes as long as the disk
    takes for 12 bytes per number of the tables, so a very large table wants longer."""
    resume: bool = False
    """Go on from the file where there is one; else begin anew."""
    _written: float = field(default_factory=time.monotonic, repr=False)
    _made: list[Path] = field(default_factory=list, repr=False)

    @property
    def due(self) -> bool:
        return time.monotonic() - self._written >= self.every_seconds

    def write(self, run: dict[str, Any], state: dict[str, Any]) -> None:
        """
        Args:
            run: what must be the same in a run that goes on from it: options, data.
            state: tensors, numbers, text, and dicts and lists of them.

        Raises:
            DataError: it cannot be written.
        """
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self._made = [*self._made, *(folder for folder in self.path.parents if not folder.exists())]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                torch.save({"format": FORMAT, "run": run, "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise DataError(f"{self.path}: the checkpoint cannot be written: {error.strerror or error}") from None
        self._written = time.monotonic()

    def read(self, run: dict[str, Any]) -> dict[str, Any] | None:
        """The state, or None where there is no file or none is asked for.

        Raises:
            DataError: it is damaged, or of a run with other options or data.
        """
        if not self.resume or not self.path.exists():
            return None
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            kept, state, version = found["run"], found["state"], found["format"]
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError):
            raise DataError(f"{self.path}: not a whole checkpoint; delete it or run without --resume") from None
        different = sorted(key for key in {*run, *kept} if run.get(key) != kept.get(key))
        if version != FORMAT or different:
            raise DataError(
                f"{self.path}: the checkpoint is of another run ({', '.join(different) or 'format'} differ); "
                "delete it or run without --resume"
            )
        return dict(state)

    def done(self) -> None:
        """The run has ended: there is nothing to go on with. Folders that it made go where nothing else is in them."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            for folder in self._made:
                folder.rmdir()
