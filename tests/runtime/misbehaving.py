"""A module that `tests/runtime/test_isolated.py` runs in a process of its own, to see it end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from app.runtime.isolated import answer_stream, limit_resources, read_request


class Behaviour(msgspec.Struct):
    """The misbehaviour to show, and a file to write for those that leave a trace."""

    behaviour: str
    path: str = ""


def misbehave(request: Behaviour) -> None:
    """Do what the request names after the first answer."""
    path = Path(request.path)
    match request.behaviour:
        case "print":
            print("a word of a library", flush=True)
        case "sleep":
            time.sleep(60)
        case "clear up":
            try:
                path.write_text("")  # from now on an interrupt is caught, and the caller may send one
                time.sleep(60)
            except KeyboardInterrupt:
                path.write_text("interrupted")
                raise
        case "ignore":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(60)
        case "take memory":
            limit_resources(memory_mb=64, processor_s=30)
            bytearray(1 << 30)
        case "spin":
            limit_resources(memory_mb=64, processor_s=0)
            while True:
                pass
        case "write":
            limit_resources(memory_mb=64, processor_s=30)
            path.write_bytes(b"x")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave a child" | "leave a child and sleep":
            quiet = subprocess.DEVNULL
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=quiet, stderr=quiet)
            path.write_text(str(child.pid))
            time.sleep(60 if request.behaviour.endswith("sleep") else 0)


def main() -> None:
    """Answer 1, do what the request names, answer 2."""
    request = read_request(Behaviour)
    if request.behaviour == "garbage":
        sys.stdout.write('1\n{"half": \n\xff\n2\n')
        sys.stdout.flush()
        return
    with answer_stream() as answer:
        answer(1)
        misbehave(request)
        answer(2)


if __name__ == "__main__":
    main()
