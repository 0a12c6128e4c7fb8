"""Measures this checkout beside another one of the same project, interleaved in one run: what a change costs or brings.

Each side publishes a model of the same shape with its own code, and answers from the same store. Training runs in one
process a side, which trains an epoch whenever it is told to.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.loadgen.generator import LoadGenerator
from benchmarks.capacity import CONCURRENCY, one_round
from benchmarks.contenders import OURS, Contender
from benchmarks.figure import Figure
from benchmarks.machine import pinned
from benchmarks.process import ctr, in_turn
from benchmarks.testbed import DIM, HIDDEN, Testbed
from benchmarks.training_data import SPARROW

LEAST_RATIO = 0.97
BATCHES = (256, 4096)
ROOT = Path(__file__).parents[1]
_TRAIN = """
import json, sys, time
from pathlib import Path
import torch
from benchmarks.training_contenders import ours
from benchmarks.training_data import columns
torch.set_num_threads(1)
data = columns(Path(sys.argv[1]))  # a checkout elsewhere would fall back to MovieLens, 1.35 times as fast
epochs = {batch: ours(data, batch, regularised=True) for batch in map(int, sys.argv[2:])}
for epoch in epochs.values():
    epoch()
print("ready", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    count = epochs[int(line)]()
    print(json.dumps(count / (time.perf_counter() - began)), flush=True)
"""


@dataclass
class Pair:
    """Rates of both checkouts, a pair a round."""

    this: list[float]
    before: list[float]

    def figure(self, what: str, unit: str) -> Figure:
        """Return the median of the rounds' ratios: within a round the machine was in the same state for both."""
        ratios = sorted(this / before for this, before in zip(self.this, self.before, strict=True))
        medians = statistics.median(self.this), statistics.median(self.before)
        note = f"{medians[0]:,.0f} over {medians[1]:,.0f} {unit}; rounds from {ratios[0]:.2f}x to {ratios[-1]:.2f}x"
        return Figure(
            f"{what}, this over before", "at least", LEAST_RATIO, reached=statistics.median(ratios), note=note
        )


def requests(
    testbed: Testbed, before: Path, sizes: list[int], *, rounds: int, seconds: float, notify: Callable[[str], None]
) -> list[Figure]:
    """Measure requests a second of both services, in turn, at each number of candidates."""
    _publish(testbed, before)
    other = {"PYTHONPATH": str(before)}
    with (
        testbed.service("this", settings={"PYTHONPATH": str(ROOT)}) as this_service,
        testbed.service("before", model="before", settings=other) as before_service,
    ):
        sides = [Contender(OURS, *this_service), Contender(OURS, *before_service)]
        rates: dict[int, tuple[list[float], list[float]]] = {size: ([], []) for size in sizes}
        generators = {
            (side.url, size): LoadGenerator(side.url, testbed.bodies(size)) for side in sides for size in sizes
        }
        with in_turn(side.process for side in sides):
            for number in range(rounds):
                notify(f"round {number + 1} of {rounds}")
                for size in sizes:
                    # Who goes first changes from round to round, as the machine slows down while it is busy.
                    for index in (0, 1) if number % 2 else (1, 0):
                        side = sides[index]
                        with side.process.turn():
                            measured = one_round(side, generators[side.url, size], seconds, CONCURRENCY)
                        rates[size][index].append(measured.requests_per_second)
    return [Pair(*rates[size]).figure(f"requests/s, {size} candidates", "requests/s") for size in sizes]


def training(before: Path, *, rounds: int, notify: Callable[[str], None]) -> list[Figure]:
    """Measure samples a second of both trainers, an epoch each in turn, on one thread."""
    rates: dict[int, tuple[list[float], list[float]]] = {batch: ([], []) for batch in BATCHES}
    with _trainer(ROOT) as this_epoch, _trainer(before) as before_epoch:
        for number in range(rounds):
            notify(f"training, round {number + 1} of {rounds}")
            for batch in BATCHES:
                for index in (0, 1) if number % 2 else (1, 0):
                    rates[batch][index].append((this_epoch, before_epoch)[index](batch))
    return [Pair(*rates[batch]).figure(f"samples/s, batch {batch}", "samples/s") for batch in BATCHES]


def _publish(testbed: Testbed, before: Path) -> None:
    """Publish a model like the testbed's by the other checkout's code. Raises SystemExit if that fails."""
    catalogue = testbed.catalogue
    shape = {
        "users": catalogue.users, "items": catalogue.items, "user-fields": catalogue.user_fields,
        "item-fields": catalogue.item_fields, "dim": DIM, "hidden": ",".join(map(str, HIDDEN)),
    }  # fmt: skip
    options = [part for name, value in shape.items() for part in (f"--{name}", str(value))]
    settings = {
        "CTR_MODEL_STORE": str(testbed.folder / "models"), "CTR_MODEL": "before", "CTR_REDIS_URL": testbed.redis_url,
        "PYTHONPATH": str(before),
    }  # fmt: skip
    done = subprocess.run(
        [ctr(), "synth", *options, "--publish", "--json"],
        capture_output=True, text=True, check=False, env={**os.environ, **settings},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"error: {before} cannot publish a model:\n{done.stderr[-2000:]}")


@contextlib.contextmanager
def _trainer(root: Path) -> Iterator[Callable[[int], float]]:
    """Start a process that trains with a checkout's code. Yields a function that trains an epoch at a batch size.

    The function returns samples a second.
    """
    command = [sys.executable, "-c", _TRAIN, str(SPARROW), *map(str, BATCHES)]
    with subprocess.Popen(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        commands, answers = process.stdin, process.stdout
        if answers.readline().strip() != "ready":
            raise SystemExit(f"error: {root} cannot train")

        def epoch(batch: int) -> float:
            print(batch, file=commands, flush=True)
            return float(json.loads(answers.readline()))

        try:
            yield epoch
        finally:
            commands.close()
            process.wait(60)


def compare(
    testbed: Testbed, before: Path, sizes: list[int], *, rounds: int, seconds: float, notify: Callable[[str], None]
) -> list[Figure]:
    """Measure requests and training of this checkout beside another one. Raises SystemExit if one cannot run."""
    if not (before / "app" / "cli.py").is_file():
        raise SystemExit(f"error: {before} is no checkout of ctr-serving")
    figures = requests(testbed, before, sizes, rounds=rounds, seconds=seconds, notify=notify)
    with pinned(testbed.service_core):
        return figures + training(before, rounds=rounds, notify=notify)
