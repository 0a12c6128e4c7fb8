"""Count how often each key occurs, exactly: what does not fit in memory waits in sorted runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.features.slots import Keys
from app.training.preprocessing.gather import Gather, single_shard
from app.training.scratch_array import scratch_array

MAX_HELD = 8 << 20
"""This many keys are held before a run is put aside: 128 MiB with counts, twice that while they are merged."""

Counts = npt.NDArray[np.int64]

_EMPTY_RUN = (np.empty(0, np.int64), np.empty(0, np.int64))


class KeyCounts:
    """Counts keys in bounded memory."""

    def __init__(self, scratch_folder: Path | None = None, max_held: int = MAX_HELD) -> None:
        """Begin with nothing counted.

        Args:
            scratch_folder: the folder where runs are put aside, in files without a name; None keeps them in memory.
            max_held: the number of distinct keys that are held in memory.
        """
        self._scratch_folder, self._max_held = scratch_folder, max_held
        self._fresh: list[tuple[Keys, Counts]] = []
        self._held = 0
        self._runs: list[tuple[Keys, Counts]] = []

    def add(self, keys: Keys) -> None:
        """Count each of these keys, in any order and as often as it occurs."""
        distinct, counts = np.unique(keys, return_counts=True)
        self._fresh.append((distinct, counts))
        self._held += len(distinct)
        if self._held > self._max_held:
            merged = _merge(self._fresh)
            self._fresh, self._held = [merged], len(merged[0])
            if self._held > self._max_held // 2:
                self._runs.append((self._put_aside(merged[0]), self._put_aside(merged[1])))
                self._fresh, self._held = [], 0

    def at_least(self, count: int, gather: Gather = single_shard) -> Keys:
        """Return, sorted, the keys that occur `count` times or more in what all shards have added."""
        runs = [*self._runs, *([_merge(self._fresh)] if self._fresh else [])]
        held = sum(gather(sum(len(keys) for keys, _ in runs)))
        if not held:
            return np.empty(0, np.int64)
        # Keys are hashes, spread evenly: equal ranges of them have about as many each.
        ranges = 1 + held // self._max_held
        borders = [-(2**63) + index * 2**64 // ranges for index in range(1, ranges)]
        frequent: list[Keys] = []
        starts = [0] * len(runs)
        for border in [*borders, None]:
            stops = [len(keys) if border is None else int(np.searchsorted(keys, border)) for keys, _ in runs]
            in_range = [
                (keys[start:stop], counts[start:stop])
                for (keys, counts), start, stop in zip(runs, starts, stops, strict=True)
            ]
            keys, counts = _merge(gather(_merge(in_range) if in_range else _EMPTY_RUN))
            frequent.append(keys[counts >= count])
            starts = stops
        return np.concatenate(frequent)

    def _put_aside(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        stored = scratch_array(values.shape, values.dtype, self._scratch_folder, heap_bytes=0)
        stored[:] = values
        return stored


def _merge(runs: list[tuple[Keys, Counts]]) -> tuple[Keys, Counts]:
    if len(runs) == 1:
        return runs[0]
    keys = np.concatenate([keys for keys, _ in runs])
    order = np.argsort(keys, kind="stable")  # a merge of sorted runs
    keys, counts = keys[order], np.concatenate([counts for _, counts in runs])[order]
    if not len(keys):
        return keys, counts
    starts = np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1])
    return keys[starts], np.add.reduceat(counts, starts)
