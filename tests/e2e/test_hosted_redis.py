"""`ctr load` and `ctr serve` with Redis and Valkey as they are hosted: each server that is at hand, in each form.

docs/redis.md has the table that a whole run gave: `make test-faults ARGS="tests/e2e/test_hosted_redis.py"`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from app.commands.load import known_schema, load_file
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.store.model_store import ModelStore
from app.settings import load_settings
from tests.certificates import Certificates
from tests.e2e.conftest import services
from tests.factories import MODEL_NAME, publish_tiny, raw_item, raw_user, redis_text
from tests.ranking.conftest import expected
from tests.redis_servers import LOAD_COMMANDS, SERVE_COMMANDS, RedisServer, RespProxy, servers

ITEMS = 12
AGE_S = 2.0
AT_ONCE_S, SWAP_S = 1.5, 3.5
"""What docs/redis.md promises where changes are reported, and what requests take on a busy machine."""
DOCUMENTED = ("reset", "on", ">p@ss/w#rd", "~ctr:v1:*", *SERVE_COMMANDS.split(), *LOAD_COMMANDS.split())


@dataclass(frozen=True)
class Form:
    """A way in which a server is reached: the URL, and what is set for it."""

    url: Callable[[RedisServer, contextlib.ExitStack, Path], str]
    database: int = 0
    age_s: float | None = None
    """`CTR_ITEM_MAX_AGE_S`; unset where changes are reported."""
    word: str = "connected"
    """What `/health` says among others."""


def plain(server: RedisServer, stack: contextlib.ExitStack, folder: Path) -> str:
    return f"redis://127.0.0.1:{server.port}"


def with_password(server: RedisServer, stack: contextlib.ExitStack, folder: Path) -> str:
    with server.client as client:
        client.config_set("requirepass", "p@ss/w#rd")
    return f"redis://:p%40ss%2Fw%23rd@127.0.0.1:{server.port}/0"


def with_user(*lacks: str) -> Callable[[RedisServer, contextlib.ExitStack, Path], str]:
    def url(server: RedisServer, stack: contextlib.ExitStack, folder: Path) -> str:
        with server.client as client:
            client.execute_command("ACL", "SETUSER", "ctr", *(rule for rule in DOCUMENTED if rule not in lacks))
        return f"redis://ctr:p%40ss%2Fw%23rd@127.0.0.1:{server.port}"

    return url


def behind_proxy(server: RedisServer, stack: contextlib.ExitStack, folder: Path) -> str:
    proxy = stack.enter_context(RespProxy(server.socket, unknown=["HELLO", "CLIENT", "MULTI", "EXEC"]))
    return f"redis://127.0.0.1:{proxy.port}"


def with_tls(server: RedisServer, stack: contextlib.ExitStack, folder: Path) -> str:
    certificates = Certificates(folder)
    proxy = stack.enter_context(RespProxy(server.socket, tls=certificates.server_context()))
    return f"rediss://localhost:{proxy.port}?ssl_ca_certs={certificates.ca}"


def with_own_tls(server: RedisServer, stack: contextlib.ExitStack, folder: Path) -> str:
    certificates = Certificates(folder)
    port = server.listen_with_tls(certificates)
    if port is None:
        pytest.skip("this build has no TLS")
    return f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates.ca}"


FORMS = {
    "plain": Form(plain),
    "password": Form(with_password),
    "user": Form(with_user()),
    "user without tracking": Form(with_user("+client|tracking"), age_s=AGE_S, word="reports no changes"),
    "user without tracking, not aged": Form(with_user("+client|tracking"), word="each request reads its items"),
    "proxy without HELLO": Form(behind_proxy, age_s=AGE_S, word="reports no changes"),
    "proxy without HELLO, not aged": Form(behind_proxy, word="each request reads its items"),
    "TLS, own authority": Form(with_tls),
    "the server's TLS": Form(with_own_tls),
    "socket": Form(lambda server, stack, folder: f"unix://{server.socket}"),
    "database 3": Form(lambda server, stack, folder: f"redis://127.0.0.1:{server.port}/3", database=3),
}
SMOKE = (next(iter(servers())), ("proxy without HELLO", "TLS, own authority"))


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelStore, Artifact]:
    store = ModelStore(tmp_path_factory.mktemp("hosted") / "model_store", MODEL_NAME)
    return store, load(store.path(publish_tiny(store)))


def load_features(items: dict[str, dict[str, Any]], folder: Path, store: ModelStore, url: str) -> None:
    """Load items and a user as `ctr load` does; a process of its own for each would take most of the time."""
    settings = load_settings(redis_url=url, model_store=store.folder.parent, model=store.name)
    schema = known_schema(settings, None)
    for entity, rows in (("items", items), ("users", {"4": raw_user(4)})):
        file = folder / f"{entity}.jsonl"
        file.write_bytes(b"\n".join(msgspec.json.encode({"id": key, **raw}) for key, raw in rows.items()))
        assert load_file(settings, entity, file, schema=schema).loaded == len(rows)  # type: ignore[arg-type]


def _parameters() -> list[Any]:
    return [
        pytest.param(
            name,
            form,
            id=f"{name}-{form}",
            marks=[] if name == SMOKE[0] and form in SMOKE[1] else pytest.mark.faults,
        )
        for name in servers()
        for form in FORMS
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), _parameters())
def test_what_is_loaded_is_served_and_what_is_changed_is_not_served_as_it_was(
    name: str, form: str, version: tuple[ModelStore, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, artifact = version
    shape = FORMS[form]
    items = {str(n): raw_item(n) for n in range(ITEMS)}
    with contextlib.ExitStack() as stack:
        (tmp_path / "server").mkdir()
        server = stack.enter_context(RedisServer(servers()[name], tmp_path / "server"))
        url = shape.url(server, stack, tmp_path)
        password = "p@ss/w#rd" if form == "password" else None
        admin = stack.enter_context(
            redis.Redis(
                unix_socket_path=str(server.socket),
                db=shape.database,
                password=password,
                decode_responses=True,
                protocol=2,
            )
        )
        load_features(items, tmp_path, store, url)
        said = capsys.readouterr().err
        assert ("takes no transactions" in said) == ("proxy" in form)
        assert "p@ss" not in said
        assert "p%40ss" not in said
        settings = {} if shape.age_s is None else {"ITEM_MAX_AGE_S": str(shape.age_s)}
        serve = stack.enter_context(services(store, url, tmp_path / "data"))
        service = serve(**settings)
        health = service.wait_until(lambda health: health["status"] == "ok")
        assert shape.word in health["features"]["detail"]
        line = next(line for line in service.log if line.startswith("feature store: "))
        assert f"database {shape.database}" in line
        assert ("with TLS" in line) == url.startswith("rediss://")
        assert not any("p@ss" in line or "p%40ss" in line for line in service.log)

        def scores() -> dict[str, float]:
            answer = service.rank(items=list(items)).json()
            assert answer["degraded"] == []
            assert answer["missing"] == {"user": False, "items": []}
            return {item["item_id"]: item["score"] for item in answer["items"]}

        def served() -> bool:
            return scores() == pytest.approx(expected(artifact, "4", raw_user(4), items), abs=1e-5)

        assert served()
        assert served(), "from the cache, where there is one"
        bound_s = shape.age_s + 1.5 if shape.age_s else AT_ONCE_S
        items["3"] = items["3"] | {"year": 1931}
        admin.hset("ctr:v1:item:3", mapping={"year": "1931"})
        assert taken(served) < bound_s
        others = {item_id: raw | {"year": 1950} for item_id, raw in items.items()}
        with redis.Redis(
            unix_socket_path=str(server.socket), db=9, password=password, decode_responses=True, protocol=2
        ) as other:
            for item_id, raw in others.items():
                other.hset(f"ctr:v1:item:{item_id}", mapping=redis_text(raw))
            other.hset("ctr:v1:user:4", mapping=redis_text(raw_user(4)))
        admin.swapdb(shape.database, 9)
        items |= others
        assert taken(served) < (shape.age_s + 1.5 if shape.age_s else SWAP_S)


@pytest.mark.faults
@pytest.mark.slow
def test_a_store_that_refuses_to_be_read_is_the_reason_in_health_and_once_in_the_log(
    version: tuple[ModelStore, Artifact], tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RedisServer(servers()[SMOKE[0]], tmp_path))
        admin = stack.enter_context(server.client)
        admin.execute_command("ACL", "SETUSER", "ctr", *DOCUMENTED, "-hmget")
        url = f"redis://ctr:p%40ss%2Fw%23rd@127.0.0.1:{server.port}"
        service = stack.enter_context(services(version[0], url, tmp_path / "data"))(wait=False)
        health = service.wait_until(lambda health: health["reasons"] == ["features_unavailable"])
        assert health["features"]["connected"]
        assert "NOPERM" in health["features"]["detail"]
        for _ in range(20):
            assert "user_features_unavailable" in service.rank().json()["degraded"]
        assert sum("feature_store_refuses" in line for line in service.log) == 1
        admin.execute_command("ACL", "SETUSER", "ctr", "+hmget")
        service.wait_until(lambda health: health["status"] == "ok")
        assert service.rank().json()["degraded"] == []


def taken(holds: Callable[[], bool]) -> float:
    """Return the seconds until something holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + 30.0
        time.sleep(0.01)
    return time.monotonic() - began
