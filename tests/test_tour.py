"""The tour, run as it is written: its blocks in their order, in an empty folder, with `ctr serve` beside them."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path

import httpx
import polars as pl
import pytest
from typer.testing import CliRunner

from app.cli import cli
from tests.pages import DOCS, FENCED
from tests.shells import make_shell, run, served
from tests.waiting import until

STEPS = [block for block in FENCED.findall((DOCS / "tour.md").read_text()) if block[0] in ("python", "sh")]
SERVE = "ctr serve\n"
LIKED = 2.0
"""By how many times as often the example's visitors click what has their colour, at least."""


def test_the_example_has_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be tried in a second: the table is made, and a schema proposed for it, with the lines that are shown."""
    monkeypatch.chdir(tmp_path)
    ((_, example),) = [step for step in STEPS if step[0] == "python"]
    exec(compile(example, "example.py", "exec"), {})  # noqa: S102
    rows = pl.read_csv("clicks.csv")
    rates = rows.group_by(pl.col("likes") == pl.col("colour")).agg(pl.col("clicked").mean()).sort("likes")["clicked"]
    assert rates[1] > LIKED * rates[0]
    assert CliRunner().invoke(cli, ["schema", "infer", "clicks.csv", "--out", "features.yaml"]).exit_code == 0
    shown = re.search(r"```text\n(# Left out.*?)```", (DOCS / "tour.md").read_text(), re.DOTALL)
    assert shown is not None
    written = Path("features.yaml").read_text().splitlines()
    assert [line for line in shown[1].splitlines() if line not in written] == []


def wait_for_version(client: httpx.Client, version: int) -> None:
    """Wait until a version has any label."""
    until(lambda: version in client.get("/health").json()["model"]["labels"].values())


@pytest.mark.faults
def test_every_step_does_what_the_page_says(tmp_path: Path) -> None:
    shell, folder = make_shell(tmp_path), tmp_path / "shop"
    folder.mkdir()
    with ExitStack() as stack:
        said: list[str] = []
        for language, block in STEPS:
            if language == "python":
                (folder / "example.py").write_text(block)
            elif block == SERVE:
                client = stack.enter_context(served(folder, shell, f"exec {block}"))
            else:
                said.append(run(folder, shell, block))
                if "promote 2" in block:  # the service polls once a second
                    wait_for_version(client, 2)
        trained, ranked, answered, explained, listed, pinned, back, scored = said[2:]
        assert "Published as stable" in trained
        assert "loaded 300 users" in trained
        assert "loaded 120 items" in trained
        aucs = [re.search(rf"{model} +│(0\.\d+)", trained)[1] for model in ("deepfm", "logistic regression")]
        assert float(aucs[0]) > float(aucs[1]) + 0.05, "crosses are worth something"
        clicks = pl.read_csv(folder / "clicks.csv")
        colours = dict(clicks["item_id", "colour"].iter_rows())
        assert colours[int(re.findall(r"^1\t(\d+)", ranked, re.MULTILINE)[0])] == "green", "what user 7 likes"
        answer = json.loads(answered)
        assert answer["missing"]["user"]
        assert colours[int(answer["items"][0]["item_id"])] == "red"
        assert re.search(r"likes \+\d\.\d+, colour \+|colour \+\d\.\d+, likes \+", explained)
        parts = re.search(r"^1\d+" + r"\t([+-][\d.]+)" * 5, explained, re.MULTILINE)
        assert parts is not None
        *terms, logit = map(float, parts.groups())
        assert sum(terms) == pytest.approx(logit, abs=0.0025), "each is rounded to three places"
        assert "canary" in listed
        assert "shop version 2" in pinned
        assert "shop 1 is stable again, in place of 2" in back
        assert "20,000 rows scored by shop 1" in scored
        wait_for_version(client, 1)
        for row in pl.read_csv(folder / "scores.csv")[:20].iter_rows(named=True):
            device = clicks[row["row"] - 1, "device"]
            request = {"user_id": row["user_id"], "item_ids": [row["item_id"]], "context": {"device": device}}
            (served_item,) = client.post("/rank", json=request).json()["items"]
            assert served_item["score"] == pytest.approx(row["score"], abs=1e-6)
