"""`Warmup` readies a version to go live: it encodes the cached items for it and runs its code paths once."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import structlog
import torch

from app.errors import StoreError
from app.features.cache_refresher import CacheRefresher
from app.features.item_cache import ItemCache
from app.features.slots import Slots
from app.features.store import FeatureStore
from app.registry.artifact.artifact import Artifact
from app.runtime.loop_pacer import LoopPacer

log = structlog.get_logger(__name__)

WARM_SIZES = (1, 10, 50, 100, 200, 500, 1000, 2000)
WARM_TURNS = 3
WARM_ENCODED = 100
"""Most items encoded in one call here: requests seldom encode more, and a thousand hold the event loop for
milliseconds."""
WARM_BESIDE_REQUESTS = 200
"""Most candidates scored in one call on a CPU while requests are served. What larger numbers need belongs to the
thread, not to the version, and was warmed up before the first one went live. Two thousand would hold the event loop for
4 ms; without them, the first request of that size takes 1.5 ms longer."""


class Warmup:
    """Attaches versions to the item cache and warms them up; its methods are the lifecycle's `prepare` and `retire`."""

    def __init__(
        self,
        store: FeatureStore,
        cache: ItemCache,
        refresher: CacheRefresher,
        *,
        max_candidates: int,
        worked_s: Callable[[], float] = time.thread_time,
    ) -> None:
        """Args: worked_s: returns this thread's processor time, as for the loop's pacer."""
        self._worked_s = worked_s
        self._store = store
        self._attached: list[Artifact] = []
        self._cache = cache
        self._prepared = False
        self._refresher = refresher
        self._sizes = sorted({size for size in WARM_SIZES if size < max_candidates} | {max_candidates})

    async def prepare(self, artifact: Artifact) -> None:
        """Attach the version to the cache and warm it up, in slices between requests.

        If anything is raised, the version is detached again and the lifecycle refuses it.
        """
        self._attached.append(artifact)
        try:
            self._select_fields()  # before the cache marks the items that were not read for this schema
            unknown = await self._cache.attach(artifact, self._worked_s)
            if unknown:
                try:
                    await self._refresher.refresh(unknown)
                except StoreError as error:  # they stay stale until a request needs and fetches them
                    log.warning("item_states_from_defaults", items=len(unknown), reason=str(error))
            await self._warm(artifact)
            self._prepared = True
        except BaseException:
            self.retire(artifact)
            raise

    def retire(self, artifact: Artifact) -> None:
        """Detach a version that is no longer live from the cache.

        Its fields are read until the next version comes: to leave them out would have all items read again.
        """
        self._attached = [other for other in self._attached if other is not artifact]
        self._cache.detach(artifact)

    def _select_fields(self) -> None:
        """Have the store read what the attached versions read, and nothing else."""
        users = {name: None for artifact in self._attached for name in sorted(artifact.user_encoder.overridable)}
        items = {name: None for artifact in self._attached for name in sorted(artifact.item_encoder.overridable)}
        self._store.select_fields(list(users), list(items))

    async def _warm(self, artifact: Artifact) -> None:
        """Score every size once on the thread that serves, because the first calls of a size can be many times slower.

        Loading the version has compiled its program already (`app.registry.artifact.self_check`), so one call of each
        size is enough on a CPU; a GPU also chooses kernels by size.
        """
        pacer, encoder, states_CD = LoopPacer(self._worked_s), artifact.item_encoder, self._cache.states(artifact)
        on_cpu = artifact.device.type == "cpu"
        one = encoder.encode({}, "")
        largest = WARM_BESIDE_REQUESTS if on_cpu and self._prepared else self._sizes[-1]
        for size in [size for size in self._sizes if size <= largest]:
            rows_N = np.arange(size) % len(states_CD)
            for _ in range(1 if on_cpu else WARM_TURNS):
                with torch.inference_mode():
                    user_D = artifact.encode_user(artifact.user_encoder.encode({}, ""))
                    artifact.ranked(user_D, states_CD, rows_N)
                await pacer.throttle()
                if size <= WARM_ENCODED or not on_cpu:
                    artifact.encode_items(
                        Slots(np.repeat(one.keys[None], size, 0), np.repeat(one.values[None], size, 0))
                    )
                    await pacer.throttle()
                if not on_cpu:  # where requests are scored in batches
                    with torch.inference_mode():
                        artifact.score_users(user_D.unsqueeze(0), states_CD[torch.from_numpy(rows_N)], [size])
                    await pacer.throttle()
