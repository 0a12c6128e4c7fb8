"""Tests of the benchmark: peers rank as the published program does, and a wrong ranking is noticed.

The figures mean something only if all contenders do the same work.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import redis

from app.features.loading.synthetic import SyntheticCatalogue
from app.loadgen.generator import LoadGenerator
from app.registry.artifact.load import load
from benchmarks import agreement, training_data
from benchmarks.before import Pair, compare
from benchmarks.capacity import Capacity, Round, one_round
from benchmarks.contenders import AFTERNOON, FLOOR, start_contender
from benchmarks.figure import Figure
from benchmarks.latency import tail_ratio
from benchmarks.machine import realtime_priority
from benchmarks.pauses import pauses, read_pauses, start_spinning, waits_from_pauses
from benchmarks.peers import published
from benchmarks.peers.afternoon import BlockingAfternoon, RankRequest
from benchmarks.peers.floor import SIZE
from benchmarks.ratios import FloorCost, ratios
from benchmarks.report import Report
from benchmarks.testbed import Testbed
from benchmarks.updates import update_visibility
from tests import loopback
from tests.waiting import in_some_run

CANDIDATES = 20
CATALOGUE = SyntheticCatalogue(users=20, items=120, cardinality=30)


@pytest.fixture
def testbed(tmp_path: Path, valkey_url: str, redis_client: redis.Redis) -> Testbed:
    """Load a tiny catalogue into the tests' Valkey; nothing is pinned to a core."""
    testbed = Testbed(tmp_path, valkey_url, CATALOGUE, set(), set())
    testbed.load()
    testbed.publish("bench", hidden=(16, 8))
    return testbed


@pytest.fixture
def options(testbed: Testbed) -> Namespace:
    """The options of a peer's command line."""
    return Namespace(version=testbed.versions["bench"], redis=testbed.redis_url, cardinality=CATALOGUE.cardinality)


def expected(testbed: Testbed, body: bytes) -> dict[str, float]:
    return agreement.reference(load(testbed.versions["bench"]), testbed, msgspec.json.decode(body))


def test_weights_are_read_from_the_published_version(testbed: Testbed) -> None:
    weights = published.read(testbed.versions["bench"])
    assert [weight.shape for weight, _ in weights.layers] == [(16, 32 * 16), (8, 16), (1, 8)]
    assert weights.row("item_f3", "7") != weights.row("item_f4", "7")
    assert weights.row("item_f3", "never seen") == weights.fields.index("item_f3")


def test_the_afternoons_code_ranks_as_the_program_does(testbed: Testbed, options: Namespace) -> None:
    peer = BlockingAfternoon(options)
    for body in testbed.bodies(CANDIDATES)[:5]:
        answer = peer.answer(RankRequest.model_validate_json(body)).model_dump()
        assert agreement.compare(expected(testbed, body), answer["items"]) < 1e-5


def test_the_weeks_code_ranks_as_the_program_does(
    testbed: Testbed, options: Namespace, redis_client: redis.Redis
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install ctr-serving[bench]")
    pytest.importorskip("onnx", reason="onnx is not installed: pip install ctr-serving[bench]")
    from benchmarks.peers import week

    users, items = CATALOGUE.values("user", 0, 20), CATALOGUE.values("item", 0, 120)
    week.prepare(redis_client, options.version, CATALOGUE.cardinality, users, items)

    async def answers(bodies: list[bytes]) -> list[bytes]:
        peer = week.Week(options)
        await peer.start()
        try:
            return await asyncio.gather(*(peer.rank(body) for body in bodies))
        finally:
            peer.stop()

    bodies = testbed.bodies(CANDIDATES)[:5]
    for body, answer in zip(bodies, asyncio.run(answers(bodies)), strict=True):
        assert agreement.compare(expected(testbed, body), msgspec.json.decode(answer)["items"]) < 1e-5


def test_compare_finds_what_is_wrong() -> None:
    truth = {"a": 0.9, "b": 0.5, "c": 0.49999, "d": 0.1}

    def ranked(*pairs: tuple[str, float]) -> list[dict[str, object]]:
        return [{"item_id": item_id, "score": score} for item_id, score in pairs]

    right = [("a", 0.9), ("b", 0.5), ("c", 0.49999), ("d", 0.1)]
    assert agreement.compare(truth, ranked(*right)) == 0.0
    tied = [right[0], right[2], right[1], right[3]]
    assert 0 < agreement.compare(truth, ranked(*tied)) < agreement.TOLERANCE
    assert agreement.compare(truth, ranked(right[1], right[0], *right[2:])) == pytest.approx(0.4)
    assert agreement.compare(truth, ranked(*right[:3], ("d", 0.3))) == pytest.approx(0.2)
    assert agreement.compare(truth, ranked(*right[:3])) == math.inf
    assert agreement.compare(truth, ranked(*right, right[0])) == math.inf


@pytest.mark.slow
def test_a_peer_that_ranks_otherwise_ends_the_run(testbed: Testbed) -> None:
    with start_contender(testbed, AFTERNOON) as contender:
        assert agreement.check_rankings(testbed, [contender], [CANDIDATES]) < 1e-5
        # The peer goes on with the features of the store, which are no longer those of the catalogue.
        with redis.Redis.from_url(testbed.redis_url) as client:
            for number in range(CATALOGUE.users):
                client.hset(
                    f"ctr:v1:user:{number}",
                    "user_f0",
                    (int(CATALOGUE.values("user", number, number + 1)[0, 0]) + 1) % 30,
                )
        with pytest.raises(SystemExit, match="afternoon does not give the same ranking"):
            agreement.check_rankings(testbed, [contender], [CANDIDATES])


@pytest.mark.slow
def test_the_floor_answers_as_many_bytes_as_it_is_told_and_is_measured(testbed: Testbed) -> None:
    with start_contender(testbed, FLOOR) as contender:
        answer = loopback.post(f"{contender.url}/rank", content=b"{}", headers={SIZE.decode(): "1234"})
        assert len(answer.content) == 1234
        contender.process.pause()
        contender.process.resume()
        measured = one_round(contender, LoadGenerator(contender.url, testbed.bodies(CANDIDATES)), 0.3)
    assert measured.requests_per_second >= measured.wall_requests_per_second > 100
    assert 0 < measured.cpu_ms < 10


@pytest.mark.faults
@pytest.mark.slow
def test_the_service_is_measured_like_its_peers(testbed: Testbed) -> None:
    for figure in tail_ratio(testbed, seconds=0.3, rounds=3):
        assert figure.reached is not None
        assert figure.reached >= 1
    with testbed.service(settings={"CTR_MAX_INFLIGHT": "64"}) as (_, url):
        updated = update_visibility(testbed, url, updates=5)
    assert updated.reached is not None
    assert 0 < updated.reached < 2000


def test_a_generator_that_goes_first_is_ordinary_afterwards() -> None:
    before = os.sched_getscheduler(0)
    seen: list[int] = []
    with realtime_priority() as goes_first:
        thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
    assert seen == [os.SCHED_RR if goes_first else before]
    assert os.sched_getscheduler(0) == before


def test_a_store_that_goes_first_is_ordinary_afterwards() -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    before = os.sched_getscheduler(other.pid)
    try:
        with realtime_priority(other.pid) as goes_first:
            assert os.sched_getscheduler(other.pid) == (os.SCHED_RR if goes_first else before)
        assert os.sched_getscheduler(other.pid) == before
    finally:
        other.communicate(b"\n")


def test_what_pauses_alone_make_requests_wait() -> None:
    """At 1,000 requests a second of 0.5 ms, a pause of 10 ms delays ten, and ten that come while those are served."""
    for sender, server in (([], [(0.1, 0.01)]), ([(0.1, 0.01)], [])):
        waits_ms = 1000 * waits_from_pauses(sender, server, 1000, 2000, 0.3)
        assert np.count_nonzero(waits_ms > 0.01) == pytest.approx(20, abs=2)
        assert waits_ms.max() == pytest.approx(10, abs=0.1)
        assert waits_ms[90] == pytest.approx(0, abs=1e-6)
        assert waits_ms[105] == pytest.approx(5 + 5 * 0.5, abs=0.6)
    assert waits_from_pauses([], [], 1000, 2000, 0.1).max() == pytest.approx(0, abs=1e-9)
    both_ms = 1000 * waits_from_pauses([], [(0.1, 0.001), (0.1012, 0.001)], 1000, 2000, 0.3)
    assert both_ms.max() == pytest.approx(2, abs=0.1), "work that a second pause falls into is stretched again"


def test_a_stopped_program_is_a_pause_as_long_as_it_was_stopped() -> None:
    def stop_one() -> None:
        process = start_spinning(min(os.sched_getaffinity(0)), 1.0)
        assert process.stdout is not None
        assert process.stdout.readline() == b"spinning\n"
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGCONT)
        noticed = read_pauses(process)
        start, length = max(noticed, key=lambda pause: pause[1])
        assert length >= 0.29
        assert start > 0.15
        assert all(0 <= start < 1.0 and length > 0 for start, length in noticed)

    in_some_run(stop_one)


def test_pauses_are_measured_on_each_core() -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    assert len(pauses(cores, 0.05)) == len(cores)


def capacity(**rates: float) -> Capacity:
    result = Capacity()
    for name, rate in rates.items():
        for size in (100, 500, 1000):
            result.rounds[name, size] = [Round(rate * 100 / size, rate, 1.0, 2.0, 1000 / rate, 1.0, 0.0)]
    return result


def test_a_checkout_is_compared_round_by_round() -> None:
    figure = Pair(this=[100, 190, 300], before=[100, 200, 400]).figure("requests/s", "requests/s")
    assert figure.reached == pytest.approx(0.95)
    assert figure.met is False
    assert "rounds from 0.75x to 1.00x" in figure.note


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is no checkout"):
        compare(Namespace(), tmp_path, [100], rounds=1, seconds=0.1, notify=print)


def test_training_is_measured_on_movielens_where_the_samples_are_not_there(tmp_path: Path) -> None:
    columns = training_data.columns(tmp_path / "absent.csv.gz")
    assert len(columns) > 50_000
    assert set(columns.categories) > {"user_id", "item_id"}


def test_ratios_are_of_the_medians() -> None:
    figures = ratios(
        capacity(ctr=3000, afternoon=100, week=1000, floor=10_000),
        {500: FloorCost(echo_ms=0.5, get_ms=0.1, products_ms=0.4)},
    )
    assert [figure.reached for figure in figures] == pytest.approx([30, 3, 30, 3, 1000 / 600 / 1.0, 10])
    assert [figure.met for figure in figures] == [True, False, True, True, False, False]


def test_what_was_not_measured_is_said_not_to_be() -> None:
    figures = ratios(capacity(ctr=3000), {})
    assert figures[0].reached is None
    assert figures[0].met is None
    report = Report(
        {"versions": {}, "commit": "", "cpu": "", "cores": 2, "system": "", "python": ""}, {}, {}, figures=figures
    )
    assert "not measured" in report.page()
    assert report.document()["figures"][0]["met"] is None


def test_the_page_shows_every_service_and_figure() -> None:
    machine = {
        "versions": {"torch": "2"},
        "commit": "abc",
        "cpu": "a CPU",
        "cores": 2,
        "system": "Linux",
        "python": "3.11",
    }
    measured = capacity(ctr=3000, afternoon=100)
    report = Report(
        machine, {"items": 9}, {"rounds": 1}, 1e-7, measured, {}, [Figure("a thing", "at most", 2, "ms", 1.5)]
    )
    page = report.page()
    assert "| 500 | ctr | 600 |" in page
    assert "30.00x" in page
    assert "| a thing | at most 2 ms | 1.50 ms | yes |" in page
