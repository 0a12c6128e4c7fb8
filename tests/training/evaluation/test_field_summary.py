"""Missing and unseen shares equal those of the raw rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from app.features.schema import parse_schema
from app.training.data.dataset import Dataset
from app.training.evaluation.field_summary import field_summaries
from app.training.preprocessing.encode import EncodedRows, encode
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.preprocessing.test_preprocessing_fit import some_data

SCHEMA = parse_schema("""
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: age, entity: user, type: numeric, buckets: 4}
  - {name: likes, entity: user, type: multi_categorical, max_length: 3, separator: "|"}
  - {name: city, entity: item, type: categorical}
""")


def rows(users: list[str], ages: list[float | None], likes: list[str | None], cities: list[str | None]) -> EncodedRows:
    user = pl.DataFrame({"user_id": users, "age": ages, "likes": likes}, schema_overrides={"age": pl.Float64})
    labels = np.array([n % 2 for n in range(len(users))], np.float32)
    return encode(Dataset("tiny", SCHEMA, user, pl.DataFrame({"city": cities}), labels, None, "x"))


TRAIN = rows(["a", "a", "b", "c"], [1, None, 3, 4], ["x|y", None, "x", "x|z"], ["r", "r", "s", None])
TEST = rows(["a", "d"], [None, None], ["x|new|y", "z"], ["s", "t"])


def test_shares_are_those_of_the_raw_rows() -> None:
    result = {
        f["name"]: f
        for f in field_summaries(PreprocessingFit(min_count=1).fit(SCHEMA, TRAIN), {"train": TRAIN, "test": TEST})
    }
    assert result["user_id"]["missing"] == {"train": 0.0, "test": 0.0}
    assert result["user_id"]["unseen"] == {"train": 0.0, "test": 0.5}
    assert (result["user_id"]["distinct"], result["user_id"]["in_table"]) == (3, 3)
    assert result["age"]["missing"] == {"train": 0.25, "test": 1.0}
    assert result["age"]["unseen"] == {}
    assert result["age"]["mean"] == pytest.approx(8 / 3)
    assert result["likes"]["missing"] == {"train": 0.25, "test": 0.0}
    assert result["likes"]["unseen"] == {"train": 0.0, "test": 0.25}
    assert result["city"]["missing"] == {"train": 0.25, "test": 0.0}
    assert result["city"]["unseen"]["test"] == 0.5


def test_values_that_are_too_rare_have_no_row_and_count_as_unseen() -> None:
    result = field_summaries(PreprocessingFit(min_count=2).fit(SCHEMA, TRAIN), {"train": TRAIN})
    users = next(f for f in result if f["name"] == "user_id")
    assert (users["distinct"], users["in_table"], users["unseen"]["train"]) == (3, 1, 0.5)


def test_large_parts_are_sampled() -> None:
    data = some_data(300)
    encoded = encode(data)
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    whole = field_summaries(preprocessing, {"train": encoded})
    some = field_summaries(preprocessing, {"train": encoded}, max_rows=100)
    assert [f["name"] for f in some] == [f["name"] for f in whole]
    for one, other in zip(some, whole, strict=True):
        assert one["missing"]["train"] == pytest.approx(other["missing"]["train"], abs=0.2)
