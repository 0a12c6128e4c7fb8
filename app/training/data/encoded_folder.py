"""An encoded folder holds the slots, labels, times and weights of a file as flat arrays, which are mapped.

user_keys.bin int64 [N, S_u]     item_keys.bin int64 [N, S_i]     labels.bin float32 [N]
user_values.bin float32 [N, S_u] item_values.bin float32 [N, S_i] times.bin int64 [N], if any
weights.bin float32 [N, C], if any
user.parquet, item.parquet       some rows as they were read, for examples
meta.json                        shapes, what was left out, and which file this is
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from app.features.fields import SIDES, Side
from app.features.slots import Slots
from app.training.data.readers.bad_rows import SkippedRows

FORMAT = 4
META_FILE = "meta.json"


class EncodedFolderMeta(msgspec.Struct, frozen=True):
    """Describes the folder; it is the content of `meta.json`."""

    format: int
    path: str
    size: int
    modified_ns: int
    rows: int
    slots: dict[str, int]
    timed: bool
    weights: int
    """Counts what is kept of each row's weight: C."""
    seen: int
    """Counts the rows of the file, good or bad."""
    skipped: dict[str, Any]
    unreadable: dict[str, dict[str, Any]]
    seconds: float


def read_meta(folder: Path) -> EncodedFolderMeta:
    """Read `meta.json`. Raises OSError, msgspec.DecodeError or msgspec.ValidationError if it cannot be read."""
    return msgspec.json.decode((folder / META_FILE).read_bytes(), type=EncodedFolderMeta)


class EncodedFolder:
    """Opens a complete folder, read only. Arrays are mapped: opening is cheap, and the system may take their memory."""

    def __init__(self, folder: Path) -> None:
        """Open a folder. Raises OSError, msgspec.DecodeError or ValueError if it is not complete."""
        self.folder = folder
        self.meta = read_meta(folder)
        if self.meta.format != FORMAT:
            raise ValueError("another format")
        self.labels_N = self._map("labels", np.float32)
        self.times_N = self._map("times", np.int64) if self.meta.timed else None
        self.weights_NC = self._map("weights", np.float32, self.meta.weights) if self.meta.weights else None
        self._slots = {side: self._map_side(side) for side in SIDES}

    def slots(self, side: Side) -> Slots:
        return self._slots[side]

    def examples(self, side: Side) -> pl.DataFrame:
        """Read the example rows of one side, as they were in the file."""
        return pl.read_parquet(self.folder / f"{side}.parquet")

    @property
    def skipped(self) -> SkippedRows:
        return msgspec.convert(self.meta.skipped, SkippedRows)

    @property
    def unreadable(self) -> dict[str, SkippedRows]:
        """Return the rows whose value fits no slot, by field name."""
        return msgspec.convert(self.meta.unreadable, dict[str, SkippedRows])

    def _map_side(self, side: Side) -> Slots:
        width = self.meta.slots[side]
        return Slots(self._map(f"{side}_keys", np.int64, width), self._map(f"{side}_values", np.float32, width))

    def _map(self, name: str, dtype: type[np.generic], width: int | None = None) -> npt.NDArray[Any]:
        shape = (self.meta.rows,) if width is None else (self.meta.rows, width)
        if 0 in shape:
            return np.empty(shape, dtype)
        path = self.folder / f"{name}.bin"
        if path.stat().st_size != int(np.prod(shape)) * np.dtype(dtype).itemsize:
            raise ValueError(f"{path} has another size")
        return np.memmap(path, dtype, "r", shape=shape)
