"""Publishers that are killed, find no room, or publish at the same time, while a service follows the store."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.errors import ArtifactError
from app.registry.store.model_store import ModelStore
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row, Skipped
from benchmarks.faults.service import Service
from benchmarks.process import ctr

NAME = "bench"
KILLS, SMOKE_KILLS = 200, 10
COMMAND_KILLS = 4
FOLLOWED_S = 30.0
ROOM = 1.5
"""Of what a version takes: not enough for two."""


@contextlib.contextmanager
def _followed_store(bed: FaultBed, name: str, folder: Path | None = None) -> Iterator[tuple[Service, ModelStore, Path]]:
    """Run a service on a copy of the model store. Yields it, the store and a version's folder outside it."""
    root = folder or bed.testbed.folder / name
    source = bed.testbed.folder / f"{name}-source"
    shutil.copytree(bed.testbed.versions[NAME], source)
    shutil.copytree(bed.testbed.versions[NAME], root / NAME / "1")
    store = ModelStore(root, NAME)
    store.update_pointer(stable=1)
    with bed.service(name, settings={"CTR_MODEL_STORE": str(root)}) as service:
        yield service, store, source


def _command(store: ModelStore, source: Path, *options: str) -> list[str]:
    return [ctr(), "publish", str(source), "--model", store.name, "--model-store", str(store.folder.parent), *options]


def _environment(bed: FaultBed) -> dict[str, str]:
    return {**os.environ, "CTR_REDIS_URL": bed.testbed.redis_url}


def _killed(bed: FaultBed) -> Sequence[Check]:
    times, dice = bed.count(KILLS, SMOKE_KILLS), random.Random(5)
    with _followed_store(bed, "publishers") as (service, store, source), bed.load(service, share=0.1) as load:
        command = [sys.executable, "-m", "benchmarks.faults.publisher", str(store.folder.parent), NAME, str(source)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        ) as publisher:
            assert publisher.stdin is not None
            assert publisher.stdout is not None

            def ask(line: str = "") -> int:
                assert publisher.stdin is not None
                assert publisher.stdout is not None
                publisher.stdin.write(line + "\n")
                publisher.stdin.flush()
                return int(publisher.stdout.readline())

            publisher.stdout.readline()
            began = time.monotonic()
            ask("publish")
            unharmed = ask("wait")
            whole_s = time.monotonic() - began
            killed = 0
            for _ in range(times):
                child = ask("publish")
                time.sleep(dice.random() * 1.1 * whole_s)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                killed += ask("wait") != 0
            publisher.stdin.close()
        for _ in range(0 if bed.smoke else COMMAND_KILLS):  # the command whole, with the process of its gate
            killed += _kill_command(bed, _command(store, source, "--force"), dice.random() * 8)
        last = subprocess.run(
            _command(store, source, "--force"), env=_environment(bed), capture_output=True, text=True, check=False
        )
        stable = store.pointer().stable
        live_s = service.holds_within(lambda health: health["model"]["version"] == stable, FOLLOWED_S)
        health = service.health()
    return [
        Check(
            f"{killed} of {times} publications ended by the kill, of {whole_s:.2f} s each", killed > 0 and not unharmed
        ),
        Check(f"the next publication: exit {last.returncode} {_said(bed, last.stderr)}", last.returncode == 0),
        *_whole_store(store),
        Check(
            f"version {stable} is live {health['status']}, {health['reasons']}",
            live_s is not None and not health["reasons"],
        ),
        _no_partial_loads(service),
        Check(
            f"{load.timeline.failed} of {len(load.timeline):,} requests meanwhile failed, "
            f"{int(load.timeline.degraded.sum())} degraded",
            load.timeline.failed == 0,
        ),
    ]


def _kill_command(bed: FaultBed, command: list[str], after_s: float) -> bool:
    """Kill a command and the processes that it started, after so long; return whether it had not ended before."""
    with subprocess.Popen(
        command, env=_environment(bed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
            return False
        os.killpg(process.pid, signal.SIGKILL)
        return True


def _said(bed: FaultBed, text: str) -> str:
    """Return the last line that a command wrote, without the folder that only this machine has."""
    return text.strip().replace(f"{bed.testbed.folder}/", "").splitlines()[-1][:150]


def _whole_store(store: ModelStore) -> list[Check]:
    """Return whether every version in the store is whole, and whether nothing else is left there."""
    damaged = []
    for version in store.versions():
        try:
            store.load(version)
        except ArtifactError as error:
            damaged.append(f"{version}: {error}")
    left = sorted(entry.name for entry in store.folder.iterdir() if entry.name.startswith(".tmp-"))
    return [
        Check(f"{len(damaged)} of {len(store.versions())} versions are not whole {damaged[:1] or ''}", not damaged),
        Check(f"{len(left)} folders of killed publishers left", not left),
    ]


def _no_partial_loads(service: Service) -> Check:
    """Return whether the service never met a version that was not whole."""
    refused = [line for line in service.log_lines() if "refused" in line or "hash" in line]
    return Check(f"{len(refused)} partial loads in the log {refused[:1] or ''}", not refused)


def _disk_full(bed: FaultBed) -> Sequence[Check]:
    size = sum(file.stat().st_size for file in bed.testbed.versions[NAME].iterdir())
    root = bed.testbed.folder / "full"
    with (
        _small_disk(root, int(ROOM * size) + (1 << 20)),
        _followed_store(bed, "full", root) as (service, store, source),
    ):
        before = store.folder / "serving.json"
        pointer = before.read_bytes()
        done = subprocess.run(
            _command(store, source, "--force"), env=_environment(bed), capture_output=True, text=True, check=False
        )
        answer = service.rank("1", ["1", "2"])
        health = service.health()
        left = sorted(entry.name for entry in store.folder.iterdir() if entry.name.startswith(".tmp-"))
        return [
            Check(f"exit {done.returncode}: {_said(bed, done.stderr)}", done.returncode == 1),
            Check(
                "the error says so" if "space" in done.stderr else "the error does not say why", "space" in done.stderr
            ),
            Check(f"versions {store.versions()}, left {left}", store.versions() == [1] and not left),
            Check("the pointer is as it was", before.read_bytes() == pointer),
            Check(
                f"/rank {answer.status_code}, /health {health['status']}",
                answer.status_code == 200 and health["status"] == "ok",
            ),
        ]


@contextlib.contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of this size. Raises Skipped where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Skipped(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _two_at_once(bed: FaultBed) -> Sequence[Check]:
    with _followed_store(bed, "two") as (service, store, source):
        publishers = [
            subprocess.Popen(
                _command(store, source, "--force"),
                env=_environment(bed),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for _ in range(2)
        ]
        said = [publisher.communicate(timeout=300)[1].decode() for publisher in publishers]
        codes = [publisher.returncode for publisher in publishers]
        stable = store.pointer().stable
        live_s = service.holds_within(lambda health: health["model"]["version"] == stable, FOLLOWED_S)
        return [
            Check(f"exits {codes} {[text.strip()[-80:] for text in said if any(codes)]}", codes == [0, 0]),
            Check(f"versions {store.versions()}", store.versions() == [1, 2, 3]),
            *_whole_store(store),
            Check(f"version {stable} is live", live_s is not None and stable in (2, 3)),
        ]


ROWS = (
    Row(
        "publishers-killed",
        "publisher killed at random, 200 times",
        "0 partial loads, nothing left behind, the live one serves",
        _killed,
    ),
    Row("disk-full", "disk full", "refused with the reason, nothing left behind, the live one serves", _disk_full),
    Row("two-publishers", "two publishers at once", "both publish, one is live, nothing left behind", _two_at_once),
)
