"""Tests of the table of cuts: each cut has its own rows, model and peer are compared on the same, and runs are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.cut_table import MARKS, difference_of, pairs, table
from benchmarks.cuts import main
from benchmarks.model_options import PAGE
from benchmarks.model_runs import RunKey, fingerprint
from benchmarks.model_sets import take_some
from benchmarks.model_table import insert_between_marks
from tests.test_benchmark_models import a_result, write_sparrow
from tests.training.preprocessing.test_preprocessing_fit import some_data


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_it_trains_remembers_goes_on_and_writes_the_page(tmp_path: Path) -> None:
    write_sparrow(tmp_path / "data", rows=150)
    page = tmp_path / "page.md"
    page.write_text(f"{MARKS[0]}\n{MARKS[1]}\n")
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(main)
    places = ("--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), "--page", str(page))
    options = ("--json", "--model", "lr", "--sets", "sparrow58k-random", "--rows", "80,140", "--cuts", "1")

    def run(*more: str) -> dict[str, object]:
        answer = CliRunner().invoke(application, [*places, *options, *more], catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
        return json.loads(answer.stdout)  # type: ignore[no-any-return]

    first = run()
    assert sorted(first["results"]) == ["140", "80"]  # type: ignore[call-overload]
    assert page.read_text().count("| 80 | sparrow58k-random | 1 | 0.") == 1
    assert page.read_text().count("| 140 | sparrow58k-random | 1 | 0.") == 1
    second = run("--seconds", "0", "--cuts", "2")
    assert (second["results"], second["left"]) == (first["results"], 4), "what was trained is remembered"


@pytest.mark.parametrize(("option", "value"), [("rows", "0"), ("rows", "500,many"), ("model", "oracle")])
def test_options_that_are_none_are_refused(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(typer.BadParameter, match=value.split(",")[-1]):
        main(**{option: value}, data=tmp_path, runs=tmp_path)  # type: ignore[arg-type]


def test_a_cut_is_the_same_every_time_and_another_for_each_seed() -> None:
    data = some_data(60)
    cuts = [take_some(data, 20, seed) for seed in (3, 3, 4)]
    ids = [cut.user["user_id"].to_list() for cut in cuts]
    assert ids[0] == ids[1] != ids[2]
    assert all(len(cut) == 20 for cut in cuts)
    assert len(take_some(data, 60, 1)) == 60
    key = RunKey("frappe86k", "lr", 0)
    assert len({fingerprint(key, {}, cut=cut) for cut in (None, 500, 2000)}) == 3


def test_a_model_and_its_peer_are_compared_on_the_cuts_that_both_have() -> None:
    runs = [a_result(model=model, seed=seed) for model, seed in (("fm", 0), ("fm", 1), ("lr", 1), ("lr", 2))]
    assert [(a.model, b.model, a.seed, b.seed) for a, b in pairs(runs, "fm", "lr")["frappe86k"]] == [("fm", "lr", 1, 1)]


def test_the_difference_is_of_pairs_and_the_mean_of_sets_weighs_each_alike() -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(0.7, 0.1, 400)
    groups = [list(zip(shared + d + generator.normal(0, 0.01, 400), shared, strict=True)) for d in (0.02, -0.04)]
    groups[1] = groups[1][:100]
    difference, error = difference_of(groups)
    assert difference == pytest.approx(-0.01, abs=0.002)
    of_pairs = [np.subtract(*np.transpose(group)) for group in groups]
    assert difference == pytest.approx(np.mean([of_pairs[0].mean(), of_pairs[1].mean()]), rel=1e-9)
    assert error == pytest.approx(np.sqrt(of_pairs[0].var(ddof=1) / 400 + of_pairs[1].var(ddof=1) / 100) / 2, rel=1e-9)
    assert difference_of([[(0.8, 0.7)]]) == (pytest.approx(0.1), None)


def test_the_table_flags_what_is_too_far_below() -> None:
    results = [
        a_result(set=name, model=model, seed=seed, auc=auc + 0.01 * seed)
        for name, model, auc in (
            ("frappe86k", "deepfm", 0.70),
            ("frappe86k", "lr", 0.71),
            ("lastfm42k", "deepfm", 0.706),
            ("lastfm42k", "lr", 0.70),
        )
        for seed in range(2)
    ]
    lines = table({500: results}, "deepfm", "lr", ["lastfm42k", "frappe86k"], "a machine").splitlines()
    assert lines[2].startswith("| 500 | lastfm42k | 2 | 0.7110 | 0.7050 | +0.0060 ± 0.0000 |")
    assert lines[2].endswith("| – |")
    assert lines[3].startswith("| 500 | frappe86k | 2 | 0.7050 | 0.7150 | -0.0100 ± 0.0000 |")
    assert lines[3].endswith("| more than 0.005 below |")
    assert lines[4].startswith("| 500 | mean of the sets | 4 | 0.7080 | 0.7100 | -0.0020 ± 0.0000 |")


def test_the_page_has_a_place_for_it() -> None:
    assert insert_between_marks(PAGE.read_text(), "A NEW TABLE", MARKS).count("A NEW TABLE") == 1
