"""Compute what was known of an entity just before a moment: sums and last values over its earlier events only.

The same functions give both the features of training rows (at the row's own time) and the state that serving starts
from (at the end of time), so the two cannot differ in meaning.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]
END_OF_TIME = np.iinfo(np.int64).max


class EventRanges(NamedTuple):
    """Holds half-open ranges [start, stop) of events in history order, M of them."""

    start_M: Index
    stop_M: Index

    @property
    def counts_M(self) -> Index:
        return self.stop_M - self.start_M

    def differences(self, running_NC: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the sums [M, C] over the ranges, from the running sums of `History.running`."""
        sums_MC: npt.NDArray[np.float64] = running_NC[self.stop_M] - running_NC[self.start_M]
        return sums_MC


class History:
    """Holds events of many entities, sorted by entity and time."""

    def __init__(self, entities_N: Index, times_N: Index) -> None:
        """Sort the events.

        Args:
            entities_N: entity numbers, 0 or more.
            times_N: when each event happened.
        """
        self._moments = np.unique(times_N)
        self._order_N = np.lexsort((times_N, entities_N))
        self._keys_N = self._key(entities_N, times_N)[self._order_N]

    def before(self, entities_M: Index, times_M: Index) -> EventRanges:
        """Return the events of each entity strictly before each time; events at that very time are not among them."""
        start_M = np.searchsorted(self._keys_N, entities_M * (len(self._moments) + 1), side="left")
        stop_M = np.searchsorted(self._keys_N, self._key(entities_M, times_M), side="left")
        return EventRanges(start_M, stop_M)

    def sums(self, values_NC: npt.NDArray[np.float64], ranges: EventRanges) -> npt.NDArray[np.float64]:
        """Return the sums [M, C] over each range, of values given per event [N, C]."""
        return ranges.differences(self.running(values_NC))

    def running(self, values_NC: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return running sums [N + 1, C] in history order, from which the sums of any ranges follow."""
        running = np.zeros((len(self._order_N) + 1, values_NC.shape[1]))
        np.cumsum(values_NC[self._order_N], axis=0, out=running[1:])
        return running

    def last(self, count: int, ranges: EventRanges) -> Index:
        """Return the numbers [M, count] of the latest events in each range, newest first; -1 where there are fewer."""
        position = ranges.stop_M[:, None] - 1 - np.arange(count)
        last_MC = np.full(position.shape, -1, np.int64)
        exists_MC = position >= ranges.start_M[:, None]
        last_MC[exists_MC] = self._order_N[position[exists_MC]]
        return last_MC

    def _key(self, entities: Index, times: Index) -> Index:
        # Times become ranks, so that (entity, time) fits one sortable integer whatever the unit of time.
        return entities * (len(self._moments) + 1) + np.searchsorted(self._moments, times, side="left")
