"""Worker processes that die or hang under load."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row

WORKERS = ("--workers", "2")
EVERY_S = 5.0
BACK_S = 5.0
SHARE = 0.2
"""Of the capacity of both workers: one alone has to bear it while the other is replaced."""


def _lose_workers(how: str, bed: FaultBed) -> Sequence[Check]:
    """Kill or hang one worker after the other; what was in flight on it is all that may fail."""
    number = signal.SIGKILL if how == "killed" else signal.SIGSTOP
    with bed.service(f"workers-{how}", options=WORKERS, both_cores=True) as service:
        service.wait_for_workers(2)
        in_flight = 0
        back_s: list[float] = []
        with bed.load(service, share=SHARE) as load:
            time.sleep(1.0)
            until = time.monotonic() + bed.seconds / 2  # the other half is that of the other way to fail
            while time.monotonic() < until:
                victim = service.workers()[len(back_s) % 2]
                before = set(service.workers())
                at_stake = service.connections_of(victim)
                began = time.monotonic()
                os.kill(victim, number)
                while (now := time.monotonic() - began) < 4 * BACK_S:
                    if how == "hung" and Path(f"/proc/{victim}").exists():
                        at_stake = max(at_stake, service.connections_of(victim))
                    if len(set(service.workers()) - {victim}) >= len(before):
                        break
                    time.sleep(0.02)
                back_s.append(now)
                in_flight += at_stake
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)  # one that hangs for ever would keep its connections
                time.sleep(max(0.0, EVERY_S - now))
            ended = time.perf_counter()
            time.sleep(1.0)
        failed = load.timeline.failed
        last = load.timeline.between(ended, float("inf"))
        logged = sum("worker" in line for line in service.log_lines())
    late = sum(one > BACK_S for one in back_s)
    return [
        Check(
            f"{failed} of {len(load.timeline):,} requests failed ({load.timeline.statuses()}); {in_flight} were or "
            f"came in flight on the {len(back_s)} workers {how}",
            failed <= in_flight,
        ),
        Check(
            f"capacity back after {max(back_s):.1f} s at most (at most {BACK_S:.0f}), {late} of {len(back_s)} later",
            late == 0,
            timed=True,
        ),
        Check(f"{last.failed} of the {len(last):,} last requests failed", last.failed == 0 and len(last) > 0),
        Check(f"{logged} log lines name workers", logged >= len(back_s)),
    ]


def _row(how: str) -> Row:
    run: Callable[[FaultBed], Sequence[Check]] = partial(_lose_workers, how)
    return Row(
        f"worker-{how}",
        f"a worker {how}, every 5 s for 60 s",
        "failures at most what was in flight on it; capacity back within 5 s",
        run,
    )


ROWS = (_row("killed"), _row("hung"))
