"""Measures the constants of `app.features.loading.sizes`: bytes of a hash by its form, of a cached item, and of the
processes. `python -m benchmarks.sizes [URL]` prints them beside what `ctr size` says, of another server too."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import redis
import torch

from app.features.item_cache import ItemCache
from app.features.loading.embedded_valkey import EmbeddedValkey
from app.features.loading.sizes import PACKED_FIELDS, HashShape
from app.features.loading.synthetic import SyntheticCatalogue
from app.features.loading.valkey_server import free_port
from app.publishing.synthetic_model import publish_untrained
from app.registry.artifact.artifact import Artifact
from app.registry.store.model_store import ModelStore
from benchmarks.machine import describe
from benchmarks.process import Process, ctr

KEY = "ctr:v1:user:{:07d}"
SHAPES = (
    *(HashShape(fields, key_bytes=19) for fields in (1, 5, 12, 20, 50, 100, 200, 300, 500, 600, 900)),
    *(HashShape(fields, 0, 5, 20, 12, 19) for fields in (12, 100, 400)),
    *(HashShape(fields, 5, values, key_bytes=19) for fields in (12, 100, 300) for values in (5, 20)),
)
BATCH = 100
ITEMS, WARM_ITEMS = 20_000, 500
WIDE_ENTRIES = 64
LETTERS = str.maketrans("0123456789", "abcdefghij")


def hash_bytes(client: redis.Redis, shape: HashShape, count: int) -> float:
    """Return by how much the server's memory grows for a hash of this form, of so many."""
    generator = random.Random(0)
    names = [f"{number:0{shape.name_bytes}d}" for number in range(shape.fields)]
    client.execute_command("FLUSHALL", "SYNC")
    before = client.info("memory")["used_memory"]
    for first in range(0, count, BATCH):
        pipeline = client.pipeline(transaction=False)
        for user in range(first, min(first + BATCH, count)):
            pipeline.hset(KEY.format(user), mapping=dict(zip(names, _values(shape, generator), strict=True)))
        pipeline.execute()
    grown: float = client.info("memory")["used_memory"] - before
    return grown / count


def _values(shape: HashShape, generator: random.Random) -> Iterator[str]:
    """Yield a hash's values: lists as JSON, then texts."""

    def text() -> str:  # a number in letters: they are drawn at once, where each letter took as long as all
        return f"{generator.randrange(10**shape.value_bytes):0{shape.value_bytes}d}".translate(LETTERS)

    for number in range(shape.fields):
        texts = [text() for _ in range(shape.values if number < shape.lists else 1)]
        yield msgspec.json.encode(texts).decode() if number < shape.lists else texts[0]


def cached_item_bytes(model: Artifact, catalogue: SyntheticCatalogue, dtype: torch.dtype = torch.float32) -> float:
    """Return by how much this process grows for a cached item."""
    cache = ItemCache(catalogue.items, dtype=dtype)

    def fill(first: int, last: int) -> None:
        for start in range(first, last, WARM_ITEMS):
            stop = min(start + WARM_ITEMS, last)
            cache.on_items([f"{10_000_000 + n}" for n in range(start, stop)], catalogue.raw("item", start, stop))

    with torch.inference_mode():
        asyncio.run(cache.attach(model))
        fill(0, WARM_ITEMS)
        before = _resident()
        fill(WARM_ITEMS, catalogue.items)
    return (_resident() - before) / (catalogue.items - WARM_ITEMS)


def _resident() -> int:
    gc.collect()
    return 1024 * _kilobytes(os.getpid(), "Rss")


def _kilobytes(pid: int, what: str) -> int:
    """Return a process's `Rss`, or its share of memory that several have, `Pss`."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


@contextlib.contextmanager
def published(**sizes: int) -> Iterator[tuple[Artifact, SyntheticCatalogue, Path]]:
    """Publish an untrained DeepFM of a synthetic catalogue, and yield it with its model store."""
    with tempfile.TemporaryDirectory() as folder:
        catalogue = SyntheticCatalogue(**sizes)
        store = ModelStore(Path(folder), "deepfm")
        yield store.load(publish_untrained(store, catalogue, 16, (256, 128, 64))), catalogue, Path(folder)


def print_hashes() -> None:
    """Print what hashes of many forms take, beside what `ctr size` says."""
    write = sys.stdout.write
    write(f"{describe()['cpu']}\n\n| fields | lists | entries | encoding | bytes | `ctr size` | |\n")
    write("| ---: | ---: | ---: | --- | ---: | ---: | ---: |\n")
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder)) as server:
        client = redis.Redis.from_url(sys.argv[1] if len(sys.argv) > 1 else server.url)
        for shape in SHAPES:
            for entries in (PACKED_FIELDS, WIDE_ENTRIES):
                if entries == WIDE_ENTRIES and shape.is_packed(WIDE_ENTRIES) == shape.is_packed():
                    continue
                client.config_set("hash-max-listpack-entries", entries)
                taken, said = hash_bytes(client, shape, 200_000 // (shape.fields + 10)), shape.bytes(entries)
                encoding = client.object("encoding", KEY.format(0)).decode()
                figures = f"{taken:,.0f} | {said:,} | {taken / said - 1:+.1%}"
                write(f"| {shape.fields} | {shape.lists} | {entries} | {encoding} | {figures} |\n")


def print_processes(folder: Path) -> None:
    """Print the memory of a service that has answered nothing, by its number of workers."""
    port = free_port()
    for workers in (1, 2, 4):
        environment = {"CTR_MODEL_STORE": str(folder), "CTR_PORT": str(port), "CTR_DATA_DIR": str(folder / "data")}
        log = folder / f"{workers}-workers.log"
        service = Process([ctr(), "serve", "--workers", str(workers)], log, core=set(), environment=environment)
        try:
            service.wait_until(lambda: _is_ready(port))
            memory = sum(_kilobytes(pid, "Pss") for pid in service.pids) / 1024
        finally:
            service.stop()
        sys.stdout.write(f"{workers} workers: {memory:.0f} MB\n")


def _is_ready(port: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
    return False


def main() -> None:
    with published(items=ITEMS) as (model, catalogue, folder):
        sys.stdout.write(f"a cached item: {cached_item_bytes(model, catalogue):,.0f} bytes\n")
        print_processes(folder)
    print_hashes()


if __name__ == "__main__":
    main()
