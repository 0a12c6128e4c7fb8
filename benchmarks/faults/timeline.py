"""`Timeline`: every request of a load with when it was due, when it was answered, and how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
COLUMNS = 4


@dataclass(frozen=True)
class Timeline:
    """Requests in the order of their answers. Times are `time.perf_counter()`, which all processes share."""

    due: Floats
    done: Floats
    status: npt.NDArray[np.int64]
    """HTTP status; 0 for a request without a whole answer."""
    degraded: npt.NDArray[np.bool_]

    @classmethod
    def of_rows(cls, rows: Floats) -> Timeline:
        """Make it of rows [N, 4]: due, done, status, degraded."""
        return cls(rows[:, 0], rows[:, 1], rows[:, 2].astype(np.int64), rows[:, 3] > 0)

    def __len__(self) -> int:
        return len(self.due)

    def where(self, chosen: npt.NDArray[np.bool_]) -> Timeline:
        return Timeline(self.due[chosen], self.done[chosen], self.status[chosen], self.degraded[chosen])

    def between(self, start: float, stop: float) -> Timeline:
        """Return the requests that were due in this time."""
        return self.where((self.due >= start) & (self.due < stop))

    @property
    def answered(self) -> Timeline:
        """The requests with status 200."""
        return self.where(self.status == 200)

    @property
    def rejected(self) -> Timeline:
        """The requests that were refused for want of room."""
        return self.where((self.status == 429) | (self.status == 503))

    @property
    def failed(self) -> int:
        """The number of requests without a 200."""
        return int((self.status != 200).sum())

    @property
    def server_errors(self) -> int:
        return int((self.status >= 500).sum())

    @property
    def lost(self) -> int:
        """The number of requests without a whole answer."""
        return int((self.status == 0).sum())

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latencies; NaN without requests."""
        if not len(self):
            return float("nan")
        return float(np.percentile(1000 * (self.done - self.due), percent))

    @property
    def p99_ms(self) -> float:
        """p99 of those answered 200."""
        return self.answered.percentile_ms(99)

    def statuses(self) -> str:
        """Return the number of each status, in words."""
        values, counts = np.unique(self.status, return_counts=True)
        return ", ".join(
            f"{count:,} x {value or 'no answer'}" for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        )
