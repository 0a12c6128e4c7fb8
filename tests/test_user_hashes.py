"""What the documents say of wide hashes holds here: as a table they cost the store less time, and more memory."""

from __future__ import annotations

import redis

from benchmarks.user_hashes import ENCODINGS, measure

SETTING = "hash-max-listpack-entries"


def test_a_wide_hash_is_read_sooner_as_a_table(redis_client: redis.Redis) -> None:
    before = redis_client.config_get(SETTING)[SETTING]
    try:
        figures = {}
        for encoding, entries in ENCODINGS.items():
            redis_client.config_set(SETTING, entries)
            figures[encoding] = measure(redis_client, 300, users=100)
            assert redis_client.object("encoding", "ctr:v1:user:0000000") == encoding
    finally:
        redis_client.config_set(SETTING, before)
    (packed_bytes, packed_us), (table_bytes, table_us) = figures["listpack"], figures["hashtable"]
    assert packed_us > 4 * table_us, "18 times here"
    assert table_bytes > packed_bytes
