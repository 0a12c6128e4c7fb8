"""`RedisLink` before stores that are silent or too late, and reads that are given up."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
import redis
from structlog.testing import capture_logs

from app.errors import StoreError
from app.features.redis_store import RedisFeatureStore
from app.features.store_problem import LATE_FETCHES
from tests.features.stores import connected, reads
from tests.redis_servers import RedisServer, RespProxy
from tests.waiting import async_until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.features.redis_link.HEARTBEAT_S", 0.2)


async def not_asked(store: RedisFeatureStore) -> bool:
    try:
        await store.fetch("1", (), 5.0)
    except StoreError as error:
        return "not asked" in str(error)
    return False


async def test_a_silent_store_is_not_asked_until_it_answers_again(server: RedisServer, features: redis.Redis) -> None:
    with RespProxy(server.socket) as proxy:
        async with connected(f"redis://127.0.0.1:{proxy.port}", timeout_s=0.05) as store:
            assert await reads(store)
            with server.stopped():
                with pytest.raises(StoreError, match="in time"):
                    await store.fetch("1", (), 0.05)
                before = proxy.seen["HMGET"]
                for _ in range(1000):
                    assert await not_asked(store)
                assert "CTR_REDIS_TIMEOUT_MS" in store.status().problem
                assert proxy.seen["HMGET"] - before <= 20, "heartbeats alone"
            await async_until(lambda: store.status().problem == "" and store.tracking, 20.0)
            assert await reads(store)


async def test_one_with_little_time_is_no_sign_of_a_silent_store(server: RedisServer, features: redis.Redis) -> None:
    with RespProxy(server.socket, delay_s=0.02) as proxy:
        async with connected(f"redis://127.0.0.1:{proxy.port}", timeout_s=20.0) as store:
            for _ in range(LATE_FETCHES + 5):
                with contextlib.suppress(StoreError):
                    await store.fetch("1", (), 0.001)
            assert await reads(store)
            assert store.status().problem == ""


async def test_a_store_that_is_always_too_late_is_asked_by_heartbeats_alone(
    server: RedisServer, features: redis.Redis
) -> None:
    with RespProxy(server.socket) as proxy, capture_logs() as lines:
        async with connected(f"redis://127.0.0.1:{proxy.port}", timeout_s=0.05) as store:
            proxy.delay_s = 0.1
            late = 0
            while "times in a row" not in store.status().problem:
                late += not await not_asked_within(store, 0.05)
                await asyncio.sleep(0.01)
            assert late <= LATE_FETCHES
            assert await not_asked(store)
            proxy.delay_s = 0.0
            await async_until(lambda: not store._link.problem.late, 20.0)
            assert await reads(store)
    assert [line["event"] for line in lines].count("feature_store_refuses") == 1


async def not_asked_within(store: RedisFeatureStore, seconds: float) -> bool:
    try:
        await store.fetch("1", (), seconds)
    except StoreError as error:
        return "not asked" in str(error)
    raise AssertionError("it answered in time")


@pytest.mark.parametrize("count", [1000, pytest.param(100_000, marks=pytest.mark.faults)])
async def test_cancelled_reads_never_cross_replies(server: RedisServer, features: redis.Redis, count: int) -> None:
    """Reads are given up at any moment, through a proxy that holds answers back; the others get their own."""
    users = 50
    with features.pipeline() as pipeline:
        for number in range(users):
            pipeline.hset(f"user:{number}", "age", number)
            pipeline.hset(f"item:{number}", "year", number)
        pipeline.execute()
    dice = random.Random(0)
    answered = cancelled = 0
    with RespProxy(server.socket, delay_s=0.002) as proxy:
        async with connected(f"redis://127.0.0.1:{proxy.port}", timeout_s=60.0) as store:
            while cancelled < count:
                numbers = [dice.randrange(users) for _ in range(50)]
                reading = [asyncio.create_task(store.fetch(str(n), [str(n)] * (n % 3), 60.0)) for n in numbers]
                for task in dice.sample(reading, 40):
                    asyncio.get_running_loop().call_later(dice.random() * 0.01, task.cancel)
                for number, task in zip(numbers, reading, strict=True):
                    try:
                        assert await task == ({"age": str(number)}, [{"year": str(number)}] * (number % 3))
                        answered += 1
                    except asyncio.CancelledError:
                        cancelled += 1
            assert store.status().connected
    assert answered >= count // 5
