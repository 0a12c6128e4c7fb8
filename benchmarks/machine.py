"""Where a measurement ran: cores, processor, versions."""

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
)
PACKAGES += ("mosec", "litserve")
CAN_PIN = hasattr(os, "sched_setaffinity")


def cores() -> tuple[set[int], set[int]]:
    """The cores of the service under test and of all else. Raises SystemExit where there are not two."""
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
def on_time(*pids: int) -> Iterator[bool]:
    """Run the block, and the threads it starts, before all ordinary work of their core; processes that it starts
    inherit this. So do, meanwhile, the main threads of the processes `pids`. Yields whether the system lets us: Linux
    asks for root or CAP_SYS_NICE.
    """
    with contextlib.ExitStack() as stack:
        try:
            for pid in (0, *pids):
                before = os.sched_getscheduler(pid), os.sched_getparam(pid)
                os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
                stack.callback(os.sched_setscheduler, pid, *before)
        except (AttributeError, OSError):
            stack.close()
            yield False
            return
        yield True


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and the children it has waited for; NaN where /proc is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def delayed_seconds(pid: int) -> float:
    """Time the main thread of a process was ready to run while others had its core; 0 where Linux does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def core_seconds(cores: set[int]) -> float:
    """Time these cores have worked for anybody, or were taken by the hypervisor; 0 where Linux does not tell."""
    try:
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    except OSError:
        return 0.0
    # user nice system idle iowait irq softirq steal
    ticks = [list(map(int, line[1:9])) for line in lines if line[0] in {f"cpu{core}" for core in cores}]
    return sum(sum(of) - of[3] - of[4] for of in ticks) / os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
        known = {name.strip(): value.strip() for name, _, value in lines}
        wide = "AVX-512" if "avx512f" in known.get("flags", "") else "no AVX-512"
        family = f"family {known.get('cpu family')} model {known.get('model')}"
        return f"{known.get('model name', 'unknown')} ({family}, {wide}, {known.get('cpu MHz')} MHz)"
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
