"""What a version needs before it goes live: item states for what is cached, and warm code paths."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import structlog
import torch

from app.errors import StoreError
from app.features.cache_refresher import Refresher
from app.features.item_cache import ItemCache
from app.features.slots import Slots
from app.registry.artifact.artifact import Artifact
from app.runtime.loop_pacer import Pace

log = structlog.get_logger(__name__)

WARM_SIZES = (1, 10, 50, 100, 200, 500, 1000, 2000)
WARM_TURNS = 3
WARM_ENCODED = 100
"""Items are seldom encoded in larger numbers at a time, and a thousand hold the event loop for milliseconds."""
WARM_BESIDE_REQUESTS = 200
"""Candidates, on a CPU. What larger numbers need is the thread's, not the version's, and was warmed up before the first
went live; two thousand hold the event loop for 4 ms, where the first request of so many takes 1.5 ms longer."""


class Preparation:
    """The lifecycle's `prepare` and `retire`."""

    def __init__(
        self,
        cache: ItemCache,
        refresher: Refresher,
        *,
        max_candidates: int,
        worked_s: Callable[[], float] = time.thread_time,
    ) -> None:
        """Args: worked_s: as of `Pace`."""
        self._worked_s = worked_s
        self._cache = cache
        self._prepared = False
        self._refresher = refresher
        self._sizes = sorted({size for size in WARM_SIZES if size < max_candidates} | {max_candidates})

    async def prepare(self, artifact: Artifact) -> None:
        """Attach the version to the cache and warm it up, in slices between requests.

        Whatever is raised refuses the version, which is then detached again.
        """
        try:
            unknown = await self._cache.attach(artifact, self._worked_s)
            if unknown:
                try:
                    await self._refresher.fetch(unknown)
                except StoreError as error:  # they stay stale, and are read again by the requests that need them
                    log.warning("item_states_from_defaults", items=len(unknown), reason=str(error))
            await self._warm(artifact)
            self._prepared = True
        except BaseException:
            self._cache.detach(artifact)
            raise

    def retire(self, artifact: Artifact) -> None:
        self._cache.detach(artifact)

    async def _warm(self, artifact: Artifact) -> None:
        """Run every size on the thread that serves: the first calls of one can be many times slower.

        The first calls that compile were made where the version was loaded (`app.registry.artifact.self_check`), so a
        turn of each size is enough where no kernels are chosen by size.
        """
        pace, encoder, states_CD = Pace(self._worked_s), artifact.item_encoder, self._cache.states(artifact)
        on_cpu = artifact.device.type == "cpu"
        one = encoder.encode({}, "")
        largest = WARM_BESIDE_REQUESTS if on_cpu and self._prepared else self._sizes[-1]
        for size in [size for size in self._sizes if size <= largest]:
            rows_N = np.arange(size)
            for _ in range(1 if on_cpu else WARM_TURNS):
                with torch.inference_mode():
                    user_D = artifact.encode_user(artifact.user_encoder.encode({}, ""))
                    artifact.ranked(user_D, states_CD, rows_N)
                await pace.rest()
                if size <= WARM_ENCODED or not on_cpu:
                    artifact.encode_items(
                        Slots(np.repeat(one.keys[None], size, 0), np.repeat(one.values[None], size, 0))
                    )
                    await pace.rest()
                if not on_cpu:  # requests are scored together there
                    with torch.inference_mode():
                        artifact.score_users(user_D.unsqueeze(0), states_CD[:size].clone(), [size])
                    await pace.rest()
