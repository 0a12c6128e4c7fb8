"""`ctr evaluate-policy` finds answers, prints estimates, and says what they rest on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS
from app.events.segment import segment_name, write_segment
from app.events.segment_columns import to_batch
from tests.command_line import Ctr, command_line
from tests.events.records import AT_US, blocks, click, impression, item

UNTIL = ["--until", "2026-09-22"]
"""After the records, whose windows are over by then."""


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Ctr:
    monkeypatch.delenv("CTR_EVENTS", raising=False)
    monkeypatch.setenv("CTR_MODEL_STORE", str(tmp_path / "model_store"))
    return command_line(monkeypatch, capsys)


def joined(ctr: Ctr, folder: Path, count: int) -> str:
    """Record answers of three items of 500 candidates, the first of which is clicked in half of them, and join them."""
    answers = [impression(number, propensities=True) for number in range(count)]
    records = {
        ITEMS: [item(reference) for reference in range(10 * count + 3)],
        IMPRESSIONS: blocks(one._replace(scores=np.array([0.3, 0.2, 0.1], np.float32)) for one in answers),
        FEEDBACK: [click(number) for number in range(0, count, 2)],
    }
    for kind, of_kind in records.items():
        write_segment(folder / "events", segment_name(kind, AT_US, "w"), [to_batch(kind, of_kind)])
    assert ctr("join", "--events", str(folder / "events"), "--out", str(folder / "joined"), *UNTIL)[0] == 0
    return str(folder / "joined")


def test_estimates_are_printed_with_what_they_rest_on(ctr: Ctr, tmp_path: Path) -> None:
    arguments = ["evaluate-policy", "--data", joined(ctr, tmp_path, 200), "--places", "2"]
    status, out, err = ctr(*arguments, "--json")
    assert status == 0, err
    document = json.loads(out)
    assert document["policy"] == "greedy"
    assert (document["version"], document["places"], document["answers"]) == (None, 2, 200)
    assert document["policies"] == {"softmax:0.05": 200}
    assert document["logged"]["value"] == pytest.approx(0.5)
    assert document["snips"]["value"] == pytest.approx(0.5)
    assert document["logged"]["low"] < 0.5 < document["logged"]["high"]
    assert document["mean_weights"] == pytest.approx([2.0, 4.0])
    assert "weights average 4.00 and not 1: the order in question takes items that are not recorded" in err
    status, out, _ = ctr(*arguments)
    assert status == 0
    assert [line.split("\t")[:2] for line in out.splitlines()] == [
        ["", "clicks"],
        ["as shown: softmax:0.05", "0.5000"],
        ["greedy: SNIPS", "0.5000"],
        ["greedy: IPS", "1.0000"],
        ["greedy over what was shown", "+0.0000"],
    ]


def test_few_effective_answers_are_warned_of(ctr: Ctr, tmp_path: Path) -> None:
    status, _, err = ctr("evaluate-policy", "--data", joined(ctr, tmp_path, 20), "--policy", "softmax:0.05")
    assert status == 0
    assert "the estimates rest on 20 effective answers" in err
    assert "weights average" not in err, "of the very policy that is recorded the propensities are known"


def test_without_answers_in_a_period_it_says_so(ctr: Ctr, tmp_path: Path) -> None:
    status, out, err = ctr("evaluate-policy", "--data", joined(ctr, tmp_path, 20), "--until", "2026-09-20")
    assert (status, out) == (1, "")
    assert "no answers are recorded in that time" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "best"], "'best' is not a policy; write softmax:0.05"),
        (["--data", "a", "--events", "b"], "--data and --events are two sources"),
        (["--data", "nowhere"], "`ctr join --events DIR --out nowhere` has written nothing there"),
        (["--data", "nowhere", "--version", "3"], "deepfm 3 is not in"),
        ([], "which log? Give --events DIR, or set CTR_EVENTS"),
    ],
)
def test_mistakes_are_said_in_a_line(ctr: Ctr, arguments: list[str], said: str) -> None:
    status, out, err = ctr("evaluate-policy", *arguments)
    assert (status, out) == (1, "")
    assert said in err
