"""A label of more than two numbers is refused with a threshold, wherever it is read."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from app.errors import ConfigError, DataError
from app.training.data.catalogue import open_dataset
from app.training.data.label_threshold import label_threshold
from app.training.data.schema_proposal import propose_schema

THRESHOLDS: dict[str, tuple[list[object], str]] = {
    "stars": ([1, 2, 3, 4, 5] * 20, "5 values, 1 to 5, and a label has 0 and 1: --positive '>=4' makes it 1"),
    "stars from 4 on": ([1, 2, 3, 4, 5] * 20, "where it is 4 or more (40% of these rows)"),
    "half stars": ([n / 2 for n in range(1, 11)] * 5, "where it is 3 or more (50% of these rows)"),
    "as text": (["1", "2", " 3", "4", "5", ""] * 9, "where it is 4 or more"),
    "likes and dislikes": ([-1, 0, 1] * 9, "where it is 1 or more"),
    "counts of clicks": ([0] * 80 + [1] * 15 + [2, 7, 9, 11, 20] * 2, "where it is 1 or more"),
    "seconds": (list(range(1000)), "where it is 500 or more"),
    "per cent": ([n / 100 for n in range(101)], "where it is 0.51 or more"),
}


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_threshold_is_proposed(name: str) -> None:
    values, words = THRESHOLDS[name]
    assert words in label_threshold(pl.Series("rating", values, strict=False))


@pytest.mark.parametrize("values", [[0, 1], [1, 2], ["a", "b", "c"], ["click", "view", "1"], [None, 1], [True, False]])
def test_none_is_proposed_for_what_is_no_scale(values: list[object]) -> None:
    assert label_threshold(pl.Series("rating", values * 20, strict=False)) == ""


def test_training_and_infer_refuse_it_alike(tmp_path: Path) -> None:
    path, features = tmp_path / "ratings.csv", tmp_path / "features.yaml"
    path.write_text("user,rating\n" + "".join(f"u{n % 7},{n % 5 + 1}\n" for n in range(100)))
    features.write_text("fields:\n- {name: user, entity: user, type: categorical}\n")
    words = r"rating has 5 values, 1 to 5.*where it is 4 or more \(40% of these rows\)"
    with pytest.raises(DataError, match=words):
        open_dataset("table", path, features=features, label="rating")
    for label in ("rating", None):
        with pytest.raises(ConfigError, match=words):
            propose_schema(path, label=label)
