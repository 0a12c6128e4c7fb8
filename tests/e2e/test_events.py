"""A service that records: nothing is lost at its end, and what is recorded is what was answered."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from app.events.impression_id import parse_impression_id
from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install ctr-serving[events]")
from app.events.segment import segments  # noqa: E402
from app.registry.store.model_store import ModelStore  # noqa: E402
from app.registry.store.pointer import Pointer  # noqa: E402
from tests import loopback  # noqa: E402
from tests.e2e.conftest import Running, Serve, workers_of  # noqa: E402
from tests.factories import publish_tiny  # noqa: E402
from tests.waiting import until  # noqa: E402


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [row for _, path in segments(folder, kind) for row in pq.read_table(path).to_pylist()]


def counted(service: Running, start: str) -> float:
    lines = loopback.get(f"{service.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


@pytest.mark.usefixtures("loaded")
def test_what_was_answered_and_sent_is_in_the_files_once_the_service_has_ended(
    store: ModelStore, serve: Serve, tmp_path: Path
) -> None:
    publish_tiny(store)
    folder = tmp_path / "events"
    service = serve("--workers", "2", EVENTS=str(folder), EVENTS_TOP="5")
    answers = [service.rank(str(number), request_id=f"own-{number}" if number % 2 else None) for number in range(40)]
    bodies = [answer.json() for answer in answers]
    clicks = [
        {"request_id": body["request_id"], "item_id": body["items"][0]["item_id"], "type": "click"} for body in bodies
    ]
    sent = loopback.post(f"{service.url}/feedback", json=clicks)
    assert sent.json() == {"accepted": 40, "rejected": 0, "errors": []}
    until(lambda: counted(service, 'ctr_feedback_total{label="stable"') == 20)  # half of the ids are the caller's own
    until(lambda: counted(service, "ctr_calibration_impressions_total{") == 200)
    assert counted(service, "ctr_calibration_clicks_total{") <= 20
    assert service.stop() == 0
    shown = {row["caller_id"] or row["impression_id"]: row for row in rows(folder, IMPRESSIONS)}
    items = {row["reference"]: row["item_id"] for row in rows(folder, ITEMS)}
    assert shown.keys() == {body["request_id"] for body in bodies}
    for number, body in enumerate(bodies):
        row = shown[body["request_id"]]
        assert row["impression_id"] == (body["impression_id"] if number % 2 else body["request_id"])
        assert parse_impression_id(row["impression_id"])[1:3] == (1, "stable")
        assert row["user_id"] == str(number)
        assert [items[reference] for reference in row["items"]] == [item["item_id"] for item in body["items"][:5]]
        assert row["scores"] == pytest.approx([item["score"] for item in body["items"][:5]], abs=1e-7)
    assert [row["request_id"] for row in rows(folder, FEEDBACK)] == [body["request_id"] for body in bodies]


@pytest.mark.usefixtures("loaded")
def test_what_an_explored_answer_says_is_what_is_recorded(store: ModelStore, serve: Serve, tmp_path: Path) -> None:
    publish_tiny(store)
    folder = tmp_path / "events"
    service = serve(EVENTS=str(folder), EVENTS_TOP="5", EXPLORE="softmax:1", EXPLORE_SHARE="0.5")
    bodies = [service.rank(str(number)).json() for number in range(40)]
    pinned = service.rank("1", model="stable").json()
    assert service.stop() == 0
    shown = {row["impression_id"]: row for row in rows(folder, IMPRESSIONS)}
    explored = [body for body in bodies if "exploration" in body]
    assert 5 < len(explored) < 35
    assert any(body["items"] != sorted(body["items"], key=lambda item: -item["score"]) for body in explored)
    for body in [*bodies, pinned]:
        row, items = shown[body["request_id"]], body["items"]
        assert row["scores"] == pytest.approx([item["score"] for item in items[:5]], abs=1e-7)
        if "exploration" in body:
            assert body["exploration"] == {"policy": "softmax", "parameter": 1.0}
            assert (row["policy"], row["policy_parameter"]) == ("softmax", 1.0)
            assert row["propensities"] == pytest.approx([item["propensity"] for item in items[:5]], rel=1e-6)
        else:
            assert (row["policy"], row["propensities"]) == ("", None)
        assert ["propensity" in item for item in items] == ["exploration" in body] * 5 + [False] * (len(items) - 5)
    assert "exploration" not in pinned


@pytest.mark.usefixtures("loaded")
def test_a_worker_that_is_killed_loses_a_second_at_most(store: ModelStore, serve: Serve, tmp_path: Path) -> None:
    publish_tiny(store)
    folder = tmp_path / "events"
    service = serve("--workers", "2", EVENTS=str(folder))
    for number in range(20):
        service.rank(str(number))

    def written() -> bool:
        metrics = loopback.get(f"{service.url}/metrics").text
        return 'ctr_events_written_total{kind="impressions"} 20.0' in metrics

    until(written)
    for worker in workers_of(service):
        os.kill(worker, signal.SIGKILL)
    service.wait_until(lambda health: health["status"] == "ok")
    assert service.stop() == 0
    assert len(rows(folder, IMPRESSIONS)) == 20


@pytest.mark.usefixtures("loaded")
def test_a_canary_whose_answers_nobody_clicks_is_taken_out(store: ModelStore, serve: Serve, tmp_path: Path) -> None:
    publish_tiny(store)
    service = serve("--workers", "2", EVENTS=str(tmp_path / "events"))
    publish_tiny(store, 1, labels=("canary",), share=0.5)
    service.wait_until(lambda health: "canary" in health["model"]["labels"])
    users = itertools.count()

    def is_out() -> bool:
        """Ask for some answers, click on stable's, and look."""
        bodies = [service.rank(f"new-{next(users)}").json() for _ in range(20)]
        clicks = [
            {"request_id": body["request_id"], "item_id": body["items"][0]["item_id"], "type": "click"}
            for body in bodies
            if body["label"] == "stable"
        ]
        loopback.post(f"{service.url}/feedback", json=clicks)
        return store.pointer() == Pointer(1)

    until(is_out)
    service.wait_until(lambda health: health["reasons"] == ["canary_refused: clicks"])
    assert counted(service, 'ctr_canary_withdrawn_total{reason="clicks"}') >= 1
