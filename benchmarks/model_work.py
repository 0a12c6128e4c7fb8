"""Does the runs that a call of a command asks for, one after the other, and keeps their results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import CtrError
from benchmarks.model_options import notify
from benchmarks.model_runs import (
    RunKey,
    RunResult,
    baselines_fitted_once,
    file_digests,
    fingerprint,
    read_result,
    run,
    write_result,
)
from benchmarks.model_sets import SETS, ComparisonSet, Parts, take_some


@dataclass
class Work:
    """The runs that a call has to do, and their results."""

    data: Path
    runs: Path
    quick: bool
    fresh: bool
    commit: str
    total: int
    until: float
    """`time.perf_counter()` after which no further run is begun."""
    cut: int | None = None
    """Number of training rows, other ones for each seed; None trains on all."""
    trained: int = 0
    left: int = 0
    results: dict[RunKey, RunResult] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _read: dict[str, Parts] = field(default_factory=dict)

    def run_set(self, keys: Sequence[RunKey]) -> None:
        """Do runs of one set; its rows are read once, and only if a run is missing."""
        data_set = SETS[keys[0].set]
        digests = file_digests(data_set.files(self.data))
        with baselines_fitted_once():
            for key in keys:
                identity = fingerprint(key, digests, self.quick, self.cut)
                if not self.fresh and (result := read_result(key, self.runs, identity)):
                    self.add(key, result, f"remembered from {result.created_at}")
                    continue
                if time.perf_counter() > self.until:
                    self.left += 1
                    continue
                train, test = self.load(data_set)
                self.run(key, (train if self.cut is None else take_some(train, self.cut, key.seed), test), identity)

    def load(self, data_set: ComparisonSet) -> Parts:
        """Return the set's rows; those of the last set that was read are kept."""
        if data_set.name not in self._read:
            notify(f"{data_set.name}: reading")
            self._read = {data_set.name: data_set.load(self.data, self.quick)}
        return self._read[data_set.name]

    def run(self, key: RunKey, rows: Parts, identity: str) -> None:
        """Do one run and keep its result; a failure is noted and does not end the others."""
        try:
            result = run(key, *rows, identity, self.commit)
        except (CtrError, ImportError, RuntimeError, ValueError) as error:  # one that fails does not cost the others
            self.failed[f"{key.set} {key.model} {key.seed}"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            notify(f"{self.describe(key)}: failed: {error}")
            return
        write_result(key, self.runs, result)
        self.trained += 1
        self.add(key, result, f"in {result.seconds:.1f} s")

    def add(self, key: RunKey, result: RunResult, how: str) -> None:
        """Keep and print a result."""
        note = ", poor" if result.poor else ""
        notify(f"{self.describe(key)}: AUC {result.auc:.4f}, log loss {result.log_loss:.4f}{note}, {how}")
        self.results[key] = result

    def describe(self, key: RunKey) -> str:
        """Return the run's number and name."""
        number = len(self.results) + len(self.failed) + 1
        rows = "" if self.cut is None else f" {self.cut:,} rows"
        return f"{number}/{self.total} {key.set}{rows} {key.model} seed {key.seed}"
