"""`ClusterLinks`: a connection to each master of a cluster, and which of them has which hash slot.

Slots move: by MOVED, by a report from a node that should not have the key, or by the topology, which is read regularly.
Whenever one does, what was read of it before counts as possibly out of date (docs/adr/0027).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

import structlog

from app.errors import StoreError
from app.features.cluster_topology import Address, ClusterTopology
from app.features.redis_link import RedisLink
from app.features.row_hash_slots import HASH_SLOTS

log = structlog.get_logger(__name__)

REFRESH_S, TROUBLED_REFRESH_S = 1.0, 0.25
"""How often the topology is read, and while a node is lost or has moved slots."""
UNUSED_S = 10.0
"""How long a node is kept connected that has no slots: it may have some again, by the word of another node."""


class ClusterLinks:
    """The masters of one cluster."""

    def __init__(
        self,
        topology: ClusterTopology,
        open_link: Callable[[Address], RedisLink],
        on_slots_lost: Callable[[Sequence[int]], None],
    ) -> None:
        """Connect nothing yet.

        Args:
            open_link: returns a link to a node, not started.
            on_slots_lost: called with slots of which what was read before may be out of date.
        """
        self._topology = topology
        self._open_link = open_link
        self._on_slots_lost = on_slots_lost
        self._owners: list[Address | None] = [None] * HASH_SLOTS
        self._links: dict[Address, RedisLink] = {}
        self._used: dict[Address, float] = {}
        """When a node had slots, or was redirected to, last."""
        self._lost: dict[int, int] = {}
        """Slot to the generation in which it was lost last."""
        self._moving: set[int] = set()
        """Slots that were lost since the topology was read."""
        self._wake = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = 0
        self.generation = 0
        """Grows each time that slots are lost."""
        self.masters: tuple[Address, ...] = ()
        """Nodes that have slots."""
        self.unowned = HASH_SLOTS
        """How many slots no node has."""
        self.problem = "not started"
        """Why the topology could not be read the last time; empty if it could."""

    async def start(self) -> None:
        """Connect to all masters, or keep trying in the background."""
        await self._refresh()
        await asyncio.gather(*tuple(self._tasks))
        self._follower = asyncio.create_task(self._follow(), name="feature-store-cluster")

    async def stop(self) -> None:
        """Close all connections for good."""
        tasks = [*self._tasks, *([self._follower] if self._follower else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in self._links.values():
            await link.stop()
        self._links.clear()
        self._topology.close()
        self.problem = "stopped"

    def owner(self, slot: int) -> Address | None:
        """Return the node that has a slot, None if none has."""
        return self._owners[slot]

    def link(self, address: Address) -> RedisLink:
        """Return the link to a node; one that was not known is connected to in the background."""
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = self._open_link(address)
            self._run(link.start())
        return link

    @property
    def connected(self) -> list[RedisLink]:
        """The links to masters that are connected."""
        links = (self._links.get(address) for address in self.masters)
        return [link for link in links if link is not None and link.connected]

    def problems(self) -> Mapping[Address, str]:
        """Return the masters that are of no use, or were a moment ago, and why."""
        problems = {}
        for address in self.masters:
            link = self.link(address)
            if reason := (link.trouble or link.problem.reason) if link.connected else link.detail:
                problems[address] = reason
        return problems

    def trusted(self, slot: int, generation: int) -> bool:
        """Return whether what was asked of a slot's node in that generation is still known to be right."""
        return self._lost.get(slot, 0) <= generation

    def lose(self, slots: Iterable[int]) -> None:
        """Trust nothing that was read or asked of these slots so far, and find out who has them."""
        self.generation += 1
        lost = set(slots)
        self._lost.update(dict.fromkeys(lost, self.generation))
        if new := lost - self._moving:  # each has keys that are reported one by one while it moves
            self._moving |= new
            self._on_slots_lost(sorted(new))
        self._wake.set()

    def redirect(self, address: Address) -> None:
        """Note that a node answers for some key that its slot's owner does not have (ASK)."""
        self._used[address] = asyncio.get_running_loop().time()
        self._wake.set()

    def move(self, slot: int, address: Address) -> None:
        """Note that a node has a slot, by the word of the one that had it (MOVED)."""
        self.redirect(address)
        if self._owners[slot] != address:
            self._owners[slot] = address
            self._moving.discard(slot)
            self.lose([slot])

    def on_link_lost(self, address: Address) -> None:
        """Trust nothing that a node told: its reports may have been missed."""
        slots = [slot for slot, owner in enumerate(self._owners) if owner == address]
        self._moving.difference_update(slots)
        self.lose(slots)

    async def _follow(self) -> None:
        while True:
            delay_s = TROUBLED_REFRESH_S if self.problem or self.unowned or self.problems() else REFRESH_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):  # wait_for of Python 3.11 may drop that it is cancelled
                    await self._wake.wait()
                await asyncio.sleep(TROUBLED_REFRESH_S / 2)  # what moves tells so many times
            await self._refresh()

    async def _refresh(self) -> None:
        self._wake.clear()
        before, moving = self.generation, set(self._moving)
        troubled = self.problems()
        healthy = [address for address in self.masters if address not in troubled]
        self._turn += 1  # another node each time: one may be cut off from the rest
        first = self._turn % len(healthy) if healthy else 0
        try:
            ranges = await asyncio.to_thread(self._topology.read, (*healthy[first:], *healthy[:first], *self.masters))
        except StoreError as error:
            if str(error) != self.problem:
                log.warning("feature_store_topology_unknown", reason=str(error))
            self.problem = str(error)
            return
        self.problem = ""
        self._moving -= {slot for slot in moving if self._lost.get(slot, 0) <= before}
        self._take(ranges)

    def _take(self, ranges: Mapping[tuple[int, int], Address]) -> None:
        """Work with these owners from now on."""
        owners: list[Address | None] = [None] * HASH_SLOTS
        known: dict[Address, Address] = {address: address for address in self.masters}
        for (first, last), address in ranges.items():
            address = known.setdefault(address, address)
            owners[first : last + 1] = [address] * (last + 1 - first)
        if owners != self._owners:
            moved = [slot for slot, (new, old) in enumerate(zip(owners, self._owners, strict=True)) if new != old]
            self._owners = owners
            self.unowned = owners.count(None)
            self._moving.difference_update(moved)
            self.lose(moved)
            self._wake.clear()
            self.masters = tuple(dict.fromkeys(ranges.values()))
            log.info("feature_store_slots_moved", slots=len(moved), masters=len(self.masters), without=self.unowned)
        now = asyncio.get_running_loop().time()
        for address in self.masters:
            self._used[address] = now
            self.link(address)
        for address in self._links.keys() - set(self.masters):
            if now - self._used.setdefault(address, now) > UNUSED_S:
                del self._used[address]
                self._run(self._links.pop(address).stop())

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
