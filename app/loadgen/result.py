"""`LoadResult`: what came back of a run of the load generator."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_version = re.compile(rb'"version":(\d+)')


@dataclass
class LoadResult:
    """Counts and latencies of one run."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    """HTTP status to number of answers; 0 counts requests that got no whole answer."""
    versions: Counter[int] = field(default_factory=Counter)
    """Model version to number of answers."""
    degraded: int = 0
    latencies_s: list[float] = field(default_factory=list)
    """Latencies of the answers with status 200."""

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200)

    def summary(self) -> dict[str, Any]:
        """Return requests a second and percentiles in milliseconds, ready for JSON."""
        latencies_ms = np.array(self.latencies_s or [float("nan")]) * 1000
        answered = self.statuses[200]
        return {
            "seconds": round(self.seconds, 3),
            "requests": sum(self.statuses.values()),
            "requests_per_second": round(answered / self.seconds, 1) if self.seconds else 0.0,
            "failed": self.failed,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "versions": {str(version): count for version, count in sorted(self.versions.items())},
            "degraded": self.degraded,
            "latency_ms": {
                name: round(float(np.percentile(latencies_ms, percent)), 3) if answered else None
                for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("p999", 99.9), ("max", 100))
            },
        }

    def add(self, due: float, status: int, body: bytes) -> None:
        """Count an answer to a request that was due at this `time.perf_counter()`."""
        self.statuses[status] += 1
        if status == 200:
            self.latencies_s.append(time.perf_counter() - due)
            self.versions[version_of(body)] += 1
            self.degraded += b'"degraded":[]' not in body


def version_of(body: bytes) -> int:
    """Return the version that an answer names, or 0 if it names none."""
    match = _version.search(body, 0, 300)
    return int(match[1]) if match else 0
