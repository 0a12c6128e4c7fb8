"""A feature store that hangs, dies, comes back, refuses all reads, or is slower than the client's patience."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence

from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row
from benchmarks.faults.service import Service
from benchmarks.faults.store_server import StoreServer
from benchmarks.faults.timeline import Timeline

DEADLINE_MS = 100.0
SHORT_MS = (10.0, 20.0, 30.0, 31.0, 50.0)
TIMES = 20
NOTICED_S = 0.5
"""After so long under load every request has met the fault."""
READS = ("hgetall", "hmget", "mget", "hget")
CALL_RATIO = 1.2
SETTLED_S, UNREAD = 60.0, 50
"""At most so long, until fewer reads a second than these are sent without a load."""


@contextlib.contextmanager
def hung(store: StoreServer) -> Iterator[None]:
    """Hang the store for the block."""
    os.kill(store.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(store.pid, signal.SIGCONT)


def marked(during: Timeline) -> Check:
    """Return whether every answer of the outage says that it is degraded."""
    unmarked = len(during.answered) - int(during.answered.degraded.sum())
    return Check(f"{unmarked} of {len(during):,} answers of that time are not marked as degraded", unmarked == 0)


def full_again(timeline: Timeline, since: float, within_s: float) -> Check:
    """Return whether answers are full from so many seconds after a time on."""
    after = timeline.between(since, float("inf"))
    last = max((due - since for due, degraded in zip(after.due, after.degraded, strict=True) if degraded), default=0.0)
    return Check(f"full features {last:.2f} s after (at most {within_s:g})", last <= within_s and len(after) > 0)


def in_time(during: Timeline, deadline_ms: float = DEADLINE_MS) -> list[Check]:
    """Return whether none failed and p99 is within the deadline."""
    failed = during.server_errors + during.lost
    return [
        Check(f"{failed} of {len(during):,} requests 5xx or lost ({during.statuses()})", failed == 0),
        Check(
            f"p99 {during.p99_ms:.1f} ms (at most the deadline, {deadline_ms:.0f})",
            during.p99_ms <= deadline_ms,
            timed=True,
        ),
    ]


def _hangs(bed: FaultBed) -> Sequence[Check]:
    service, store = bed.with_store()
    with bed.load(service, store=store) as load:
        time.sleep(1.0)
        with hung(store):
            began = time.perf_counter()
            time.sleep(bed.seconds)
            ended = time.perf_counter()
        time.sleep(4.0)
    during = load.timeline.between(began, ended)
    return [
        *in_time(during),
        marked(load.timeline.between(began + NOTICED_S, ended - NOTICED_S)),
        full_again(load.timeline, ended, 1.0),
    ]


def _short_deadlines(bed: FaultBed) -> Sequence[Check]:
    service, store = bed.with_store()
    items = [str(number) for number in range(100)]
    checks = []
    for number in range(TIMES):  # whatever is slow the first time is not the store's fault
        service.rank(str(number), items)
    for ms in SHORT_MS:
        statuses = []
        # Each deadline meets a store that has just hung: nothing has been learned of it yet.
        for burst in range(4):
            with hung(store):
                statuses += [
                    service.rank(str(burst * 5 + n), items, timeout_ms=ms).status_code for n in range(TIMES // 4)
                ]
            service.holds_within(lambda health: health["status"] == "ok", 10)
        late = sum(status != 200 for status in statuses)
        checks.append(
            Check(f"{ms:g} ms: {late} of {len(statuses)} not answered from defaults", late == 0, timed=ms < 30)
        )
    return checks


def _dies(bed: FaultBed) -> Sequence[Check]:
    service, store = bed.with_store()
    with store.client() as client:
        client.save()
    with bed.load(service, store=store) as load:
        time.sleep(1.0)
        began = time.perf_counter()
        store.kill()
        time.sleep(max(2.0, 5 * min(1.0, bed.scale)))
        answers = store.start()
        time.sleep(5.0)
    during = load.timeline.between(began, answers)
    return [
        *in_time(during),
        marked(load.timeline.between(began + NOTICED_S, answers - NOTICED_S)),
        full_again(load.timeline, answers, 2.0),
    ]


def _refuses_reads(bed: FaultBed) -> Sequence[Check]:
    """The store answers, but each read with an error, as while it loads, is out of memory, or forbids them."""
    service, store = bed.with_store()
    _wait_until_unread(store)
    with store.client() as client, bed.load(service, store=store) as load:
        time.sleep(1.0)
        spans = []
        for forbid in (False, True):
            client.execute_command("ACL", "SETUSER", "default", *(f"{'-' if forbid else '+'}{name}" for name in READS))
            calls, connects, began = _calls(store), _connects(store), time.perf_counter()
            time.sleep(bed.seconds if forbid else min(10.0, bed.seconds / 2))
            taken = time.perf_counter() - began
            spans.append(((_calls(store) - calls) / taken, (_connects(store) - connects) / taken, began))
        client.execute_command("ACL", "SETUSER", "default", *(f"+{name}" for name in READS))
        allowed = time.perf_counter()
        time.sleep(4.0)
    (healthy, _, _), (failing, connects_s, began) = spans
    during = load.timeline.between(began, allowed)
    return [
        Check(
            f"{failing:.0f} calls a second to the failing store, {failing / max(healthy, 1e-9):.2f}x the healthy rate "
            f"of {healthy:.0f} (at most {CALL_RATIO})",
            failing <= CALL_RATIO * healthy,
        ),
        Check(f"{connects_s:.1f} new connections a second", connects_s <= 4),
        *in_time(during),
        marked(load.timeline.between(began + NOTICED_S, allowed - NOTICED_S)),
        full_again(load.timeline, allowed, 2.0),
    ]


def _wait_until_unread(store: StoreServer) -> None:
    """Wait until nothing is read without a load: after an outage the items are read again, for a while."""
    due = time.monotonic() + SETTLED_S
    while time.monotonic() < due:
        before = _calls(store)
        time.sleep(1.0)
        if _calls(store) - before <= UNREAD:
            return


def _calls(store: StoreServer) -> int:
    """Return how many reads were sent to the server, those it refused included."""
    with store.client() as client:
        of_commands: dict[str, dict[str, int]] = client.info("commandstats")  # type: ignore[assignment]
    stats = [of_commands.get(f"cmdstat_{name}", {}) for name in READS]
    return sum(int(one.get("calls", 0)) + int(one.get("rejected_calls", 0)) for one in stats)


def _connects(store: StoreServer) -> int:
    with store.client() as client:
        stats: dict[str, int] = client.info("stats")  # type: ignore[assignment]
        return int(stats["total_connections_received"])


def _wrong_password(bed: FaultBed) -> Sequence[Check]:
    """The password changes under the service: it is refused until it changes back."""
    lasts_s = max(3.0, 20 * min(1.0, bed.scale))
    with bed.store("refusing") as store, bed.service("refused", store=store) as service:
        with store.client() as client:
            lines = len(service.log_lines())
            client.config_set("requirepass", "another")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(lasts_s)
            health = service.health()
            logged = service.log_lines()[lines:]
            status = service.rank("1", ["1", "2"])
            client.config_set("requirepass", bed.secrets.password)
        back_s = service.holds_within(lambda health: health["status"] == "ok", 30)
    told = health["features"]["detail"]
    return [
        Check(
            f"{len(logged)} log lines in {lasts_s:.0f} s (at most {3 + lasts_s / 10:.0f})",
            len(logged) <= 3 + lasts_s / 10,
        ),
        Check(f"/health {health['status']}: {told}", health["status"] == "degraded" and _names_it(told)),
        Check("the log names it", any(_names_it(line) for line in logged)),
        Check(f"/rank {status.status_code}, {status.json()['degraded']}", bool(status.json()["degraded"])),
        Check(f"ok {back_s or float('nan'):.1f} s after the password is right again", back_s is not None),
        _no_secret(service, bed),
    ]


def _names_it(text: str) -> bool:
    return any(word in text for word in ("WRONGPASS", "NOAUTH", "password"))


def _no_secret(service: Service, bed: FaultBed) -> Check:
    found = [line for line in service.log_lines() if bed.secrets.password in line]
    return Check(f"{len(found)} log lines hold the password", not found)


ROWS = (
    Row(
        "short-deadlines",
        "a hung store and a short deadline",
        "room is kept for scoring from defaults: answered from 10 ms on",
        _short_deadlines,
        "found",
    ),
    Row(
        "store-refuses",
        "the store refuses (wrong password)",
        "backed off; the true reason in /health and the log, once; no word of the secret in either",
        _wrong_password,
        "found",
    ),
    Row(
        "store-hangs",
        "Redis stopped (SIGSTOP) for 60 s under load",
        "0 of 5xx, p99 at most the deadline (100 ms), all affected marked; full features 1 s after it goes on",
        _hangs,
    ),
    Row(
        "store-dies",
        "Redis killed and started again",
        "full features at most 2 s after it answers",
        _dies,
    ),
    Row(
        "store-fails",
        "store failing for 60 s",
        "calls sent to it at most 1.2x the healthy rate",
        _refuses_reads,
    ),
)
