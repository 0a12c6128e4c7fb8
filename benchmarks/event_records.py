"""Measure whether the event log has what was answered: `python -m benchmarks.event_records`.

`again`: three versions answer in turn, requests with values of their own, guests and explained ones among them, and for
the last part the store is gone. Every score that is recorded is then computed again from what is recorded.

`killed`: the service is ended by SIGKILL under load, and started again. Answers that were given a second before it or
earlier have to be in the log.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import uvloop

from app.events.records import IMPRESSIONS
from app.events.segment import segments
from app.features.loading.synthetic import SyntheticCatalogue
from benchmarks import machine
from benchmarks.process import Process, ctr
from benchmarks.soak.recording import RecordedLoad, Recording
from benchmarks.soak.versions import publish, store_of
from benchmarks.testbed import Testbed, set_up

CANDIDATES, BODIES, CONNECTIONS = 500, 400, 16
RATE = 300.0
"""Requests a second: less than half of what an old core answers."""
VERSIONS = 3
LOST_S = 1.0
"""Answers of the last second before a SIGKILL may be lost."""
LOAD_S, LIVE_S = 6.0, 30.0


class Answer(msgspec.Struct):
    """The part of an answer that names its impression."""

    request_id: str


def bodies_of(catalogue: SyntheticCatalogue) -> list[bytes]:
    """Return requests, a third of them with values of their own, a tenth of guests and a few to be explained."""
    dice = random.Random(16)
    names, bodies = catalogue.names("item"), []
    for number in range(BODIES):
        ids = [str(item) for item in dice.sample(range(catalogue.items), CANDIDATES)]
        body: dict[str, Any] = {"user_id": str(dice.randrange(catalogue.users)), "item_ids": ids}
        if number % 3 == 0:
            some = dice.sample(ids, 20)
            body["item_features"] = {item: {dice.choice(names): str(dice.randrange(1000))} for item in some}
        if number % 5 == 0:
            body["user_features"] = {catalogue.names("user")[0]: str(dice.randrange(1000))}
        if number % 10 == 0:
            del body["user_id"]
        if number % 50 == 0:
            body["explain"] = True
        bodies.append(msgspec.json.encode(body))
    return bodies


def ids_of(recording: Recording) -> list[str]:
    """Return the ids of the impressions that were answered, in the order of the answers."""
    return [msgspec.json.decode(body, type=Answer).request_id for body in recording.bodies]


def answered(url: str, bodies: list[bytes], until: Callable[[Recording], bool]) -> Recording:
    """Send requests until `until` says of what came back that it will do, and return that."""
    recording = Recording(keep_each=1)
    load = RecordedLoad(url, bodies)
    send = load.recorded(RATE, lambda: until(recording), connections=CONNECTIONS, recording=recording)
    return uvloop.run(send)


def score_again(testbed: Testbed, rows: int) -> dict[str, Any]:
    """Record that many items of answers, score them again, and return the figures."""
    folder = testbed.folder / "events"
    settings = {"CTR_EVENTS": str(folder), "CTR_EVENTS_TOP": str(CANDIDATES), "CTR_POLL_S": "0.2"}
    bodies, counts = bodies_of(testbed.catalogue), {"answers": 0, "degraded": 0, "failed": 0}
    answers: set[str] = set()
    parts = VERSIONS + 1
    publish(testbed, "bench", range(1, VERSIONS))
    with testbed.service("logged", settings=settings) as (process, url):
        for part in range(1, parts + 1):
            if part <= VERSIONS:
                make_live(testbed, process, url, part)
            elif testbed.store is not None:
                testbed.store.kill()
            recording = answered(url, bodies, lambda sent: len(sent.status) * CANDIDATES * parts >= rows)
            answers.update(ids_of(recording))
            counts["answers"] += recording.status.count(200)
            counts["degraded"] += recording.degraded
            counts["failed"] += recording.failed
        process.stop()
    logged = pl.concat(list(impressions(folder)))
    command = [ctr(), "events", "check", "--events", str(folder), "--json"]
    environment = {**os.environ, "CTR_MODEL_STORE": str(testbed.folder / "models")}
    began = time.monotonic()
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    took_s = round(time.monotonic() - began, 1)
    return {
        **counts,
        "of these recorded": len(answers & set(logged["impression_id"])),
        **json.loads(checked.stdout),
        "exit status of the check": checked.returncode,
        "seconds to check": took_s,
    }


def kill_under_load(testbed: Testbed) -> dict[str, Any]:
    """Kill the service under load, start it again, and return how many answers are lost, and of which age."""
    folder = testbed.folder / "events"
    settings = {"CTR_EVENTS": str(folder)}
    bodies = testbed.bodies(CANDIDATES)
    with testbed.service("killed", settings=settings) as (process, url):
        began, killed_at = time.perf_counter(), 0.0

        def kill(_: Recording) -> bool:
            nonlocal killed_at
            if time.perf_counter() - began < LOAD_S:
                return False
            killed_at = killed_at or time.perf_counter()
            process.kill()
            return True

        recording = answered(url, bodies, kill)
    with testbed.service("again", settings=settings) as (process, _):
        process.stop()
    logged = set(pl.concat(list(impressions(folder)))["impression_id"])
    done_s = [done for done, status in zip(recording.done_s, recording.status, strict=True) if status == 200]
    ages_s = {name: killed_at - done for name, done in zip(ids_of(recording), done_s, strict=True)}
    early = {name for name, age_s in ages_s.items() if age_s > LOST_S}
    lost_s = [age_s for name, age_s in ages_s.items() if name not in logged]
    return {
        "answers": len(ages_s),
        "of these recorded": len(ages_s.keys() & logged),
        f"answers given {LOST_S:g} s before or earlier": len(early),
        "of these recorded, too": len(early & logged),
        "the earliest that is lost was given (s before)": round(max(lost_s, default=0.0), 3),
    }


def impressions(folder: Path) -> Iterator[pl.DataFrame]:
    """Read the answers of a log."""
    for _, path in segments(folder, IMPRESSIONS):
        yield pl.read_parquet(path, columns=["impression_id"])


def make_live(testbed: Testbed, process: Process, url: str, version: int) -> None:
    """Make a version the stable one, and wait until it answers."""
    store_of(testbed, "bench").update_pointer(stable=version)
    process.wait_until(lambda: httpx.get(f"{url}/health").json()["model"]["version"] == version, LIVE_S)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["again", "killed"])
    parser.add_argument("--rows", type=int, default=1_000_000, help="items of answers to score again")
    options = parser.parse_args()
    with set_up(SyntheticCatalogue(users=1000, items=5000), *machine.cores()) as testbed:
        figures = score_again(testbed, options.rows) if options.what == "again" else kill_under_load(testbed)
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
