"""Tests of the batcher: answers are the same, a failure is of one request, and no request is left waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from torch import Tensor

from app.ranking.batcher import Batcher
from app.registry.artifact.artifact import Artifact
from tests.factories import raw_items, raw_users


def states_of(artifact: Artifact, number: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the user state [D] and item states [N, D] of a request."""
    users, items = raw_users(), raw_items()
    user_id = list(users)[number % len(users)]
    ids = [list(items)[(number + offset) % len(items)] for offset in range(count)]
    slots = artifact.item_encoder.encode_many([items[item_id] for item_id in ids], ids)
    return artifact.encode_user(artifact.user_encoder.encode(users[user_id], user_id)), artifact.encode_items(slots)


class Failing:
    """A version that raises if a state is not finite, as a kernel may."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self.calls: list[list[int]] = []

    def score_users(self, users_UD: Tensor, items_PD: Tensor, counts: list[int]) -> Tensor:
        self.calls.append(counts)
        if not bool(torch.isfinite(items_PD).all()):
            raise RuntimeError("not finite")
        return self._artifact.score_users(users_UD, items_PD, counts)


async def test_scores_are_those_of_each_request_alone(versions: list[Artifact]) -> None:
    batcher = Batcher(10_000, max_wait_us=1000.0)
    requests = [
        (versions[number % 2], *states_of(versions[number % 2], number, 1 + number % 7)) for number in range(40)
    ]
    together = await asyncio.gather(*(batcher.probabilities(*request) for request in requests))
    for (artifact, user_D, items_ND), p_N in zip(requests, together, strict=True):
        torch.testing.assert_close(p_N, artifact.score(user_D, items_ND), atol=1e-6, rtol=0.0)
    assert (batcher.calls, batcher.requests) == (2, 40)  # one call for each version


async def test_a_batch_is_as_large_as_allowed_and_a_large_request_is_one(versions: list[Artifact]) -> None:
    failing: Any = Failing(versions[0])
    batcher = Batcher(10, max_wait_us=1000.0)
    sizes = [4, 5, 3, 20, 6]
    await asyncio.gather(
        *(batcher.probabilities(failing, *states_of(versions[0], n, size)) for n, size in enumerate(sizes))
    )
    assert failing.calls == [[4, 5], [3], [20], [6]]


async def test_a_request_that_fails_fails_alone(versions: list[Artifact]) -> None:
    failing: Any = Failing(versions[0])
    batcher = Batcher(10_000, max_wait_us=500.0)
    requests = [states_of(versions[0], number, 5) for number in range(6)]
    requests[2][1][3, 0] = float("inf")
    results = await asyncio.gather(
        *(batcher.probabilities(failing, *request) for request in requests), return_exceptions=True
    )
    assert [isinstance(result, RuntimeError) for result in results] == [number == 2 for number in range(6)]
    for number in (0, 1, 3, 4, 5):
        torch.testing.assert_close(results[number], versions[0].score(*requests[number]), atol=1e-6, rtol=0.0)


async def test_who_stops_waiting_is_left_out_and_the_rest_is_answered(versions: list[Artifact]) -> None:
    failing: Any = Failing(versions[0])
    batcher = Batcher(10_000, max_wait_us=20_000.0)
    gone = asyncio.create_task(batcher.probabilities(failing, *states_of(versions[0], 0, 4)))
    stays = asyncio.create_task(batcher.probabilities(failing, *states_of(versions[0], 1, 5)))
    await asyncio.sleep(0)
    gone.cancel()
    assert len(await stays) == 5
    assert failing.calls == [[5]]


async def test_a_batch_in_which_nobody_waits_is_not_scored(versions: list[Artifact]) -> None:
    failing: Any = Failing(versions[0])
    batcher = Batcher(10_000, max_wait_us=2_000.0)
    gone = asyncio.create_task(batcher.probabilities(failing, *states_of(versions[0], 0, 4)))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0.02)
    assert failing.calls == []
    assert len(await batcher.probabilities(failing, *states_of(versions[0], 1, 3))) == 3


@pytest.mark.parametrize("max_wait_us", [0.0, 3_000.0])
async def test_nobody_waits_longer_than_asked(versions: list[Artifact], max_wait_us: float) -> None:
    batcher = Batcher(10_000, max_wait_us)
    loop = asyncio.get_running_loop()
    waited = []
    for number in range(5):
        began = loop.time()
        await batcher.probabilities(versions[0], *states_of(versions[0], number, 3))
        waited.append(loop.time() - began)
    assert max_wait_us / 1e6 <= min(waited) < max_wait_us / 1e6 + 0.05
