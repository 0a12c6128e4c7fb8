"""What a machine takes for itself: the times in which a program that only reads the clock does not run.

The kernel's own threads, other programs, and what a hypervisor takes without saying so. At 70 % of capacity a pause of
d ms delays all requests of the next d / 0.3 ms, however quick each of them is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEAST_S = 0.0003
"""Shorter ones are the clock's own and a timer's."""
_SPIN = """
import json, os, sys, time
core, seconds, least = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
os.sched_setaffinity(0, {core})
clock, found = time.perf_counter, []
began = last = clock()
while last - began < seconds:
    now = clock()
    if now - last > least:
        found.append((last - began, now - last))
    last = now
print(json.dumps(found))
"""

Pauses = list[tuple[float, float]]
"""Beginning and length in seconds, in order."""


def pauses(cores: Sequence[int], seconds: float) -> list[Pauses]:
    """Of each of these cores, all of which spin at once; the first moments count for all alike."""
    spinning = [
        subprocess.Popen([sys.executable, "-c", _SPIN, str(core), str(seconds), str(LEAST_S)], stdout=subprocess.PIPE)
        for core in cores
    ]
    return [[(start, length) for start, length in json.loads(process.communicate()[0])] for process in spinning]


def unavoidable(
    sender: Pauses, server: Pauses, rate: float, capacity: float, seconds: float
) -> npt.NDArray[np.float64]:
    """Seconds that each request of an open loop waits, for nothing but these pauses: of the sender's core before it is
    sent, and of the server's, which works for 1 / capacity on each, in order.
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
    """When what happens at this time can go on."""
    return next((start + length for start, length in pauses if start <= at < start + length), at)
