"""`Cluster`: three real masters that share the hash slots, and each its replica if a test wants one to fail over to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from app.features.loading.valkey_server import free_port
from tests.redis_servers import RedisServer, servers
from tests.waiting import until

SLOTS, MASTERS = 16_384, 3
PROGRAM = next(iter(servers().values()))


class Cluster:
    """Nodes by number; all end with the block."""

    def __init__(self, folder: Path, *, replicas: bool = False) -> None:
        self.nodes: list[RedisServer] = []
        for number in range(2 * MASTERS if replicas else MASTERS):
            of_node = folder / f"node-{number}"
            of_node.mkdir(parents=True)
            options = "--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000"
            sync = "--repl-diskless-sync-delay", "0"
            self.nodes.append(RedisServer(PROGRAM, of_node, *options, *sync))
        self._stack = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """A URL of which the first node does not answer, and the others name the rest."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[1:3])
        return f"redis+cluster://127.0.0.1:1,{hosts}"

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            for number, node in enumerate(self.nodes[:MASTERS]):
                first, last = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS - 1
                self.ask(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
                self.ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for node in self.nodes[1:]:
                bus = self.ask(node, "CONFIG", "GET", "cluster-port")[1]
                self.ask(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
            wait(lambda: all(int(self.info(node)["cluster_known_nodes"]) == len(self.nodes) for node in self.nodes))
            for master, replica in zip(self.nodes, self.nodes[MASTERS:], strict=False):
                self.ask(replica, "CLUSTER", "REPLICATE", self.ask(master, "CLUSTER", "MYID"))
            wait(lambda: all(self.info(node)["cluster_state"] == "ok" for node in self.nodes))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, node: RedisServer, *words: Any) -> Any:
        """Send a command to one node."""
        with node.client as client:
            return client.execute_command(*words)

    def info(self, node: RedisServer) -> dict[str, str]:
        """Return what a node says of the cluster."""
        with node.client as client:
            return dict(client.cluster("INFO"))

    @contextlib.contextmanager
    def moving(self, key: str, source: int, target: int) -> Iterator[None]:
        """Move the slot of a key: within the block its keys have moved, and the slot has not."""
        slot = key_slot(key.encode())
        nodes = self.nodes[source], self.nodes[target]
        ids = [self.ask(node, "CLUSTER", "MYID") for node in nodes]
        self.ask(nodes[1], "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        self.ask(nodes[0], "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        keys = self.ask(nodes[0], "CLUSTER", "GETKEYSINSLOT", slot, 1000)
        self.ask(nodes[0], "MIGRATE", "127.0.0.1", nodes[1].port, "", 0, 5000, "KEYS", *keys)
        yield
        for node in (nodes[1], nodes[0], *(n for n in self.nodes[:MASTERS] if n not in nodes)):
            self.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", ids[1])


def node_of(key: str) -> int:
    """Return the number of the master that has a key before any slot moves."""
    return next(n for n in range(MASTERS) if key_slot(key.encode()) < (n + 1) * SLOTS // MASTERS)


def wait(holds: Callable[[], object]) -> None:
    """Wait until something holds of nodes that may not answer yet."""

    def holds_by_now() -> object:
        with contextlib.suppress(redis.RedisError):
            return holds()
        return False

    until(holds_by_now)
