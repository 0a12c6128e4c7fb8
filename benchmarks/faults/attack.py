"""`Attack`: one kind of dishonest or heavy client, in a process of its own that goes and rests when it is told.

`python -m benchmarks.faults.attack` is that process. It reads its task as one line of JSON, then `go`, `rest` and
`finished?`, each answered by a line; at the end of its input it writes what it counted.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

LONGEST_S = 600.0


class Attack:
    """`with Attack("endless_head", url, connections=4) as attack: attack.go(); ...; attack.rest()`."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self._task = {"kind": kind, "url": url, "options": options}
        self._process: subprocess.Popen[bytes] | None = None
        self.seen: dict[str, float] = {}
        """What it counted; there once the block has ended."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Attack:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.faults.attack"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self._tell(json.dumps(self._task))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self.seen = json.loads(self._process.stdout.read() or b"{}")
        self._process.wait(30)

    def go(self) -> None:
        """Begin, or go on."""
        self._tell("go")

    def rest(self) -> None:
        """Close all connections until `go`."""
        self._tell("rest")

    def wait_until_finished(self, timeout_s: float) -> None:
        """Wait until an attack that ends by itself has ended, at most so long."""
        due = time.monotonic() + timeout_s
        while self._tell("finished?") != "yes" and time.monotonic() < due:
            time.sleep(0.1)

    def _tell(self, line: str) -> str:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().decode().strip()
        if not answer:
            raise SystemExit(f"error: the attack {self._task['kind']} ended")
        return answer


async def _main() -> None:
    from benchmarks.faults.attackers import ATTACKERS

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # connections that the service resets are what is counted
    task = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    attacker = ATTACKERS[task["kind"]](task["url"], **task["options"])
    running: asyncio.Task[None] | None = None
    _answer("ready")
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if line == "go" and running is None:
            running = asyncio.create_task(_bounded(attacker.run()))
        elif line == "rest" and running is not None:
            running = await _end(running)
        _answer("yes" if running is not None and running.done() else line)
    if running is not None:
        await _end(running)
    sys.stdout.write(json.dumps(attacker.seen) + "\n")


async def _bounded(work: Any) -> None:
    async with asyncio.timeout(LONGEST_S):
        await work


async def _end(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
