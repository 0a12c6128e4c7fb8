"""What the kernel tells of other processes: their children, whether they have ended, their memory and their sockets."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def children_of(pid: int) -> dict[int, str]:
    """Return the process ids and names of the children of a process, whichever of its threads started them."""
    found = {}
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            for child in listed.read_text().split():
                with contextlib.suppress(OSError):  # the child was reaped since the list was read
                    found[int(child)] = Path(f"/proc/{child}/comm").read_text().strip()
    return found


def has_ended(pid: int) -> bool:
    """Return whether a process is no more, or waits for nothing but its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def resident_mb(pid: int) -> float:
    """Return how much memory a process holds, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def table_of_descriptors(pid: int) -> int:
    """Return for how many descriptors a process has room in the kernel's table."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("FDSize:")[2].split()[0])


def listening_ports(pid: int) -> set[int]:
    """Return the ports of the sockets with which a process listens on IPv4 addresses."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed since the list was read
            if (target := os.readlink(descriptor)).startswith("socket:["):
                inodes.add(target[8:-1])
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}
