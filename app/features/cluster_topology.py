"""`ClusterTopology`: which node of a cluster has which hash slots, as the first node that answers says."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis
import redis.cluster

from app.errors import StoreError
from app.features.store_errors import explain_failure, explain_reply
from app.redis_url import RedisUrl
from app.url_host import url_host

Address = tuple[str, int]
"""Host and port of a node."""
ANSWER_S = 0.5
"""How long one node is waited for: there are others."""
_untyped_cluster: Any = redis.cluster


def node_url(url: RedisUrl, address: Address) -> RedisUrl:
    """Return the URL of one node of the cluster at a URL."""
    return dataclasses.replace(url, host=address[0], port=address[1], cluster_nodes=())


def node_name(address: Address) -> str:
    """Return a node's name for people."""
    return f"{url_host(address[0])}:{address[1]}"


class ClusterTopology:
    """Asks nodes for the owners of the hash slots. Its methods wait; one call at a time."""

    def __init__(self, url: RedisUrl, connect: Callable[[RedisUrl, float], redis.Redis]) -> None:
        """
        Args:
            url: names some of the nodes.
            connect: returns a client of one server; the second argument is how many seconds it waits.
        """
        self._url, self._connect = url, connect
        self._clients: dict[Address, redis.Redis] = {}

    def read(self, known: Sequence[Address]) -> Mapping[tuple[int, int], Address]:
        """Return the master of each range of slots, first and last, as one node says.

        Args:
            known: nodes to ask before those that the URL names.

        Raises StoreError if none of them answers.
        """
        reason = "the URL names none"
        for address in dict.fromkeys((*known, *self._url.cluster_nodes)):
            try:
                if ranges := self._ask(address):
                    return ranges
                reason = f"{node_name(address)}: it is in no cluster"
            except redis.RedisError as error:
                self._forget(address)
                refused = isinstance(error, redis.ResponseError)
                why = explain_reply(error) if refused else explain_failure(error, tls=self._url.tls is not None)
                reason = f"{node_name(address)}: {why}"
            except (LookupError, TypeError, ValueError):
                reason = f"{node_name(address)}: it does not answer CLUSTER SLOTS as a node does"
        raise StoreError(f"no node of the cluster names the others: {reason}")

    def close(self) -> None:
        """Close all connections."""
        for address in tuple(self._clients):
            self._forget(address)

    def _ask(self, address: Address) -> Mapping[tuple[int, int], Address]:
        if address not in self._clients:
            self._clients[address] = self._connect(node_url(self._url, address), ANSWER_S)
        untyped: Any = self._clients[address]
        reply = untyped.execute_command("CLUSTER SLOTS")
        ranges = _untyped_cluster.parse_cluster_slots(reply, current_host=address[0])
        return {slots: _address(shard["primary"], address) for slots, shard in ranges.items()}

    def _forget(self, address: Address) -> None:
        client = self._clients.pop(address, None)
        if client is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                client.close()


def _address(primary: tuple[str, int], asked: Address) -> Address:
    """Return a node's address; one that does not know its own name is reached as the one that was asked."""
    host, port = primary
    return (asked[0] if host in ("", "?") else host), int(port)
