"""Measures how soon two workers follow a publication and a rollback, and what the loss of the model store costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from app.registry.store.pointer import POINTER
from app.runtime.read_only import remove_folder
from benchmarks.figure import Figure
from benchmarks.process import ctr
from benchmarks.soak.recording import RecordedLoad, Recording
from benchmarks.soak.swaps import SHARE, TRIAL_S, capacity, under_load
from benchmarks.soak.versions import publish, store_of
from benchmarks.testbed import Testbed

NAME = "fleet"
CANDIDATES = 100
ASKED_S = 5.0
WATCHED_S = 6.0
"""Seconds after a command in which answers are watched; later ones of the version before would be missed."""
LOST_S = 5.0
PATIENT = {"CTR_REDIS_TIMEOUT_MS": "200"}
"""Settings: the feature store shares its core with a worker here, and its delays must not count as degraded."""


def fleet(
    testbed: Testbed,
    *,
    share: float = SHARE / 2,
    trial_s: float = TRIAL_S,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Measure two workers. They share both cores with the load and the store, so the load is half the usual one."""
    publish(testbed, NAME, [0, 1])
    store = store_of(testbed, NAME)
    store.update_pointer(stable=1)
    both = testbed.service_core | testbed.other_core
    with testbed.service("fleet", model=NAME, core=both, options=("--workers", "2"), settings=PATIENT) as (_, url):
        _wait_for_both(url)
        generator = RecordedLoad(url, testbed.bodies(CANDIDATES))
        rate = share * capacity(generator, trial_s)
        notify(f"two workers at {rate:.0f} requests/s of {CANDIDATES}: publish, roll back, lose the model store")
        began: dict[str, float] = {}
        pointed: dict[str, float] = {}

        def act() -> None:
            time.sleep(1.0)
            for what, command in (
                ("publish", ["publish", str(_move_out(testbed, 2)), "--force"]),
                ("rollback", ["rollback"]),
            ):
                began[what] = time.perf_counter()
                _run(testbed, command)
                age_s = time.time() - (store.folder / POINTER).stat().st_mtime
                pointed[what] = time.perf_counter() - age_s
                time.sleep(WATCHED_S)

        recording = under_load(generator, rate, act)
        published = max(recording.version)
        during_loss = under_load(generator, rate, lambda: _lose(store.folder.parent))
        health = httpx.get(f"{url}/health", timeout=10).json()
    figures = [
        followed("publish", recording, began["publish"], pointed["publish"], 1, published, began["rollback"]),
        followed("rollback", recording, began["rollback"], pointed["rollback"], published, 1, float("inf")),
    ]
    figures.append(
        Figure(
            "requests failed or degraded while the model store is removed",
            "at most",
            0,
            "",
            during_loss.failed + during_loss.degraded,
            f"{len(during_loss.version):,} requests in {LOST_S:.0f} s; /health then says {health['status']}: "
            f"{', '.join(health['reasons'])}",
        )
    )
    return figures


def followed(what: str, recording: Recording, began: float, pointed: float, old: int, new: int, until: float) -> Figure:
    """Return the seconds from the pointer's change to the last answer of the version before."""
    answers = [
        (done, version)
        for due, done, version in zip(recording.due_s, recording.done_s, recording.version, strict=True)
        if began <= due < until
    ]
    title = f"`ctr {what}`: from the pointer's change until both workers answer with it"
    if not any(version == new for _, version in answers):
        return Figure(title, "at most", ASKED_S, "s", None, "no answer came from it")
    last = max((done for done, version in answers if version == old), default=pointed)
    note = f"{last - began:.1f} s from the start of the command, which checks the version first; "
    note += f"{recording.failed} of {len(recording.version):,} requests failed"
    return Figure(title, "at most", ASKED_S, "s", max(0.0, last - pointed), note)


def _move_out(testbed: Testbed, version: int) -> Path:
    """Move a published version out of the store, to be published again, and return its folder."""
    source = store_of(testbed, NAME).path(version)
    target = testbed.folder / "runs" / "fleet"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target)
        remove_folder(source)
    return target


def _run(testbed: Testbed, command: list[str]) -> None:
    """Run a `ctr` command. Raises SystemExit if it fails."""
    environment = {
        "CTR_MODEL_STORE": str(testbed.folder / "models"),
        "CTR_MODEL": NAME,
        "CTR_REDIS_URL": testbed.redis_url,
    }
    done = subprocess.run(
        [ctr(), *command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"error: ctr {' '.join(command)}: {done.stderr.strip()[-300:]}")


def _lose(folder: Path) -> None:
    """Remove the model store under load."""
    time.sleep(0.5)
    for version in folder.glob("*/[0-9]*"):
        remove_folder(version)
    shutil.rmtree(folder)
    time.sleep(LOST_S)


def _wait_for_both(url: str) -> None:
    """Wait until both workers are ready; either answers /health, so it is requested many times over new connections."""
    due, ready_in_a_row = time.monotonic() + 60, 0
    while ready_in_a_row < 20:
        ready_in_a_row = ready_in_a_row + 1 if httpx.get(f"{url}/health", timeout=5).json()["status"] == "ok" else 0
        if time.monotonic() > due:
            raise SystemExit("error: two workers do not become ready")
        time.sleep(0.02)
