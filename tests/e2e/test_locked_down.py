"""One service as a careful operator runs it: keys, an admin's port, a store with a password, a root that is read-only.

It is made to fail in many ways. No line of its log and no answer holds a secret, no line holds a user's id, and nothing
but its temporary folder is written to. All of it is one test, as the log and the answers are judged at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.features.loading.valkey_server import free_port
from app.header_keys import hashed
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import POINTER
from tests import loopback
from tests.e2e.conftest import Running, fill, services
from tests.factories import MODEL_NAME, publish_tiny, raw_items, raw_users
from tests.redis_servers import RedisServer, servers
from tests.waiting import until

PASSWORD, API_KEY, HASHED_KEY, ADMIN_KEY, FOLDER, TRACKING = (
    f"canary-{name}-5f1c9d" for name in ("password", "api", "hashed", "admin", "folder", "tracking")
)
SECRETS = (PASSWORD, API_KEY, HASHED_KEY, ADMIN_KEY, FOLDER, TRACKING)
USER = "canary-user-5f1c9d"
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
ADMIN_ROUTES = ("/admin/promote", "/admin/rollback", "/admin/refuse")
READ_ONLY = """
mount --make-rprivate / && mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec setpriv --bounding-set=-all "$@"
"""
"""Makes all that the root's mount holds read-only but for one folder, and runs a command without capabilities."""


def under_read_only_root(writable: Path) -> Sequence[str]:
    """Return the command that runs another where only this folder can be written to; nothing if that is not allowed."""
    command = ("unshare", "--mount", "sh", "-ec", READ_ONLY, str(writable))
    try:
        refused = subprocess.run([*command, "touch", str(writable.parent / "probe")], capture_output=True, check=False)
        allowed = subprocess.run([*command, "true"], capture_output=True, check=False)
    except FileNotFoundError:  # no Linux
        return ()
    return command if refused.returncode and not allowed.returncode else ()


@dataclass
class LockedDown:
    service: Running
    features: RedisServer
    store: ModelStore
    admin_url: str
    temporary: Path
    read_only: bool
    answers: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, *, url: str = "", **options: Any) -> httpx.Response:
        """Send a request, and keep the answer for the test of secrets."""
        response = loopback.request(method, (url or self.service.url) + path, **options)
        self.answers.append(f"{response.headers!r} {response.text}")
        return response

    def rank(self, **options: Any) -> httpx.Response:
        headers = {"X-API-Key": API_KEY, "traceparent": TRACEPARENT}
        return self.ask("POST", "/rank", headers=headers, **options)

    def send(self, raw: bytes) -> None:
        """Send bytes that need not be a request."""
        address = urlsplit(self.service.url)
        with socket.create_connection((address.hostname, address.port), timeout=60) as client:
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
            received = b""
            while piece := client.recv(65_536):
                received += piece
        self.answers.append(received.decode("latin-1"))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.service.log) if line.startswith("{")]

    def wait_for_line(self, event: str, **fields: Any) -> dict[str, Any]:
        wanted = {"event": event, **fields}
        return until(lambda: next((line for line in self.lines() if wanted.items() <= line.items()), None))


@pytest.fixture
def locked_down(tmp_path: Path) -> Iterator[LockedDown]:
    folder = tmp_path
    secret_folder, temporary, data = (folder / name for name in (FOLDER, "temporary", "redis"))
    for made in (secret_folder, temporary, data):
        made.mkdir()
    signing_key = secret_folder / "signing.pem"
    private = serialization.PrivateFormat.PKCS8
    signing_key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    )
    store = ModelStore(folder / "model_store", MODEL_NAME)
    publish_tiny(store)
    under, admin_port = under_read_only_root(temporary), free_port()
    with RedisServer(next(iter(servers().values())), data) as features:
        with features.client as client:
            fill(client, raw_users() | {USER: raw_users()["1"]}, raw_items())
            client.config_set("requirepass", PASSWORD)
        url = f"redis://:{PASSWORD}@127.0.0.1:{features.port}/0"
        with services(store, url, temporary / "data") as start:
            service = start(
                *("--workers", "2"),
                under=("env", f"TMPDIR={temporary}", *under),
                API_KEYS=f"{API_KEY},{hashed(HASHED_KEY, 'shop')}",
                ADMIN_KEY=ADMIN_KEY,
                ADMIN_PORT=str(admin_port),
                SIGNING_KEY=str(signing_key),
                MLFLOW_URI=f"http://user:{TRACKING}@127.0.0.1:9",
            )
            yield LockedDown(service, features, store, f"http://127.0.0.1:{admin_port}", temporary, bool(under))


def check_it_serves_where_only_its_temporary_folder_is_writable(locked_down: LockedDown) -> None:
    answer = locked_down.rank(json={"user_id": USER, "item_ids": ["1", "2"]})
    assert (answer.status_code, answer.json()["degraded"]) == (200, [])
    # Workers share them through files, which they write once a second.
    until(lambda: 'ctr_rank_requests_total{status="200"' in locked_down.ask("GET", "/metrics").text)
    if locked_down.read_only:
        assert [path.name.rpartition("-")[0] for path in locked_down.temporary.iterdir()] == ["ctr-workers"]


def check_the_admin_has_a_port_of_its_own(locked_down: LockedDown) -> None:
    admin_url, key = locked_down.admin_url, {"X-Admin-Key": ADMIN_KEY}
    for route in ADMIN_ROUTES:
        for headers in ({}, key, key | {"X-API-Key": API_KEY}):
            assert locked_down.ask("POST", route, headers=headers, json={"version": 7}).status_code == 404, "not here"
        for wrong in ({}, {"X-Admin-Key": API_KEY}, {"Authorization": f"Bearer {ADMIN_KEY}"}):
            assert locked_down.ask("POST", route, url=admin_url, headers=wrong, json={"version": 7}).status_code == 401
    outcome = (503, "action-failed") if locked_down.read_only else (404, "not-found")
    for _ in range(2):
        refused = locked_down.ask("POST", "/admin/promote", url=admin_url, headers=key, json={"version": 7})
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == outcome
    for path in ("/", "/health", "/health/live", "/metrics", "/models", "/docs"):
        assert locked_down.ask("GET", path, url=admin_url, headers={"X-API-Key": API_KEY}).status_code == 404, path
    body = {"user_id": USER, "item_ids": ["1"]}
    ranked = locked_down.ask("POST", "/rank", url=admin_url, headers={"X-API-Key": API_KEY}, json=body)
    assert ranked.status_code == 404
    locked_down.wait_for_line("admin_key_refused", route="/admin/promote")
    locked_down.wait_for_line("admin_action", action="promote", outcome=outcome[1])


def send_wrong_keys_and_malformed_requests(locked_down: LockedDown) -> None:
    body = {"user_id": USER, "item_ids": ["1", "2"]}
    for headers in ({}, {"X-API-Key": API_KEY[:-1]}, {"X-API-Key": ADMIN_KEY}, {"Authorization": f"Bearer {API_KEY}"}):
        assert locked_down.ask("POST", "/rank", headers=headers, json=body).status_code == 401
    for content in (
        USER.encode(),
        json.dumps(body).encode()[:-1],
        json.dumps([body, API_KEY]).encode(),
        json.dumps(body | {USER: 1}).encode(),
        json.dumps(body | {"user_id": {USER: PASSWORD}}).encode(),
        json.dumps(body | {"item_ids": USER}).encode(),
        json.dumps(body | {"user_features": [USER]}).encode(),
        json.dumps(body | {"model": USER}).encode(),
        json.dumps(body | {"top_k": USER}).encode(),
        b"[" * 50_000 + USER.encode(),
        b"\xff\xfe" + USER.encode(),
        b'{"user_id": NaN, "item_ids": ["%b"]}' % USER.encode(),
    ):
        assert 400 <= locked_down.rank(content=content).status_code < 500, content[:80]
    assert locked_down.rank(json=body | {"user_features": {USER: USER}, "request_id": "a"}).status_code == 200
    assert locked_down.ask("GET", f"/users/{USER}?key={API_KEY}", headers={"X-API-Key": API_KEY}).status_code == 404
    late = {"X-API-Key": API_KEY, "X-Request-Timeout-Ms": USER}
    assert locked_down.ask("POST", "/rank", headers=late, json=body).status_code == 422
    for raw in (
        f"GET /rank?user={USER}&key={API_KEY}\r\n\r\n",
        f"GET /rank?user={USER} HTTP/9.9\r\nX-API-Key: {API_KEY}\r\n\r\n",
        f"{USER} {API_KEY}\r\n\r\n",
        f"POST /rank HTTP/1.1\r\nHost: a\r\nX-API-Key {API_KEY}\r\nContent-Length: {USER}\r\n\r\n",
        f"POST /rank HTTP/1.1\r\nHost: a\r\nX-API-Key: {API_KEY}\r\n" + f"X: {USER}\r\n" * 200 + "\r\n",
    ):
        locked_down.send(raw.encode())


def check_a_traceback_is_one_line_with_the_ids_of_its_request(locked_down: LockedDown) -> None:
    (folder,) = locked_down.temporary.glob("ctr-workers-*")
    aside = folder.with_name("aside")
    folder.rename(aside)
    headers = {"X-Request-ID": "lost-metrics", "traceparent": TRACEPARENT, "X-API-Key": API_KEY}
    # An answer that was made before is given for a moment.
    until(lambda: locked_down.ask("GET", "/metrics", headers=headers).status_code == 500)
    aside.rename(folder)
    line = locked_down.wait_for_line("unexpected_error", request_id="lost-metrics")
    assert line["trace_id"] == TRACE
    assert "Traceback" in line["exception"]
    assert sum("lost-metrics" in line for line in locked_down.service.log) == 1


def have_the_store_refuse_and_end(locked_down: LockedDown) -> None:
    body = {"user_id": USER, "item_ids": ["1", "2"]}
    with redis.Redis(unix_socket_path=str(locked_down.features.socket), password=PASSWORD) as client:
        client.config_set("requirepass", "another")
        client.client_kill_filter(_type="normal", skipme=True)
    until(lambda: [line for line in locked_down.lines() if "password" in line.get("reason", "")])
    assert "user_features_unavailable" in locked_down.rank(json=body).json()["degraded"]
    assert locked_down.ask("GET", "/health").json()["status"] == "degraded"
    locked_down.features.kill()
    assert "user_features_unavailable" in locked_down.rank(json=body).json()["degraded"]
    assert locked_down.ask("GET", "/health").json()["status"] == "degraded"


def damage_the_pointer(locked_down: LockedDown) -> None:
    (locked_down.store.folder / POINTER).write_text(f'{{"stable": "{USER}"}}')
    locked_down.wait_for_line("model_refused", label="pointer")
    assert locked_down.ask("GET", "/models", headers={"X-API-Key": API_KEY}).status_code == 200


def test_no_secret_and_no_id_of_a_user_is_in_any_line_or_answer(locked_down: LockedDown) -> None:
    check_it_serves_where_only_its_temporary_folder_is_writable(locked_down)
    check_the_admin_has_a_port_of_its_own(locked_down)
    send_wrong_keys_and_malformed_requests(locked_down)
    check_a_traceback_is_one_line_with_the_ids_of_its_request(locked_down)
    have_the_store_refuse_and_end(locked_down)
    damage_the_pointer(locked_down)
    assert locked_down.service.stop() == 0
    shutil.rmtree(locked_down.temporary / "data", ignore_errors=True)
    assert os.listdir(locked_down.temporary) == [], "the metrics' folder went with the service"
    log = locked_down.service.log
    others = [line.split()[0] for line in log if not line.startswith("{")]
    assert others == ["feature", "serving"], "all is JSON but what the command says of itself"
    events = {line["event"] for line in locked_down.lines()}
    assert {"connection_refused", "unexpected_error", "feature_store_unreachable", "admin_key_refused"} <= events
    assert "request" not in events, "nobody asked for a line a request"
    assert len(locked_down.answers) > 40
    for secret in SECRETS:
        assert not [text for text in (*log, *locked_down.answers) if secret in text], secret
    assert not [line for line in log if USER in line]
