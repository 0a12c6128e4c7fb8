"""Loading through a client of servers that take no writes, or know no transactions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.errors import StoreError
from app.features.key_template import KeyTemplate
from app.features.loading.feature_loader import FeatureLoader
from app.features.loading.record_file import RecordFile
from app.features.redis_client import open_client
from tests.redis_servers import RedisServer, RespProxy, servers

WRITES = {
    "a replica": (["replicaof 127.0.0.1 1"], "READONLY", "name the master"),
    "full memory": (["config set maxmemory 1"], "OOM", "maxmemory"),
    "too few replicas": (["config set min-replicas-to-write 1"], "NOREPLICAS", "replicas"),
    "no right to write": (["acl setuser default -hset"], "NOPERM", "docs/redis.md"),
}


@pytest.mark.parametrize("case", WRITES)
def test_a_server_that_takes_no_writes_says_why(case: str, tmp_path: Path) -> None:
    commands, code, meaning = WRITES[case]
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": "1", "year": 1990}\n')
    with RedisServer(next(iter(servers().values())), tmp_path) as server, server.client as client:
        for command in commands:
            client.execute_command(*command.split())
        with (
            open_client(f"redis://127.0.0.1:{server.port}") as loading,
            pytest.raises(StoreError, match=meaning) as refused,
        ):
            FeatureLoader(loading, KeyTemplate("item:{id}")).load(RecordFile(file))
    assert code in str(refused.value)
    assert "1990" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("lesser", [{"unknown": ["MULTI", "EXEC"]}, {"closes": ["MULTI"]}], ids=["unknown", "closes"])
def test_a_proxy_without_transactions_is_loaded_and_that_is_said_once(lesser: Any, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("".join(f'{{"id": "{n}", "year": 1990}}\n' for n in range(250)))
    said: list[str] = []
    with RedisServer(next(iter(servers().values())), tmp_path) as server, server.client as client:
        client.set("item:1", "of another type")
        with (
            RespProxy(server.socket, **lesser) as proxy,
            open_client(f"redis://127.0.0.1:{proxy.port}") as loading,
        ):
            loaded = FeatureLoader(loading, KeyTemplate("item:{id}"), on_note=said.append).load(RecordFile(file))
        assert loaded.loaded == 250
        assert client.hgetall("item:1") == {"year": "1990"}
    assert len(said) == 1
    assert "MULTI" in said[0]
