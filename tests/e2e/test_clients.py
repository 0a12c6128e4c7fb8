"""HTTP clients as they are: each gets 200, 413 and 503 as they were sent, and none of them a broken connection."""

from __future__ import annotations

import collections
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.registry.store.model_store import ModelStore
from tests import loopback
from tests.e2e.clients import python_client
from tests.e2e.conftest import Shared, services

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "clients"
FEW, MANY = 4, 1000  # curl sends bodies of four sizes
EXTRA_PATH = os.environ.get("HTTP_CLIENTS", "")
"""A folder with further clients, say of `pip install --target FOLDER aiohttp`."""
CURL = {"curl 1.0": "--http1.0", "curl 1.1": "--http1.1", "curl --http2": "--http2"}


@dataclass(frozen=True)
class Urls:
    service: str
    without_model: str


@pytest.fixture(scope="module")
def urls(shared: Shared, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    folder = tmp_path_factory.mktemp("empty")
    with services(ModelStore(folder / "model_store", "deepfm"), valkey_url, folder / "data") as start:
        yield Urls(shared.service.url, start(wait=False).url)


def python(urls: Urls, count: int, client: str) -> dict[str, int]:
    module = client.partition(",")[0]
    environment = {**os.environ, "PYTHONPATH": EXTRA_PATH, "no_proxy": "*"}
    found = subprocess.run(
        [sys.executable, "-c", f"import {module}"], env=environment, capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip(f"{module} is not installed")
    return _counted(
        [sys.executable, str(FOLDER / "python_client.py"), client, urls.service, urls.without_model, str(count)],
        environment,
    )


def node(urls: Urls, count: int) -> dict[str, int]:
    return _counted([_program("node"), str(FOLDER / "fetch.mjs"), urls.service, urls.without_model, str(count)])


def java(urls: Urls, count: int, body: str) -> dict[str, int]:
    _program("javac")  # a runtime alone does not compile
    run = [_program("java"), "-Xmx256m", str(FOLDER / "Rank.java")]
    return _counted([*run, urls.service, urls.without_model, str(count), body])


def curl(urls: Urls, count: int, option: str, folder: Path) -> dict[str, int]:
    outcomes: collections.Counter[str] = collections.Counter()
    (folder / "small").write_bytes(python_client.BODY)
    sizes = sorted(set(python_client.SIZES))
    for size in sizes:
        (folder / f"large{size}").write_bytes(b"x" * size)
    runs = [(urls.service, "small", count), (urls.without_model, "small", count)]
    runs += [(urls.service, f"large{size}", count // len(sizes)) for size in sizes]
    for url, body, times in runs:
        command = [_program("curl"), "--silent", "--show-error", "--noproxy", "*", option, "--max-time", "100"]
        command += ["-H", "Content-Type: application/json", "--data-binary", f"@{folder / body}"]
        command += ["-o", os.devnull, "-w", "%{http_code}\n", f"{url}/rank?[1-{times}]"]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        outcomes.update(finished.stdout.split())
        outcomes.update([finished.stderr] if finished.stderr else [])
    return dict(outcomes)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def _counted(command: list[str], environment: dict[str, str] | None = None) -> dict[str, int]:
    finished = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    return {str(status): int(count) for status, count in json.loads(finished.stdout).items()}


def ask(client: str, urls: Urls, count: int, folder: Path) -> dict[str, int]:
    if client in CURL:
        return curl(urls, count, CURL[client], folder)
    if client.startswith("Java"):
        return java(urls, count, client.split()[-1])
    return node(urls, count) if client == "Node fetch" else python(urls, count, client)


CLIENTS = [*CURL, *python_client.CLIENTS, "Node fetch", "Java length", "Java chunks"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_gets_what_was_answered(client: str, urls: Urls, tmp_path: Path) -> None:
    _check(client, urls, FEW, tmp_path)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_gets_what_was_answered_a_thousand_times(client: str, urls: Urls, tmp_path: Path) -> None:
    _check(client, urls, MANY, tmp_path)


def _check(client: str, urls: Urls, count: int, folder: Path) -> None:
    expected = {"200": count, "413": count, "503": count}
    assert ask(client, urls, count, folder) == expected


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log; client_max_body_size 30m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream service {{ server {service}; keepalive 16; keepalive_timeout 60s; }}
  server {{
    listen 127.0.0.1:{port};
    location /ctr/ {{ proxy_pass http://service/; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


@pytest.fixture
def proxy(urls: Urls, tmp_path: Path) -> Iterator[str]:
    """An nginx that keeps its connections to the service for 60 s, and shows it at /ctr/."""
    program = _program("nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(NGINX.format(folder=tmp_path, port=port, service=urls.service.removeprefix("http://")))
    with subprocess.Popen([program, "-p", str(tmp_path), "-c", str(configuration)], stderr=subprocess.DEVNULL) as nginx:
        due = time.monotonic() + 10
        while time.monotonic() < due:
            try:
                loopback.get(f"http://127.0.0.1:{port}/ctr/health", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{port}/ctr"
        finally:
            nginx.terminate()
            nginx.wait(20)


def test_nothing_is_lost_behind_a_proxy(proxy: str) -> None:
    _check_proxy(proxy, pauses_s=[0.0] * 20 + [1.0])


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_nothing_is_lost_behind_a_proxy_that_keeps_connections_for_longer_than_they_are_used(proxy: str) -> None:
    """Ten minutes; the pauses are just those after which servers like to close what is idle."""
    pauses_s, total_s = [], 0.0
    while total_s < 600:
        for pause_s in (5.0, 5.01, 4.99, 0.0, 0.1, 2.0, 10.0, 30.0, 59.9, 60.0, 60.1):
            pauses_s.append(pause_s)
            total_s += pause_s
    _check_proxy(proxy, pauses_s)


def _check_proxy(proxy: str, pauses_s: list[float]) -> None:
    statuses: collections.Counter[int] = collections.Counter()
    with loopback.http_client() as client:
        for pause_s in pauses_s:
            time.sleep(pause_s)
            for body in (python_client.BODY, b"x" * 700_000, b"{}"):
                statuses[client.post(f"{proxy}/rank", content=body).status_code] += 1
            statuses[client.get(f"{proxy}/health/live").status_code] += 1
    count = len(pauses_s)
    assert statuses == {200: 2 * count, 413: count, 422: count}
