"""Cluster and Sentinel: a node that hangs, masters that die."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from benchmarks.faults.bed import STORE_SETTINGS, FaultBed
from benchmarks.faults.redis_cluster import RedisCluster, SentinelGroup, node_of, until
from benchmarks.faults.row import Check, Row
from benchmarks.faults.store_outage import full_again, in_time
from benchmarks.testbed import USER_KEY

BACK_S = 4.0
LIVE_SHARE = 0.6
HUNG_REQUESTS, HUNG_ITEMS = 40, 60
TOLERANCE = 1e-4
FAILOVER_S = 30.0
UNCACHED = {"CTR_ITEM_CACHE_WARM": "false"}


@contextlib.contextmanager
def cluster_of(bed: FaultBed, name: str) -> Iterator[RedisCluster]:
    with RedisCluster(bed.testbed.folder / name, bed.secrets.password, bed.testbed.other_core) as cluster:
        cluster.load(bed.testbed.catalogue)
        yield cluster


def _hung_node(bed: FaultBed) -> Sequence[Check]:
    """One node hangs and no replica may take its place; nothing is cached before."""
    catalogue = bed.testbed.catalogue
    dice, live, items, marked = random.Random(2), 0, 0, 0
    settings = {**STORE_SETTINGS, **UNCACHED}
    artifact = artifact_of(bed)
    with cluster_of(bed, "cluster-hung") as cluster:
        for node in cluster.nodes:
            cluster.ask(node, "CONFIG", "SET", "cluster-node-timeout", 600_000)
        users = [n for n in range(catalogue.users) if node_of(USER_KEY.key(str(n))) != 0]
        with bed.service("cluster-hung", settings={"CTR_REDIS_URL": cluster.url, **settings}, ready=False) as service:
            if service.holds_within(lambda health: health["status"] == "ok") is None:
                raise SystemExit(f"error: the service does not connect: {service.health()['features']['detail']}")
            with bed.load(service) as load:
                time.sleep(1.0)
                os.kill(cluster.masters[0].pid, signal.SIGSTOP)
                began = time.perf_counter()
                try:
                    time.sleep(0.3)
                    for _ in range(HUNG_REQUESTS):
                        user, numbers = dice.choice(users), dice.sample(range(catalogue.items), HUNG_ITEMS)
                        answer = service.rank(str(user), [str(number) for number in numbers]).json()
                        expected = scores_of(
                            artifact, bed, user, [catalogue.raw("item", n, n + 1)[0] for n in numbers], numbers
                        )
                        items += len(numbers)
                        live += sum(abs(expected[i["item_id"]] - i["score"]) < TOLERANCE for i in answer["items"])
                        marked += bool(answer["degraded"])
                    ended = time.perf_counter()
                finally:
                    os.kill(cluster.masters[0].pid, signal.SIGCONT)
                time.sleep(3.0)
    share = live / max(items, 1)
    return [
        Check(f"{share:.0%} of {items:,} items had their features (at least {LIVE_SHARE:.0%})", share >= LIVE_SHARE),
        Check(f"{marked} of {HUNG_REQUESTS} answers say that something was missing", marked > 0),
        *in_time(load.timeline.between(began, ended)),
        full_again(load.timeline, ended, BACK_S),
    ]


def _killed_node(bed: FaultBed) -> Sequence[Check]:
    with cluster_of(bed, "cluster-killed") as cluster:
        settings = {"CTR_REDIS_URL": cluster.url, **STORE_SETTINGS}
        with bed.service("cluster-killed", settings=settings) as service, bed.load(service) as load:
            time.sleep(1.0)
            began = time.perf_counter()
            cluster.masters[0].kill()
            until(
                lambda: (
                    cluster.ask(cluster.replicas[0], "ROLE")[0] == "master"
                    and cluster.info(cluster.masters[1])["cluster_state"] == "ok"
                ),
                FAILOVER_S,
                "no replica took over",
            )
            failed_over = time.perf_counter()
            time.sleep(BACK_S + 3.0)
    return [
        *in_time(load.timeline.between(began, failed_over + BACK_S)),
        Check(f"the cluster failed over after {failed_over - began:.1f} s", True),
        full_again(load.timeline, failed_over, BACK_S),
    ]


def artifact_of(bed: FaultBed) -> Artifact:
    torch.set_num_threads(1)
    return load(bed.testbed.versions["bench"])


def scores_of(
    artifact: Artifact, bed: FaultBed, user: int, items: list[dict[str, Any]], numbers: list[int]
) -> dict[str, float]:
    """Return what the version's plain program gives for these items with these features."""
    encoded = artifact.user_encoder.encode(bed.testbed.catalogue.raw("user", user, user + 1)[0], str(user))
    names = [str(number) for number in numbers]
    scores = artifact.score_by_forward(encoded, artifact.item_encoder.encode_many(items, names))
    return dict(zip(names, map(float, scores), strict=True))


def _sentinel(bed: FaultBed) -> Sequence[Check]:
    folder = bed.testbed.folder / "sentinels"
    with SentinelGroup(folder, bed.secrets.password, bed.testbed.other_core) as group:
        group.master.load(bed.testbed.catalogue)
        with group.master.client() as client:
            client.wait(1, 10_000)
        settings = {"CTR_REDIS_URL": group.url, **STORE_SETTINGS}
        with bed.service("sentinel", settings=settings) as service, bed.load(service) as load:
            time.sleep(1.0)
            began = time.perf_counter()
            group.master.kill()
            until(lambda: _role(group) == "master", FAILOVER_S, "the replica did not take over")
            failed_over = time.perf_counter()
            time.sleep(BACK_S + 3.0)
            health = service.health()
    return [
        *in_time(load.timeline.between(began, failed_over + BACK_S)),
        full_again(load.timeline, began, BACK_S),
        Check(
            f"the replica is the master after {failed_over - began:.1f} s; /health {health['status']}",
            health["status"] == "ok",
        ),
    ]


def _role(group: SentinelGroup) -> str:
    with group.replica.client() as client:
        return str(client.execute_command("ROLE")[0])


ROWS = (
    Row(
        "cluster-hung",
        "Cluster of 3: one node hung",
        "at least 60 % of items with live features, p99 at most the deadline",
        _hung_node,
    ),
    Row(
        "cluster-killed",
        "Cluster of 3: one node killed and failed over",
        "0 of 5xx, full within 4 s of the failover",
        _killed_node,
    ),
    Row("sentinel", "Sentinel failover, down-after 1 s", "0 of 5xx, features back within 4 s", _sentinel),
)
