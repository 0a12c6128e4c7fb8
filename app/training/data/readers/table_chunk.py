"""Every reader yields chunks: some consecutive rows of a table, by column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from app.training.data.readers.bad_rows import BadRows


class TableChunk(NamedTuple):
    """Holds some rows of a table by column. Text formats yield text: a guessed number would turn `01234` into 1234."""

    frame: pl.DataFrame
    rows_N: npt.NDArray[np.int64]
    """Numbers these rows as in the file, from 1, the header not included."""
    fraction: float
    """Tells the share of the file that has been read, 0 to 1."""
    open_ended: bool = False
    """Tells that a column that is not in the frame is null in these rows, as in JSON lines."""
    file: Path | None = None
    """Names the file of these rows where there are several."""


ChunkReader = Callable[[BadRows], Iterator[TableChunk]]
"""Yields the chunks of all rows from the beginning and records the rows that cannot be used."""
