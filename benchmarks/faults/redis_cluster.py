"""`RedisCluster` and `SentinelGroup`: several real servers that fail over by themselves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from redis.cluster import ClusterNode, key_slot

from app.features.loading.synthetic import SyntheticCatalogue
from benchmarks.faults.store_server import SentinelServer, StoreServer
from benchmarks.testbed import ITEM_KEY, USER_KEY

SLOTS = 16_384
MASTERS = 3
SLOTS_OF = [range(number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS) for number in range(MASTERS)]
"""The slots of each master before any of them moves."""
JOIN_S = 60.0
NODE_TIMEOUT_MS = 1000
MIGRATED_AT_ONCE, SLOTS_AT_ONCE = 200, 64


def node_of(key: str) -> int:
    """Return the number of the master that a key is on before any slot moves."""
    slot = key_slot(key.encode())
    return next(number for number, slots in enumerate(SLOTS_OF) if slot in slots)


def until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something holds. Raises SystemExit if it does not in time."""
    due = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if holds():
                return
        if time.monotonic() > due:
            raise SystemExit(f"error: {what} after {seconds:.0f} s")
        time.sleep(0.05)


class RedisCluster:
    """Three masters, each with a replica."""

    def __init__(self, folder: Path, password: str, core: set[int]) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--appendonly", "no")
        self._password = password
        self.nodes = []
        for number in range(2 * MASTERS):
            of_node = folder / f"node-{number}"
            of_node.mkdir(parents=True)
            self.nodes.append(StoreServer(of_node, password, core, *options))
        self._stack = contextlib.ExitStack()

    @property
    def masters(self) -> list[StoreServer]:
        return self.nodes[:MASTERS]

    @property
    def replicas(self) -> list[StoreServer]:
        """The replica of each master, in their order."""
        return self.nodes[MASTERS:]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.masters)
        return f"redis+cluster://:{self._password}@{hosts}"

    def __enter__(self) -> RedisCluster:
        try:
            for node in self.nodes:
                self._stack.enter_context(node)
            self._join()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _join(self) -> None:
        """Share the slots out, have the nodes meet, and give each master a replica."""
        for epoch, (node, slots) in enumerate(zip(self.masters, SLOTS_OF, strict=True), 1):
            self.ask(node, "CLUSTER", "ADDSLOTSRANGE", slots[0], slots[-1])
            self.ask(node, "CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for node in self.nodes[1:]:
            self.ask(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port)
        until(lambda: all(self._knows_all(node) for node in self.nodes), JOIN_S, "the nodes do not know one another")
        for master, replica in zip(self.masters, self.replicas, strict=True):
            self.ask(replica, "CLUSTER", "REPLICATE", self.id_of(master))
        until(lambda: all(self._agrees(node) for node in self.nodes), JOIN_S, "the nodes do not agree on the slots")

    def ask(self, node: StoreServer, *words: Any) -> Any:
        """Send a command to one node."""
        with node.client() as client:
            return client.execute_command(*words)

    def id_of(self, node: StoreServer) -> str:
        return str(self.ask(node, "CLUSTER", "MYID"))

    def _knows_all(self, node: StoreServer) -> bool:
        return int(self.info(node)["cluster_known_nodes"]) == len(self.nodes)

    def _agrees(self, node: StoreServer) -> bool:
        """Whether a node serves, and knows each master's slots and its replica."""
        shared_out = [
            [slots[0], slots[-1], master.port, replica.port]
            for slots, master, replica in zip(SLOTS_OF, self.masters, self.replicas, strict=True)
        ]
        ranges = self.ask(node, "CLUSTER", "SLOTS")
        named = [[first, last, *(port for _, port, *_ in nodes)] for first, last, *nodes in ranges]
        return self.info(node)["cluster_state"] == "ok" and sorted(named) == shared_out

    def info(self, node: StoreServer) -> dict[str, str]:
        with node.client() as client:
            return dict(client.cluster("INFO"))

    def client(self) -> redis.RedisCluster[str]:
        """Return a client of the whole cluster; the caller closes it."""
        nodes = [ClusterNode("127.0.0.1", node.port) for node in self.masters]
        return redis.RedisCluster(startup_nodes=nodes, password=self._password, decode_responses=True)

    def load(self, catalogue: SyntheticCatalogue) -> None:
        """Write the catalogue's features, each entity to its node, and wait until the replicas have them."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(node.client()) for node in self.masters]
            pipelines = [client.pipeline(transaction=False) for client in clients]
            for side, key in (("user", USER_KEY), ("item", ITEM_KEY)):
                for number, raw in enumerate(catalogue.raw(side, 0, catalogue.count(side))):  # type: ignore[arg-type]
                    name = key.key(str(number))
                    pipelines[node_of(name)].hset(name, mapping=raw)
            for client, pipeline in zip(clients, pipelines, strict=True):
                pipeline.execute()
                client.wait(1, 5000)

    def move_slots(self, source: StoreServer, target: StoreServer, slots: range) -> Iterator[int]:
        """Move slots with their keys from one node to another, as `redis-cli --cluster reshard` does.

        Yields the number of slots that have moved, after every SLOTS_AT_ONCE: a node writes its configuration to disk
        after each batch of commands.
        """
        ids = {node: self.id_of(node) for node in (source, target)}
        with contextlib.ExitStack() as stack:
            clients = {node: stack.enter_context(node.client()) for node in self.masters}
            for start in range(slots.start, slots.stop, SLOTS_AT_ONCE):
                batch = range(start, min(start + SLOTS_AT_ONCE, slots.stop))
                _set_slots(clients[target], batch, "IMPORTING", ids[source])
                _set_slots(clients[source], batch, "MIGRATING", ids[target])
                for slot in batch:
                    while keys := clients[source].execute_command("CLUSTER", "GETKEYSINSLOT", slot, MIGRATED_AT_ONCE):
                        address = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH", self._password)
                        clients[source].execute_command(*address, "KEYS", *keys)
                for node in (target, source, *(node for node in self.masters if node not in ids)):
                    _set_slots(clients[node], batch, "NODE", ids[target])
                yield batch.stop - slots.start


def _set_slots(client: redis.Redis, slots: range, state: str, node: str) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for slot in slots:
            pipeline.execute_command("CLUSTER", "SETSLOT", slot, state, node)
        pipeline.execute()


class SentinelGroup:
    """A master with a replica, and three Sentinels that watch them."""

    SENTINELS = 3

    def __init__(self, folder: Path, password: str, core: set[int]) -> None:
        self._password, self._folder, self._core = password, folder, core
        self._stack = contextlib.ExitStack()
        self.sentinels: list[SentinelServer] = []

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://:{self._password}@{hosts}/mymaster/0?sentinel_password={self._password}"

    def __enter__(self) -> SentinelGroup:
        try:
            self.master = self._stack.enter_context(StoreServer(self._made("master"), self._password, self._core))
            following = ("--replicaof", "127.0.0.1", str(self.master.port))
            replica = StoreServer(self._made("replica"), self._password, self._core, *following)
            self.replica = self._stack.enter_context(replica)
            for number in range(self.SENTINELS):
                folder = self._made(f"sentinel-{number}")
                sentinel = SentinelServer(
                    folder, self._password, self._core, master_port=self.master.port, quorum=self.SENTINELS - 1
                )
                self.sentinels.append(self._stack.enter_context(sentinel))
            until(self._all_know, JOIN_S, "the Sentinels do not know one another")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(parents=True)
        return folder

    def _all_know(self) -> bool:
        """Whether each Sentinel knows the replica and the other Sentinels."""
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state = client.sentinel_masters()["mymaster"]
                if int(state["num-slaves"]) < 1 or int(state["num-other-sentinels"]) < self.SENTINELS - 1:
                    return False
        return True
