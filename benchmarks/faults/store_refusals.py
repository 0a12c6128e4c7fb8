"""Stores that connect and cannot be read: a cluster's node, a Sentinel's port, an ACL without the keys."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row
from benchmarks.faults.store_server import SentinelServer, StoreServer

WORDS = {
    "a cluster's node": ("cluster",),
    "a Sentinel's port": ("sentinel",),
    "an ACL without the keys": ("NOPERM", "ACL", "permission"),
}
"""Case to the words of which one has to be in what /health says."""


@contextlib.contextmanager
def _cluster_node(bed: FaultBed) -> Iterator[str]:
    """Run a node that has 100 slots of 16,384."""
    folder = bed.testbed.folder / "node"
    folder.mkdir()
    options = ("--cluster-enabled", "yes")
    with StoreServer(folder, bed.secrets.password, bed.testbed.other_core, *options) as node, node.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "99")
        yield node.url


@contextlib.contextmanager
def _sentinel_port(bed: FaultBed) -> Iterator[str]:
    folder = bed.testbed.folder / "sentinel-port"
    folder.mkdir()
    with SentinelServer(folder, bed.secrets.password, bed.testbed.other_core, master_port=1) as sentinel:
        yield sentinel.url


@contextlib.contextmanager
def _other_keys(bed: FaultBed) -> Iterator[str]:
    """Let a user read other keys than the features'."""
    with bed.store("acl") as store, store.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "ranker", "on", f">{bed.secrets.password}", "+@all", "~other:*", "resetchannels"
        )
        yield store.url.replace("redis://:", "redis://ranker:")


def _cannot_be_read(bed: FaultBed) -> Sequence[Check]:
    checks = []
    for case, start in (
        ("a cluster's node", _cluster_node),
        ("a Sentinel's port", _sentinel_port),
        ("an ACL without the keys", _other_keys),
    ):
        name = f"unreadable-{len(checks)}"
        with (
            start(bed) as url,
            bed.service(name, settings={"CTR_REDIS_URL": url, "CTR_LOG_LEVEL": "info"}, ready=False) as service,
        ):
            live = service.holds_within(lambda health: health["model"]["version"] is not None)
            health = service.health()
            answer = service.rank("1", ["1", "2"])
            after = service.health()
            lines = [line for line in service.log_lines() if "warning" in line or "error" in line]
        detail = str(health["features"]["detail"])
        told = any(word.lower() in detail.lower() for word in WORDS[case])
        ok = live is not None and health["status"] == after["status"] == "degraded" and told
        checks += [
            Check(f"{case}: /health {health['status']}: {detail}", ok),
            Check(
                f"{case}: /rank {answer.status_code} {answer.json().get('degraded')}",
                answer.status_code == 200 and bool(answer.json().get("degraded")),
            ),
            Check(f"{case}: {len(lines)} warnings", 0 < len(lines) <= 4),
        ]
    return checks


ROWS = (
    Row(
        "store-unreadable",
        "a cluster's node, a Sentinel's port, an ACL without the keys",
        "found out at connect by reading; /health by what reads do, with the reason",
        _cannot_be_read,
        "found",
    ),
)
