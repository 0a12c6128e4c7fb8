"""Measures what a user's hash costs the store, by its number of fields and by how the store encodes it: memory, and the
processor time of the HMGET that a request sends. `python -m benchmarks.user_hashes` prints a table."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import redis

from app.features.loading.embedded_valkey import EmbeddedValkey
from benchmarks.machine import describe

USERS, REQUESTS, BATCH = 2000, 500, 100
FIELDS = (12, 20, 100, 300)
ENCODINGS = {"listpack": 512, "hashtable": 8}
"""Encoding to the value of `hash-max-listpack-entries` that leads to it."""


def measure(client: redis.Redis, fields: int, users: int = USERS, seed: int = 0) -> tuple[float, float]:
    """Return bytes a user, and microseconds of the server for one HMGET of all fields.

    Half of the values are categories of up to four digits, half numbers of four decimals.
    """
    generator, names = random.Random(seed), [f"feature_{n}" for n in range(fields)]
    client.flushall()
    for first in range(0, users, BATCH):
        pipeline = client.pipeline(transaction=False)
        for user in range(first, first + BATCH):
            values = [str(generator.randint(0, 9999)) if n % 2 else f"{generator.random():.4f}" for n in range(fields)]
            pipeline.hset(f"ctr:v1:user:{user:07d}", mapping=dict(zip(names, values, strict=True)))
        pipeline.execute()
    memory = sum(client.memory_usage(f"ctr:v1:user:{user:07d}", samples=0) for user in range(users)) / users
    client.config_resetstat()
    for user in range(min(users, REQUESTS)):
        client.hmget(f"ctr:v1:user:{user:07d}", names)
    return memory, client.info("commandstats")["cmdstat_hmget"]["usec_per_call"]


def main() -> None:
    write = sys.stdout.write
    write(f"{describe()['cpu']}\n\n| fields | encoding | bytes a user | us an HMGET |\n| ---: | --- | ---: | ---: |\n")
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder)) as server:
        client = redis.Redis.from_url(server.url)
        for fields in FIELDS:
            for encoding, entries in ENCODINGS.items():
                client.config_set("hash-max-listpack-entries", entries)
                memory, microseconds = measure(client, fields)
                assert client.object("encoding", "ctr:v1:user:0000000") == encoding.encode()
                write(f"| {fields} | {encoding} | {memory:,.0f} | {microseconds:.1f} |\n")


if __name__ == "__main__":
    main()
