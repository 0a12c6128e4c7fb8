"""A server of Redis that the tests of a module share, with a user and an item in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.redis_servers import RedisServer, servers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "acl").touch()
    with RedisServer(next(iter(servers().values())), folder, "--aclfile", str(folder / "acl")) as server:
        yield server


@pytest.fixture
def features(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client as client:
        client.flushall()
        client.execute_command("ACL", "LOAD")
        client.hset("user:1", mapping={"age": "30"})
        client.hset("item:1", mapping={"year": "1990"})
        yield client
