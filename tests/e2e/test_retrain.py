"""Retraining beside a running service, as a scheduler starts it: the version changes and no request fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
import redis

from app.errors import NotPublished
from app.registry.store.model_store import ModelStore
from app.training.retrain import LOCK, retraining_lock
from tests import loopback
from tests.e2e.conftest import Running, Serve
from tests.training.test_retrain import train_first

CTR = [sys.executable, "-c", "from app.cli import main; main()"]
ROWS = ["--data", "clicks.csv", "--label", "clicked", "--timestamp", "at"]
ENDED_S = 60.0


@pytest.fixture
def environment(store: ModelStore, valkey_url: str, tmp_path: Path) -> dict[str, str]:
    settings = {"REDIS_URL": valkey_url, "MODEL_STORE": str(store.folder.parent), "DATA_DIR": str(tmp_path / "data")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CTR_")}
    root = str(Path(__file__).parents[2])
    return kept | {f"CTR_{name}": value for name, value in settings.items()} | {"PYTHONPATH": root}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Return a folder with a first version live, and more rows than it was trained on."""
    train_first(tmp_path)
    return tmp_path


@pytest.fixture
def features(redis_client: redis.Redis) -> None:
    for number in range(60):
        redis_client.hset(f"ctr:v1:user:u{number}", mapping={"city": f"c{number % 2}"})
    for number in range(20):
        redis_client.hset(f"ctr:v1:item:i{number}", mapping={"price": f"{number}.5"})


class Traffic:
    """Requests one after the other until told to stop; counts answers by status and version."""

    def __init__(self, url: str) -> None:
        self.answers: Counter[tuple[int, str | None]] = Counter()
        self._url, self._stop = url, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        with loopback.http_client() as client:
            while not self._stop.is_set():
                number += 1
                time.sleep(0.01)
                body = {"user_id": f"u{number % 60}", "item_ids": [f"i{item}" for item in range(20)]}
                try:
                    response = client.post(f"{self._url}/rank", json=body)
                except httpx.HTTPError:
                    self.answers[0, None] += 1
                else:
                    self.answers[response.status_code, response.headers.get("x-model-version")] += 1


def version(service: Running) -> int | None:
    return loopback.get(f"{service.url}/health").json()["model"]["version"]  # type: ignore[no-any-return]


@pytest.mark.faults
def test_a_retraining_changes_the_version_and_no_request_fails(
    trained: Path, environment: dict[str, str], features: None, store: ModelStore, serve: Serve
) -> None:
    """Run the loop as compose does: a round publishes, and a signal ends the wait for the next."""
    service = serve()
    assert version(service) == 1
    loop = [*CTR, "retrain", *ROWS, "--only-new", "--every", "1h", "--json"]
    with (
        Traffic(service.url) as traffic,
        subprocess.Popen(
            loop, cwd=trained, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process,
    ):
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        service.wait_until(lambda health: health["model"]["version"] == 2)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDED_S) == 0
    assert (found["published"], found["live"], found["version"]) == (True, 1, 2), found
    assert found["gate"]["checks"][1]["name"] == "schema", "the gate met the live feature store"
    assert {status for status, _ in traffic.answers} == {200}, traffic.answers
    assert min(traffic.answers[200, "1"], traffic.answers[200, "2"]) > 10, traffic.answers
    assert store.pointer().stable == 2


@pytest.mark.faults
def test_a_stop_signal_in_the_middle_leaves_everything_as_it_was(
    trained: Path, environment: dict[str, str], store: ModelStore
) -> None:
    endless = ["--epochs", "100000", "--learning-rate", "1e-9", "--min-gain", "-1"]
    with subprocess.Popen(
        [*CTR, "retrain", *ROWS, *endless], cwd=trained, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said: list[str] = []
        while not any("Training deepfm" in line for line in said):
            said.append(process.stderr.readline())
            assert said[-1], said
        with pytest.raises(NotPublished, match="is being retrained already"), retraining_lock(store):
            raise AssertionError
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(ENDED_S) == 128 + signal.SIGTERM
    assert (store.versions(), store.pointer().stable) == ([1], 1)
    assert {path.name for path in store.folder.iterdir()} == {"1", "serving.json", ".history.json", ".lock", LOCK}
    with retraining_lock(store):
        pass
