"""Measures how long after its acknowledgement a write to an item shows in /rank, under load."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
import numpy as np
import redis.asyncio
import torch
import uvloop

from app.loadgen.generator import LoadGenerator
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from benchmarks.capacity import CONCURRENCY, require_answers
from benchmarks.contenders import OURS
from benchmarks.figure import Figure
from benchmarks.testbed import ITEM_KEY, Testbed

SHARE = 0.5
CANDIDATES = 100
GIVE_UP_S = 2.0
TOLERANCE = 1e-5
FIELD = "item_f0"


def update_visibility(testbed: Testbed, url: str, *, updates: int = 300) -> Figure:
    """Write items and request each until its new score comes, at half the service's capacity."""
    torch.set_num_threads(1)
    generator = LoadGenerator(url, testbed.bodies(CANDIDATES))
    closed = uvloop.run(generator.closed(CONCURRENCY, 1.0))
    require_answers(OURS, closed)
    rate = SHARE * closed.statuses[200] / closed.seconds
    taken_ms = uvloop.run(_measure(testbed, url, generator, rate, updates))
    return Figure(
        "an item update seen by /rank under load, p99",
        "at most",
        50.0,
        "ms",
        reached=float(np.percentile(taken_ms, 99)),
        note=f"{updates} updates at {rate:.0f} requests/s of {CANDIDATES} candidates; from the store's acknowledgement "
        f"to the answer with the new score: p50 {np.percentile(taken_ms, 50):.2f} ms, max {max(taken_ms):.2f} ms",
    )


async def _measure(testbed: Testbed, url: str, generator: LoadGenerator, rate: float, updates: int) -> list[float]:
    load_on = asyncio.create_task(generator.open(rate, 3600))
    try:
        return await _update(testbed, url, updates)
    finally:
        load_on.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await load_on


async def _update(testbed: Testbed, url: str, updates: int) -> list[float]:
    """Return each update's milliseconds from acknowledgement to new score. Raises SystemExit if one never shows."""
    artifact = load(testbed.versions["bench"])
    rng = np.random.default_rng(0)
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    taken_ms = []
    async with redis.asyncio.from_url(testbed.redis_url) as client:
        for number in rng.choice(testbed.catalogue.items, updates, replace=False).tolist():
            raw = testbed.catalogue.raw("item", number, number + 1)[0]
            old = _score(artifact, testbed, str(number), raw)
            written = raw[FIELD]
            expected = old
            while abs(expected - old) <= 2 * TOLERANCE:  # so that new and old can be told apart
                written = str((int(written) + 1) % testbed.catalogue.cardinality)
                expected = _score(artifact, testbed, str(number), {**raw, FIELD: written})
            await client.hset(ITEM_KEY.key(str(number)), FIELD, written)
            acknowledged = time.perf_counter()
            while abs(await _score_now(reader, writer, str(number)) - expected) > TOLERANCE:
                if time.perf_counter() - acknowledged > GIVE_UP_S:
                    raise SystemExit(f"error: an update was not seen within {GIVE_UP_S} s")
            taken_ms.append(1000 * (time.perf_counter() - acknowledged))
            await client.hset(ITEM_KEY.key(str(number)), FIELD, raw[FIELD])
            await asyncio.sleep(0.002)
    writer.close()
    return taken_ms


def _score(artifact: Artifact, testbed: Testbed, item_id: str, raw: dict[str, str]) -> float:
    user = artifact.user_encoder.encode(testbed.catalogue.raw("user", 0, 1)[0], "0")
    return float(artifact.score_by_forward(user, artifact.item_encoder.encode_many([raw], [item_id]))[0])


async def _score_now(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, item_id: str) -> float:
    body = msgspec.json.encode({"user_id": "0", "item_ids": [item_id]})
    writer.write(b"POST /rank HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    answer = msgspec.json.decode(await reader.readexactly(int(head.split(b"content-length:")[1].split()[0])))
    return float(answer["items"][0]["score"])
