"""What every reader gives: some rows of a table, by column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from app.training.data.readers.bad_rows import BadRows


class Chunk(NamedTuple):
    """Some rows of a table by column. Text formats give text: a guessed number would turn `01234` into 1234."""

    frame: pl.DataFrame
    rows_N: npt.NDArray[np.int64]
    """Numbers of these rows in the file, from 1, the header not included."""
    fraction: float
    """How much of the file has been read, 0 to 1."""
    open_ended: bool = False
    """A column that is not here is null in these rows, as in JSON lines."""


Chunks = Callable[[BadRows], Iterator[Chunk]]
