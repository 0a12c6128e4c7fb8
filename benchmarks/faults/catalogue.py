"""All rows, in the order in which they are run: those that share a service follow one another."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.faults import (
    cancelled_reads,
    connections,
    corpus,
    failover,
    heads,
    heavy,
    leavers,
    live_tables,
    moved_slots,
    overload,
    programs,
    protocol,
    publishers,
    restarts,
    schema_cases,
    secrets,
    store_outage,
    store_refusals,
    store_values,
    updates,
    workers,
)
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row, Skipped


def _soak(_: FaultBed) -> Sequence[Check]:
    raise Skipped("ten minutes more: `make soak` runs it and writes its own page")


SOAK = Row(
    "soak",
    "soak: 10 minutes at 70 % with a swap each 20 s (`make soak HOURS=8` for the long one)",
    "memory, descriptors and threads flat after the first 2 minutes (within 2 %)",
    _soak,
)

ROWS: tuple[Row, ...] = (
    *heads.ROWS,
    *heavy.ROWS,
    *overload.ROWS,
    *protocol.ROWS,
    *leavers.ROWS,
    *corpus.ROWS,
    *schema_cases.ROWS,
    *connections.ROWS,
    *updates.ROWS,
    *store_outage.ROWS,
    *cancelled_reads.ROWS,
    *store_values.ROWS,
    *store_refusals.ROWS,
    *workers.ROWS,
    *restarts.ROWS,
    *failover.ROWS,
    *moved_slots.ROWS,
    *live_tables.ROWS,
    *programs.ROWS,
    *publishers.ROWS,
    SOAK,
    *secrets.ROWS,
)
