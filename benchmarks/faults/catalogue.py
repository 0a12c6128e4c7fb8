"""All rows, in the order in which they are run: those that share a service follow one another."""

from __future__ import annotations

from benchmarks.faults import (
    connections,
    corpus,
    heads,
    heavy,
    leavers,
    overload,
    protocol,
    secrets,
    store_outage,
    updates,
    workers,
)
from benchmarks.faults.row import Row

ROWS: tuple[Row, ...] = (
    *heads.ROWS,
    *heavy.ROWS,
    *overload.ROWS,
    *protocol.ROWS,
    *leavers.ROWS,
    *corpus.ROWS,
    *connections.ROWS,
    *updates.ROWS,
    *store_outage.ROWS,
    *workers.ROWS,
    *secrets.ROWS,
)
