"""Measures a machine's pauses: the times in which a program that only reads the clock does not run.

The kernel's own threads, other programs and the hypervisor cause them. At 70 % of capacity a pause of d ms delays all
requests of the next d / 0.3 ms, however quick each of them is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEAST_S = 0.0003
"""Shorter gaps are caused by reading the clock and by timer interrupts, and are not counted."""
_SPIN = """
import json, os, sys, time
core, seconds, least = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
os.sched_setaffinity(0, {core})
clock, found = time.perf_counter, []
print("spinning", flush=True)
began = last = clock()
while last - began < seconds:
    now = clock()
    if now - last > least:
        found.append((last - began, now - last))
    last = now
print(json.dumps(found))
"""

Pauses = list[tuple[float, float]]
"""Pairs of beginning and length in seconds, in order of their beginning."""


def start_spinning(core: int, seconds: float) -> subprocess.Popen[bytes]:
    """Start a process that reads the clock on this core for so long; it prints a line as it begins."""
    command = [sys.executable, "-c", _SPIN, str(core), str(seconds), str(LEAST_S)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def read_pauses(spinning: subprocess.Popen[bytes]) -> Pauses:
    """Wait until the process ends and return the pauses that it noticed."""
    return [(start, length) for start, length in json.loads(spinning.communicate()[0].splitlines()[-1])]


def pauses(cores: Sequence[int], seconds: float) -> list[Pauses]:
    """Measure the pauses of each of these cores, all of which spin at once."""
    return [read_pauses(process) for process in [start_spinning(core, seconds) for core in cores]]


def waits_from_pauses(
    sender: Pauses, server: Pauses, rate: float, capacity: float, seconds: float
) -> npt.NDArray[np.float64]:
    """Compute how long each request of an open loop waits because of pauses alone.

    The sender's pauses delay the sending; the server works for 1 / capacity seconds on each request, in order, and its
    pauses stretch that work.

    Returns:
        Seconds [rate x seconds].
    """
    waits, free = np.empty(int(rate * seconds)), 0.0
    for number in range(len(waits)):
        due = number / rate
        at, left = _resumed(server, max(_resumed(sender, due), free)), 1 / capacity
        while at + left > (pause := next((start for start, _ in server if start >= at), float("inf"))):
            at, left = _resumed(server, pause), left - (pause - at)  # a pause stretches what it falls into
        free = at + left
        waits[number] = free - due - 1 / capacity
    return waits


def _resumed(pauses: Pauses, at: float) -> float:
    """Return the end of the pause that this time falls into, or the time itself."""
    return next((start + length for start, length in pauses if start <= at < start + length), at)
