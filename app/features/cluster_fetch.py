"""`ClusterFetch`: one fetch from a cluster, a pipeline to each node that has some of its keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis.crc import key_slot
from redis.exceptions import AskError, MovedError

from app.errors import StoreError
from app.features.cluster_links import ClusterLinks
from app.features.cluster_topology import Address
from app.features.hash_command import HashCommand
from app.features.redis_link import RedisLink
from app.features.resp_commands import pack_command
from app.features.store import Listener, RawFeatures
from app.features.stored_hashes import StoredHashes

ROUNDS = 3
"""A read, and what follows MOVED and ASK, in the time of one."""
ASKING = pack_command("ASKING")
ELSEWHERE = ("MOVED", "ASK", "TRYAGAIN")
"""First words of errors by which a node says that another has the key."""
NOTHING_READ = "no node of the cluster has answered in time"


def hash_slot(key: str) -> int:
    """Return the hash slot of a key, which is that of what is between the first braces, if it has some."""
    return key_slot(key.encode("utf-8", "surrogatepass"))


class _Read(NamedTuple):
    """A key that is read."""

    position: int
    """Where its features go."""
    item_id: str | None
    """None for the user."""
    command: HashCommand
    packed: bytes
    slot: int
    asking: bool = False
    """Whether it is asked of a node that is about to get the slot."""


class ClusterFetch:
    """What one fetch reads, and what it has got so far. Replies that come too late still go to the listener."""

    def __init__(self, links: ClusterLinks, hashes: StoredHashes, listener: Listener | None) -> None:
        """Read nothing yet."""
        self._links, self._hashes, self._listener = links, hashes, listener
        self._reads: list[_Read] = []
        self._results: list[RawFeatures | None] = []
        self._redirected: dict[Address, list[_Read]] = {}
        self._reasons: list[str] = []
        self._user_id = ""

    def add_user(self, user_id: str) -> None:
        """Read a user."""
        self._user_id = user_id
        self._add(None, self._hashes.user_command(user_id), self._hashes.user_key.key(user_id))

    def add_item(self, item_id: str) -> None:
        """Read an item."""
        self._add(item_id, self._hashes.item_hash, self._hashes.item_key.key(item_id))

    async def run(self, timeout_s: float) -> Sequence[RawFeatures | None]:
        """Return the features in the order in which they were added, None for what could not be read.

        Raises StoreError if nothing could.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + timeout_s
        by_node: dict[Address, list[_Read]] = {}
        for read in self._reads:
            if (owner := self._links.owner(read.slot)) is not None:
                by_node.setdefault(owner, []).append(read)
        for round_number in range(ROUNDS):
            left_s = due - loop.time() if round_number else timeout_s
            if not by_node or left_s <= 0:
                break
            self._redirected = {}
            work = [self._read_from(address, reads, left_s) for address, reads in by_node.items()]
            await (work[0] if len(work) == 1 else asyncio.gather(*work))
            by_node = self._redirected
        if self._results.count(None) == len(self._results):
            raise StoreError(self._reasons[0] if self._reasons else self._links.problem or NOTHING_READ)
        return tuple(self._results)

    def _add(self, item_id: str | None, command: HashCommand, key: str) -> None:
        self._reads.append(_Read(len(self._reads), item_id, command, command.pack(key), hash_slot(key)))
        self._results.append(None)

    async def _read_from(self, address: Address, reads: Sequence[_Read], timeout_s: float) -> None:
        """Read from one node; what it does not have is redirected."""
        link, generation = self._links.link(address), self._links.generation
        commands = [ASKING + read.packed if read.asking else read.packed for read in reads]
        count = len(reads) + sum(read.asking for read in reads)

        def on_replies(replies: list[Any]) -> None:
            answers = iter(replies)
            pairs = []
            for read in reads:
                if read.asking:
                    next(answers)
                pairs.append((read, next(answers)))
            self._take(address, link, pairs, generation)

        try:
            await link.send(b"".join(commands), count, timeout_s, on_replies)
        except StoreError as error:
            self._reasons.append(str(error))

    def _take(self, address: Address, link: RedisLink, pairs: Iterable[tuple[_Read, Any]], generation: int) -> None:
        """Take replies in, and give the items among them to the listener."""
        ids: list[str] = []
        items: list[RawFeatures] = []
        slots: list[int] = []
        doubtful: list[str] = []
        for read, reply in pairs:
            features = read.command.features(reply)
            if features is None and str(reply).startswith(ELSEWHERE):
                self._redirect(address, read, str(reply))
                continue
            if features is None:
                features = self._hashes.on_error(reply, link.problem)
            if features is None:
                self._reasons.append(f"the feature store answered with an error: {str(reply).partition(' ')[0]}")
                continue
            self._results[read.position] = features
            if read.item_id is None:
                self._hashes.note_user(self._user_id, read.command, reply)
                continue
            ids.append(read.item_id)
            items.append(features)
            slots.append(read.slot)
            # The node that is about to get a slot may not get it, and a version that went live reads other fields.
            exact = not read.asking and read.command is self._hashes.item_hash
            if not exact or not self._links.trusted(read.slot, generation):
                doubtful.append(read.item_id)
        if self._listener is not None and ids:
            self._listener.on_items(ids, items, slots)
            if doubtful:
                self._listener.on_invalidate(doubtful)

    def _redirect(self, address: Address, read: _Read, reply: str) -> None:
        """Follow MOVED and ASK, which name a slot and a node."""
        kind, _, rest = reply.partition(" ")
        if kind == "TRYAGAIN":
            return
        error: Any = (MovedError if kind == "MOVED" else AskError)(rest)
        target: Address = (error.host or address[0], error.port)
        if kind == "MOVED":
            self._links.move(read.slot, target)
        else:
            self._links.redirect(target)
        self._redirected.setdefault(target, []).append(read._replace(asking=kind == "ASK"))
