"""What a version needs before it goes live: item states for what is cached, and warm code paths."""

from __future__ import annotations

import asyncio

import numpy as np
import structlog
import torch

from app.errors import StoreError
from app.features.encoder import Slots
from app.features.item_cache import ItemCache
from app.features.refresher import Refresher
from app.registry.artifact import Artifact

log = structlog.get_logger(__name__)

WARM_SIZES = (1, 10, 50, 100, 200, 500, 1000, 2000)
WARM_TURNS = 3


class Preparation:
    """The lifecycle's `prepare` and `retire`."""

    def __init__(self, cache: ItemCache, refresher: Refresher, *, max_candidates: int) -> None:
        self._cache = cache
        self._refresher = refresher
        self._sizes = sorted({size for size in WARM_SIZES if size < max_candidates} | {max_candidates})

    async def prepare(self, artifact: Artifact) -> None:
        """Attach the version to the cache and warm it up, in slices between requests.

        Whatever is raised refuses the version, which is then detached again.
        """
        try:
            unknown = await self._cache.attach(artifact)
            if unknown:
                try:
                    await self._refresher.fetch(unknown)
                except StoreError as error:  # they stay stale, and are read again by the requests that need them
                    log.warning("item_states_from_defaults", items=len(unknown), reason=str(error))
            await self._warm(artifact)
        except BaseException:
            self._cache.detach(artifact)
            raise

    def retire(self, artifact: Artifact) -> None:
        self._cache.detach(artifact)

    async def _warm(self, artifact: Artifact) -> None:
        """Run every batch size on the thread that serves: the first calls of a size are many times slower."""
        encoder = artifact.item_encoder
        for size in self._sizes:
            one = encoder.encode({}, "")
            slots = Slots(np.repeat(one.keys[None], size, 0), np.repeat(one.values[None], size, 0))
            rows_N = torch.arange(size, device=artifact.device)
            for _ in range(WARM_TURNS):
                items_ND = artifact.encode_items(slots).to(self._cache.dtype)
                await asyncio.sleep(0)
                with torch.inference_mode():
                    user_D = artifact.encode_user(artifact.user_encoder.encode({}, ""))
                    artifact.ranked(user_D, items_ND, rows_N)
                await asyncio.sleep(0)
                with torch.inference_mode():
                    artifact.probabilities(user_D.unsqueeze(0), items_ND, [size])
                await asyncio.sleep(0)
