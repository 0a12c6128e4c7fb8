"""What `ctr size` says is what a real server and a real worker take, at small scale."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from app.features.loading import sizes
from app.features.loading.sizes import PACKED_FIELDS, HashShape, WorkerShape
from benchmarks.sizes import KEY, hash_bytes
from tests.pages import DOCS, ROOT

TOLERANCE = 0.15
ATTEMPTS = 5
"""The server frees buffers of its clients now and then, some megabytes, in the midst of a measurement."""
ENTRIES = "hash-max-listpack-entries"


@pytest.mark.parametrize("entries", [PACKED_FIELDS, 64])
@pytest.mark.parametrize(
    "shape",
    [
        HashShape(5, key_bytes=19),
        HashShape(20, 2, 4, 12, 8, 19),
        HashShape(20, 3, 20, key_bytes=19),
        HashShape(120, key_bytes=19),
        HashShape(300, key_bytes=19),
        HashShape(300, 30, 12, 25, 4, 19),
        HashShape(600, key_bytes=19),
        HashShape(40, value_bytes=90, key_bytes=19),
    ],
    ids=lambda shape: f"{shape.fields}-{shape.lists}x{shape.values}-{shape.name_bytes}-{shape.value_bytes}",
)
def test_a_hash_takes_what_is_said(redis_client: redis.Redis, shape: HashShape, entries: int) -> None:
    before = redis_client.config_get(ENTRIES)[ENTRIES]
    try:
        redis_client.config_set(ENTRIES, entries)
        count = 3000 if shape.fields < 100 else 300
        for _ in range(ATTEMPTS):
            if shape.bytes(entries) == pytest.approx(hash_bytes(redis_client, shape, count), rel=TOLERANCE):
                break
        else:
            pytest.fail(f"{shape} takes {hash_bytes(redis_client, shape, count):.0f} bytes, not {shape.bytes(entries)}")
        encoding = redis_client.object("encoding", KEY.format(0))
    finally:
        redis_client.config_set(ENTRIES, before)
    assert (encoding == "listpack") == shape.is_packed(entries)


MEASURE = """
from benchmarks.sizes import cached_item_bytes, published
with published(users=10, items=60_000, item_fields=20) as (model, catalogue, _):
    print(cached_item_bytes(model, catalogue))
"""


def test_a_cached_item_takes_what_is_said() -> None:
    """Measured in a process that has grown for nothing else before, by enough items for huge pages to matter little."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    said = WorkerShape(items=60_000, slots=20, state_width=256 + 16 + 1, state_bytes=4, keys=1, dim=16).item_bytes
    assert said == pytest.approx(float(ended.stdout), rel=TOLERANCE)


@given(
    st.builds(
        HashShape,
        fields=st.integers(1, 900),
        lists=st.just(0),
        name_bytes=st.integers(1, 60),
        value_bytes=st.integers(1, 63),
    ),
    st.integers(1, 30),
)
def test_more_is_never_less(shape: HashShape, more: int) -> None:
    def grown(**changes: int) -> HashShape:
        return HashShape(**{**vars(shape), **changes})

    assert grown(fields=shape.fields + more).bytes() > shape.bytes()
    assert grown(name_bytes=shape.name_bytes + more).bytes() >= shape.bytes()
    assert grown(lists=min(more, shape.fields), values=30).bytes() >= shape.bytes()
    assert grown(fields=shape.fields + more).read_us(8) > shape.read_us(8)


def test_a_machine_takes_tables_once_and_items_in_each_worker() -> None:
    shape = WorkerShape(items=1000, slots=21, state_width=145, state_bytes=4, keys=10_000, dim=16)
    one, two = shape.machine_bytes(1), shape.machine_bytes(2)
    assert two - one == sizes.WORKER_BYTES + 1000 * shape.item_bytes
    assert shape.machine_bytes(2, swapping=True) - two == shape.table_bytes + 2 * 1000 * 145 * 4
    assert shape.table_bytes == 10_000 * (17 * 4 + 8)


def test_the_page_has_the_constants() -> None:
    page = " ".join((DOCS / "scaling.md").read_text().split())
    rows = dict(re.findall(r"\| `([A-Z_]+)` \| ([\d, .MB]+?) \|", page))
    constants = {name: value for name, value in vars(sizes).items() if name.isupper()}
    assert set(rows) == set(constants)
    for name, value in constants.items():
        shown = f"{value >> 20} MB" if name.endswith(("SERVICE_BYTES", "WORKER_BYTES")) else value
        words = ", ".join(map(str, value)) if isinstance(value, tuple) else str(shown)
        assert rows[name] == words, name
