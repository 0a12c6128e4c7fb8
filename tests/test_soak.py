"""Tests of the soak: a spike, a mixed answer and a leak are noticed, and a short run goes from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import redis
from typer.testing import CliRunner

from app.features.loading.synthetic import SyntheticCatalogue
from app.registry.artifact.load import load
from benchmarks import agreement
from benchmarks.figure import Figure
from benchmarks.report import figure_rows
from benchmarks.soak import shadow
from benchmarks.soak.__main__ import cli
from benchmarks.soak.distinct import growth, numbered, recomputed
from benchmarks.soak.fleet import followed
from benchmarks.soak.recording import Recording
from benchmarks.soak.service import BEATS, Beats
from benchmarks.soak.swaps import SwapTimeline, figures
from benchmarks.soak.versions import publish, store_of
from benchmarks.testbed import Testbed

ROOT = Path(__file__).parents[1]
CATALOGUE = SyntheticCatalogue(users=20, items=120, cardinality=30)


def recording(*, spike_ms: float = 0.0, first_ms: float = 0.0) -> tuple[Recording, SwapTimeline]:
    """Return 500 requests a second of 2 to 3 ms: 10 s of version 1, then versions 2 and 3 for 5 s each."""
    answers, timeline = Recording(), SwapTimeline(steady=[(0.0, 10.0)], asked_at={2: 9.0, 3: 14.0})
    dice = np.random.default_rng(0)
    for due in np.arange(0, 20, 0.002):
        version = 1 + int(due >= 10) + int(due >= 15)
        since = due - {1: -100.0, 2: 10.0, 3: 15.0}[version]
        taken_ms = 2 + dice.random()
        taken_ms += spike_ms * (min(abs(due - 10), abs(due - 15)) < 0.02) + first_ms * (0.002 < since < 0.005)
        answers.due_s.append(float(due))
        answers.done_s.append(float(due + taken_ms / 1000))
        answers.version.append(version)
    return answers, timeline


def test_a_quiet_run_is_said_to_be_quiet() -> None:
    failed, around, median, first = figures(*recording(), [2, 3], 500)
    assert failed.met
    assert failed.reached == 0
    assert around.reached == pytest.approx(1.0, abs=0.05)
    assert median.met
    assert first.met


def test_a_spike_around_swaps_and_a_slow_first_request_are_found() -> None:
    _, around, median, first = figures(*recording(spike_ms=10), [2, 3], 500)
    assert not around.met
    assert not median.met
    _, around, _, first = figures(*recording(first_ms=10), [2, 3], 500)
    assert around.met, "one request of 500 is no p99"
    assert not first.met


def test_steady_is_what_lies_between_swaps_too() -> None:
    timeline = SwapTimeline(steady=[(0, 10), (40, 50)], asked_at={2: 10, 3: 20, 4: 50})
    live_at = {1: 0.0, 2: 11.5, 3: 21.0, 4: 52.0}
    assert np.allclose(timeline.steady_spans(live_at), [(1.5, 10), (12.8, 20), (22.3, 40), (41.5, 50)])
    assert SwapTimeline(steady=[(0, 1)]).steady_spans({}) == [(0.5, 1)], "of a short one half is left"


def test_failures_are_counted_and_a_version_that_never_answers_ends_the_run() -> None:
    answers, timeline = recording()
    answers.add(19.0, 503, b"")
    assert figures(answers, timeline, [2, 3], 500)[0].reached == 1
    with pytest.raises(SystemExit, match="never answered"):
        figures(answers, timeline, [2, 3, 4], 500)


def test_growth_is_of_the_settled_part() -> None:
    level = [100 + 50 * (number < 20) for number in range(300)]
    assert growth(level).reached == 0
    leak = growth([100 + 0.02 * number for number in range(300)])
    assert leak.reached == pytest.approx(2.0)
    assert leak.met is False
    assert growth([100.0] * 22).reached is None


def test_how_long_workers_take_to_follow_is_to_the_last_old_answer() -> None:
    answers = Recording()
    for due, version in ((0.5, 1), (1.5, 1), (2.0, 2), (2.5, 1), (3.0, 2), (9.0, 1)):
        answers.due_s.append(due)
        answers.done_s.append(due + 0.01)
        answers.version.append(version)
    assert followed("publish", answers, 1.0, 1.8, 1, 2, 8.0).reached == pytest.approx(0.71)
    assert followed("publish", answers, 1.0, 1.8, 1, 3, 8.0).reached is None


def test_beats_tell_when_the_loop_did_not_turn(tmp_path: Path) -> None:
    Beats(tmp_path / "beats", create=True)
    ring = np.memmap(tmp_path / "beats", np.float64, "r+", shape=(1 + BEATS,))
    at = [1.0, 1.001, 1.002, 1.032, 1.033]
    ring[1 : 1 + len(at)], ring[0] = at, len(at)
    beats = Beats(tmp_path / "beats")
    assert beats.held_ms(0, 2).max() == pytest.approx(29)
    assert beats.held_ms(1.01, 1.02).max() == pytest.approx(29), "though no beat is inside"
    assert beats.held_ms(1.0, 1.0015).max() == pytest.approx(0, abs=1e-6)


def test_what_a_shadow_costs_is_of_the_settled_parts_of_its_stretches() -> None:
    answers, dice = Recording(), np.random.default_rng(0)
    alone, shadowed = SwapTimeline(steady=[(0.0, 5.0), (10.0, 15.0)]), SwapTimeline(steady=[(5.0, 10.0), (15.0, 20.0)])
    for due in np.arange(0, 20, 0.002):
        taken_ms = 2 + dice.random() + 2 * (due // 5 % 2) + 50 * (due % 5 < 1.4)
        answers.due_s.append(float(due))
        answers.done_s.append(float(due + taken_ms / 1000))
        answers.version.append(1)
    cost = shadow.figure(answers, alone, shadowed, 500, {"compared": 7, "skipped": 90, "failed": 1})
    assert cost.reached == pytest.approx(5 / 3, rel=0.01)
    assert "7 were compared, 90 skipped, 1 failed" in cost.note
    assert cost.met is None
    judged = Figure("another", "at most", 2.0, reached=1.0)
    assert [row[1:4] for row in figure_rows([cost, judged])] == [["-", "1.67x", "-"], ["at most 2x", "1.00x", "yes"]]


def test_an_answer_of_two_versions_is_found(tmp_path: Path, valkey_url: str, redis_client: redis.Redis) -> None:
    testbed = Testbed(tmp_path, valkey_url, CATALOGUE, set(), set())
    versions = publish(testbed, "bench", [1, 2], hidden=(16, 8))
    requests = numbered(testbed.bodies(20))[:4]
    answers = []
    for version in versions:
        artifact = load(store_of(testbed, "bench").path(version))
        for number, body in enumerate(requests):
            scores = agreement.reference(artifact, testbed, msgspec.json.decode(body))
            items = [{"item_id": i, "score": s} for i, s in sorted(scores.items(), key=lambda pair: -pair[1])]
            answers.append({"request_id": str(number), "version": version, "items": items, "degraded": []})
    right = recomputed(testbed, "bench", list(map(msgspec.json.encode, answers)), requests, lambda _: None)
    assert right.reached == pytest.approx(0, abs=1e-7)
    mixed = {**answers[0], "version": 2}
    wrong = recomputed(testbed, "bench", [msgspec.json.encode(mixed)], requests, lambda _: None)
    assert wrong.met is False
    assert "1 of them further off" in wrong.note
    degraded = msgspec.json.encode({**mixed, "degraded": ["user_features_unavailable"]})
    assert "1 more say" in recomputed(testbed, "bench", [degraded], requests, lambda _: None).note


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "timings"), [("swaps", 3), pytest.param("loop,shadow,swaps,distinct", 4, marks=pytest.mark.faults)]
)
def test_a_quick_run_from_end_to_end(parts: str, timings: int) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--quick", "--only", parts, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads(done.stdout)
    by_title = {figure["what"]: figure for figure in document["figures"]}
    assert by_title["requests failed or degraded in 2 swaps under load"]["reached"] == 0
    recomputed = by_title.get("largest difference of a response from the version it names, recomputed")
    assert recomputed is None if parts == "swaps" else recomputed["met"]
    assert ("p99 with a shadow over without, medians of stretches" in by_title) == ("shadow" in parts)
    # How quick it is depends on what else the machine does; that it was measured does not.
    timed = [figure["reached"] for what, figure in by_title.items() if "over the steady p99" in what or "held" in what]
    assert len(timed) == timings
    assert all(reached > 0 for reached in timed)


def test_help_shows_examples() -> None:
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0
    assert "make soak ARGS=--quick" in shown.stdout
