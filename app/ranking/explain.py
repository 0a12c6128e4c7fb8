"""`Explainer` says why an item got its score: the parts of its logit, and what each field changes.

The parts add up to the logit, where a model's logit is a sum (`app.ranking.logit_parts`). The effect of a field is how
far the logit falls when the field is made missing and everything else stays. This works for any model, crosses and deep
part included; the effects need not add up to the logit.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np
import torch
from msgspec import UNSET, Meta, UnsetType
from torch import Tensor

from app.features.slots import Slots
from app.ranking.logit_parts import MAX_ERROR, LogitPart, LogitParts, NoLogitParts
from app.registry.artifact.artifact import Artifact
from app.runtime.loop_pacer import MOST_WAIT_S, SliceTurns

MAX_EXPLAINED = 20
"""Items of an answer that are explained, the best."""
SLICE = 24
"""Most pairs of a user and an item, each without one field, that are scored at a time: a quarter of a millisecond."""
ITEM_SLICES = 5
"""About so many slices an item takes: two of these pairs, and three of parts."""


class LogitCalibration(msgspec.Struct, frozen=True, gc=False):
    """How a score follows from a logit: sigmoid(scale * logit + offset)."""

    scale: float
    offset: float


class FieldEffect(msgspec.Struct, frozen=True, gc=False):
    """How far the calibrated logit falls when a raw field is made missing; above 0, the field raised the score.

    Several fields of the schema may read it (`source`): they go missing together, as they would in a request.
    """

    field: Annotated[
        str, Meta(description="As the store and requests name it; the fields of `parts` have their names in the schema")
    ]
    effect: float


class Explanation(msgspec.Struct, frozen=True, gc=False):
    """Why one item got its score."""

    logit: Annotated[float | None, Meta(description="Before calibration; null where the score is not finite")]
    calibration: LogitCalibration
    effects: Annotated[
        list[FieldEffect],
        Meta(description="Of all fields that have a value, strongest first; they need not add up to the logit"),
    ]
    parts: Annotated[list[LogitPart] | UnsetType, Meta(description=f"They sum to the logit, to within {MAX_ERROR}")] = (
        UNSET
    )
    no_parts: Annotated[str | UnsetType, Meta(description="Why there are no `parts`, where there are none")] = UNSET


class Explainer:
    """Explains the scores of items for one user."""

    def __init__(self, artifact: Artifact, user: Slots, turns: SliceTurns) -> None:
        """
        Args:
            user: the user's slots [S].
            turns: of the slices of requests that take long.
        """
        self._artifact = artifact
        self._user = user
        self._turns = turns
        self._users, self._user_fields = artifact.user_encoder.without_each(user)
        self._calibration = LogitCalibration(*artifact.program.calibration_2.tolist())
        self._parts: LogitParts | NoLogitParts
        try:
            self._parts = LogitParts(artifact, turns)
        except NoLogitParts as error:
            self._parts = error

    async def explain(self, item: Slots, most_wait_s: float = MOST_WAIT_S) -> Explanation:
        """Explain the score of an item (slots [S]), with a turn before each slice of it.

        Args:
            most_wait_s: how long each of about `ITEM_SLICES` slices waits for an idle loop.
        """
        await self._turns.next(most_wait_s)
        logit, effects = await self._effects(item, most_wait_s)
        if not math.isfinite(logit):
            return Explanation(None, self._calibration, [], no_parts="the logit is not finite")
        try:
            parts = await self._split(item, logit, most_wait_s)
        except NoLogitParts as error:
            return Explanation(logit, self._calibration, effects, no_parts=str(error))
        return Explanation(logit, self._calibration, effects, parts)

    async def _split(self, item: Slots, logit: float, most_wait_s: float) -> list[LogitPart]:
        """Return the parts of an item's logit. Raises NoLogitParts if they do not add up to it."""
        if isinstance(self._parts, NoLogitParts):
            raise self._parts
        await self._turns.next(most_wait_s)
        parts = await self._parts.split(self._user, item, most_wait_s)
        if abs(math.fsum(part.value for part in parts) - logit) > MAX_ERROR:
            raise NoLogitParts("the parts of this version's logit do not add up to it")
        return parts

    async def _effects(self, item: Slots, most_wait_s: float) -> tuple[float, list[FieldEffect]]:
        """Return the logit, and the effects of all fields that have a value."""
        user, users, user_fields = self._user, self._users, self._user_fields
        items, item_fields = self._artifact.item_encoder.without_each(item)
        # One batch of pairs: complete, then without each user field, then without each item field.
        users_P = Slots(
            np.concatenate([user.keys[None], users.keys, np.repeat(user.keys[None], len(item_fields), 0)]),
            np.concatenate([user.values[None], users.values, np.repeat(user.values[None], len(item_fields), 0)]),
        )
        items_P = Slots(
            np.concatenate([np.repeat(item.keys[None], 1 + len(user_fields), 0), items.keys]),
            np.concatenate([np.repeat(item.values[None], 1 + len(user_fields), 0), items.values]),
        )
        slices: list[Tensor] = []
        for pairs in _even_slices(len(users_P.keys)):
            if pairs.start:
                await self._turns.next(most_wait_s)
            some_users = Slots(users_P.keys[pairs], users_P.values[pairs])
            some_items = Slots(items_P.keys[pairs], items_P.values[pairs])
            with torch.inference_mode():
                slices.append(self._artifact.logits_of_pairs(some_users, some_items))
        logits = torch.cat(slices).double()
        changes = (self._calibration.scale * (logits[0] - logits[1:])).round(decimals=8).tolist()
        effects = [FieldEffect(*effect) for effect in zip([*user_fields, *item_fields], changes, strict=True)]
        return float(logits[0]), sorted(effects, key=lambda effect: -abs(effect.effect))


def _even_slices(count: int) -> list[slice]:
    """Cut `count` pairs into as few slices of at most SLICE as will do, all of nearly the same size."""
    slices = math.ceil(count / SLICE)
    return [slice(count * n // slices, count * (n + 1) // slices) for n in range(slices)]
