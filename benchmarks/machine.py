"""The machine of a measurement: its cores, its processor, processor times, and versions."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES: tuple[str, ...] = (
    "torch",
    "numpy",
    "uvicorn",
    "uvloop",
    "fastapi",
    "redis",
    "hiredis",
    "msgspec",
    "onnxruntime",
    "mosec",
    "litserve",
)
CAN_PIN = hasattr(os, "sched_setaffinity")


def cores() -> tuple[set[int], set[int]]:
    """Return the core of the service under test and that of all else. Raises SystemExit if there are not two."""
    if not CAN_PIN:
        return set(), set()
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SystemExit("error: the benchmark needs two cores: one for the service, one for the load and the store")
    return {usable[0]}, {usable[1]}


@contextlib.contextmanager
def pinned(to: set[int]) -> Iterator[None]:
    """Run the block, and every process it starts, on these cores; empty leaves them alone."""
    if not to:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def realtime_priority(*pids: int) -> Iterator[bool]:
    """Run the block, and the threads and processes it starts, before all ordinary work of their core.

    The main threads of the processes `pids` get the same priority for as long as the block lasts. Yields whether the
    system allows it: Linux asks for root or CAP_SYS_NICE.
    """
    with contextlib.ExitStack() as stack:
        try:
            for pid in (0, *pids):
                before = os.sched_getscheduler(pid), os.sched_getparam(pid)
                os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
                stack.callback(_restore_scheduler, pid, *before)
        except (AttributeError, OSError):
            stack.close()
            yield False
            return
        yield True


def _restore_scheduler(pid: int, policy: int, parameters: os.sched_param) -> None:
    with contextlib.suppress(ProcessLookupError):  # a process that has ended meanwhile
        os.sched_setscheduler(pid, policy, parameters)


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and the children it has waited for; NaN without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def core_seconds(cores: set[int]) -> float:
    """Return for how long these cores worked for any process or were taken by the hypervisor; 0 if unknown."""
    try:
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    except OSError:
        return 0.0
    # user nice system idle iowait irq softirq steal
    ticks = [list(map(int, line[1:9])) for line in lines if line[0] in {f"cpu{core}" for core in cores}]
    return sum(sum(core_ticks) - core_ticks[3] - core_ticks[4] for core_ticks in ticks) / os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    """Return the facts about the machine and the software that a page of results names."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "versions": {name: installed for name in PACKAGES if (installed := _version(name))},
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
        facts = {name.strip(): value.strip() for name, _, value in lines}
        wide = "AVX-512" if "avx512f" in facts.get("flags", "") else "no AVX-512"
        family = f"family {facts.get('cpu family')} model {facts.get('model')}"
        return f"{facts.get('model name', 'unknown')} ({family}, {wide}, {facts.get('cpu MHz')} MHz)"
    return platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
