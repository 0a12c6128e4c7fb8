"""A column of weights is read with its rows, in memory and mapped, and rows without one are counted and named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from app.errors import ConfigError, DataError
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.data.encoding_limits import DEFAULT_LIMITS
from app.training.data.mapped_dataset import MappedDataset
from app.training.data.split import SplitConfig
from app.training.data.weight_columns import WeightColumns, read_amounts
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from app.training.preprocessing.sampling import take_rows

FEATURES = "fields: [{name: u, entity: user, type: categorical}, {name: x, entity: item, type: categorical}]"
IN_MEMORY, MAPPED = DEFAULT_LIMITS, dataclasses.replace(DEFAULT_LIMITS, in_memory_bytes=0, block_bytes=200)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", " 2.5 ", "0", "-1", "nan", "inf", "", "x", None, "1e300", "1e-300"], [1, 2.5, 0, *[None] * 7, 0]),
        ([1, 0, None, -3], [1, 0, None, None]),
        ([0.5, float("nan"), float("inf"), -0.0], [0.5, None, None, 0]),
        ([True, False], [1, 0]),
        ([[1.0], []], [None, None]),
        ([b"3", b"no"], [3, None]),
    ],
    ids=str,
)
def test_a_weight_is_a_finite_number_of_zero_or_more(values: list[Any], expected: list[float | None]) -> None:
    assert read_amounts(pl.Series("w", values)).to_list() == expected


def write(folder: Path, rows: int = 100, **columns: Any) -> dict[str, Any]:
    (folder / "features.yaml").write_text(FEATURES)
    frame = pl.DataFrame(
        {
            "u": [f"u{n % 7}" for n in range(rows)],
            "x": [f"x{n % 5}" for n in range(rows)],
            "label": [int(n % 3 == 0) for n in range(rows)],
            **columns,
        }
    )
    frame.write_csv(folder / "rows.csv")
    return {"path": folder / "rows.csv", "features": folder / "features.yaml", "cache": folder / "cache"}


def read(options: dict[str, Any], limits: Any = IN_MEMORY, **more: Any) -> Dataset:
    return open_dataset("table", weighting=WeightColumns(weight="w"), limits=limits, **options, **more)


@pytest.mark.parametrize("limits", [IN_MEMORY, MAPPED], ids=["in memory", "mapped"])
def test_weights_stay_with_their_rows(tmp_path: Path, limits: Any) -> None:
    weights = [float(1 + n % 4) for n in range(100)]
    data = read(write(tmp_path, w=weights), limits)
    assert isinstance(data, MappedDataset) == (limits is MAPPED)
    assert data.weights is not None
    expected_N = np.array(weights) / np.mean(weights)
    np.testing.assert_allclose(data.weights.training_N, expected_N, rtol=1e-6)
    assert data.weights.note == "each row counts as its w says"
    chosen = np.array([3, 50, 99])
    encoded = encode(data.take(chosen))
    assert encoded.weights is not None
    np.testing.assert_allclose(encoded.weights.evaluation_N, expected_N[chosen], rtol=1e-6)
    rows = expand(PreprocessingFit(1).fit(data.schema, encoded), encoded)
    assert rows.weights_N is not None
    assert rows.weights_N.tolist() == pytest.approx(expected_N[chosen].tolist())
    assert rows.total_weight == pytest.approx(expected_N[chosen].sum())
    weights_of_two = take_rows(encoded, slice(1, 3)).weights
    assert weights_of_two is not None
    assert weights_of_two.training_N.tolist() == pytest.approx(expected_N[chosen[1:]].tolist())


@pytest.mark.parametrize("limits", [IN_MEMORY, MAPPED], ids=["in memory", "mapped"])
def test_rows_without_a_weight_are_named_and_those_of_weight_zero_left_out(tmp_path: Path, limits: Any) -> None:
    weights: list[Any] = ["1"] * 100
    weights[10], weights[40], weights[41] = "-2", "0", "much"
    data = read(write(tmp_path, w=weights), limits, max_bad=0.05)
    assert len(data) == 97
    expected = "2 bad rows left out (w is no weight, which is a number of 0 or more; rows 11, 42)"
    assert str(data.skipped) == expected


def test_too_many_rows_without_a_weight_stop_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="w is no weight"):
        read(write(tmp_path, w=["1"] * 90 + ["x"] * 10))


def test_other_weights_are_another_encoded_form(tmp_path: Path) -> None:
    options = write(tmp_path, w=[1.0] * 100)
    read(options, MAPPED)
    plain = open_dataset("table", limits=MAPPED, **options)
    assert plain.weights is None


def test_a_part_of_the_rows_has_its_weights(tmp_path: Path) -> None:
    data = read(write(tmp_path, w=[float(1 + n % 4) for n in range(100)]))
    assert data.weights is not None
    for part in SplitConfig("random").parts(data, None):
        assert part.weights is not None
        assert len(part.weights.training_N) == len(part)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column w; it has u, x, label"):
        read(write(tmp_path))


def test_other_formats_have_no_such_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="w: columns that say how much a row counts are for --dataset table"):
        open_dataset("movielens", None, weighting=WeightColumns(weight="w"))


@pytest.mark.parametrize("limits", [IN_MEMORY, MAPPED], ids=["in memory", "mapped"])
def test_a_column_of_shares_is_asked_for_rows_without_a_click_alone(tmp_path: Path, limits: Any) -> None:
    """Every third row has a click."""
    shares: list[Any] = [None if n % 3 == 0 else 0.5 if n % 2 else 0.25 for n in range(100)]
    shares[4], shares[5], shares[7] = 0.0, 1.5, None
    columns = WeightColumns(negative_rate="kept")
    data = open_dataset("table", weighting=columns, limits=limits, max_bad=0.05, **write(tmp_path, kept=shares))
    assert str(data.skipped) == (
        "3 bad rows left out (kept is no share of negatives, which is above 0 and up to 1; rows 5, 6, 8)"
    )
    assert data.weights is not None
    usable = [1.0 if share is None else 1 / share for n, share in enumerate(shares) if n not in (4, 5, 7)]
    assert data.weights.evaluation_N == pytest.approx(np.array(usable))
    assert 0.25 < data.weights.negative_rate < 0.5
    assert data.weights.note == "a row without a click stands for 1 / kept of them, as the others were left out"


def test_a_share_as_a_number_is_for_every_format(tmp_path: Path) -> None:
    options = write(tmp_path)
    data = open_dataset("table", weighting=WeightColumns(negative_rate=0.2), **options)
    assert data.weights is not None
    assert data.weights.negative_rate == pytest.approx(0.2)
    assert set(data.weights.evaluation_N.tolist()) == {1.0, 5.0}
    (tmp_path / "rows.svm").write_text("1 1:1\n0 2:1\n" * 20)
    other = open_dataset("libsvm", tmp_path / "rows.svm", weighting=WeightColumns(negative_rate=0.2))
    assert other.weights is not None
    assert open_dataset("table", weighting=WeightColumns(negative_rate=1.0), **options).weights is None


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="--negative-rate"):
        WeightColumns(negative_rate=share)


def test_no_field_reads_the_share(tmp_path: Path) -> None:
    """It may be 1 where there was a click."""
    options = write(tmp_path, kept=[0.5] * 100)
    (tmp_path / "features.yaml").write_text(FEATURES.replace("x,", "kept,"))
    with pytest.raises(ConfigError, match=r"\['kept'\] tell the answer"):
        open_dataset("table", weighting=WeightColumns(negative_rate="kept"), **options)


COUNTED = WeightColumns(impressions="n", clicks="k")


def read_counted(options: dict[str, Any], limits: Any = IN_MEMORY, **more: Any) -> Dataset:
    return open_dataset("table", weighting=COUNTED, limits=limits, **options, **more)


@pytest.mark.parametrize("limits", [IN_MEMORY, MAPPED], ids=["in memory", "mapped"])
def test_counted_rows_are_a_row_with_a_click_and_one_without(tmp_path: Path, limits: Any) -> None:
    impressions = [10 + n % 7 for n in range(100)]
    clicks = [n % 4 for n in range(100)]
    impressions[5], clicks[5] = 0, 0
    impressions[6], clicks[6] = 9, 9
    data = read_counted(write(tmp_path, n=impressions, k=clicks), limits)
    weights = data.weights
    assert weights is not None
    assert weights.units_N is not None
    expected = []
    for row, (n, k) in enumerate(zip(impressions, clicks, strict=True)):
        expected += [(row, 1.0, float(k))] * (k > 0) + [(row, 0.0, float(n - k))] * (n > k)
    rows = sorted({row for row, _, _ in expected})
    assert weights.units_N.tolist() == [rows.index(row) for row, _, _ in expected]
    assert data.labels_N.tolist() == [label for _, label, _ in expected]
    assert weights.training_N.tolist() == weights.evaluation_N.tolist() == [count for _, _, count in expected]
    assert data.counts() == (sum(impressions), sum(clicks))
    assert weights.note == "each row counts as n and k say"
    x = {f"x{n}": n for n in range(5)}
    keys = encode(data).item.keys[:, 0]
    assert [len(set(keys[[x[f"x{row % 5}"] == n for row, _, _ in expected]])) for n in range(5)] == [1] * 5


@pytest.mark.parametrize("limits", [IN_MEMORY, MAPPED], ids=["in memory", "mapped"])
def test_counts_that_are_none_are_named_once(tmp_path: Path, limits: Any) -> None:
    impressions: list[Any] = [8] * 100
    clicks: list[Any] = [3] * 100
    clicks[2], clicks[30], impressions[31] = 9, None, "-1"
    data = read_counted(write(tmp_path, n=map(str, impressions), k=clicks), limits, max_bad=0.05)
    assert str(data.skipped) == (
        "3 bad rows left out (n and k are no counts, of which the second is at most the first; rows 3, 31, 32)"
    )
    assert len(data) == 2 * 97


def test_a_value_that_fits_no_slot_is_counted_once_for_a_counted_row(tmp_path: Path) -> None:
    options = write(tmp_path, n=[8] * 100, k=[3] * 100, price=["cheap" if n == 50 else str(n) for n in range(100)])
    (tmp_path / "features.yaml").write_text(FEATURES.replace("]", ", {name: price, entity: item, type: numeric}]"))
    data = read_counted(options, MAPPED)
    assert isinstance(data, MappedDataset)
    assert str(data.unreadable["price"]) == "1 bad rows read as missing (the value fits no slot; rows 51)"


@pytest.mark.parametrize("limits", [IN_MEMORY, MAPPED], ids=["in memory", "mapped"])
@pytest.mark.parametrize("kind", ["random", "time"])
def test_both_halves_of_a_counted_row_are_in_one_part(tmp_path: Path, kind: Any, limits: Any) -> None:
    options = write(tmp_path, n=[8] * 100, k=[3] * 100, at=[1_700_000_000 + n // 3 for n in range(100)])
    parts = SplitConfig(kind).parts(read_counted(options, limits, timestamp="at"), None)
    units = []
    for part, rows in zip(parts, (81, 9, 10), strict=True):
        assert part.weights is not None
        assert part.weights.units_N is not None
        assert part.labels_N.mean() == 0.5
        units.append(set(part.weights.units_N.tolist()))
        assert len(units[-1]) == rows
    assert len(set.union(*units)) == 100


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"impressions": "n"}, "--impressions and --clicks go together"),
        ({"impressions": "n", "clicks": "k", "weight": "w"}, "--weight w"),
        ({"impressions": "n", "clicks": "k", "negative_rate": "r"}, "--negative-rate r"),
    ],
)
def test_what_does_not_go_together_is_refused(columns: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        WeightColumns(**columns)  # type: ignore[arg-type]


def test_counted_rows_have_no_label_and_no_field_reads_the_counts(tmp_path: Path) -> None:
    options = write(tmp_path, n=[8] * 100, k=[3] * 100)
    for more in ({"label": "label"}, {"positive": "1"}):
        with pytest.raises(ConfigError, match="--label and --positive"):
            read_counted(options, **more)
    (tmp_path / "features.yaml").write_text(FEATURES.replace("x,", "k,"))
    with pytest.raises(ConfigError, match=r"\['k'\] tell the answer"):
        read_counted(options)


def test_counted_rows_may_be_thinned_out_too(tmp_path: Path) -> None:
    columns = WeightColumns(impressions="n", clicks="k", negative_rate=0.5)
    data = open_dataset("table", weighting=columns, **write(tmp_path, n=[8] * 100, k=[3] * 100))
    assert data.weights is not None
    assert set(data.weights.training_N.tolist()) == {3.0, 5.0}
    assert set(data.weights.evaluation_N.tolist()) == {3.0, 10.0}
    assert data.weights.note.endswith(
        "an impression without a click stands for 1 / 0.5 of them, as the others were left out"
    )
