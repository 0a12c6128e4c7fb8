"""What preprocessing learns equals numpy's result, and expanded rows are what the served model makes of the slots."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from app.features.fields import Numeric
from app.features.slots import EMPTY_KEY
from app.models.preprocessing import Preprocessing, numeric_key
from app.models.side_input import CLIP
from app.training.architectures import ModelConfig
from app.training.data.dataset import Dataset
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.preprocessing.numeric_statistics import numeric_statistics
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.factories import raw_context, raw_item, raw_user, small_schema


def some_data(rows: int = 200) -> Dataset:
    users = [{"user_id": f"u{n % 30}", **raw_user(n % 30), **raw_context(n)} for n in range(rows)]
    for user in users:  # polars wants one type a column; text is what Redis holds
        user["liked_genres"] = str(user["liked_genres"]).replace("'", '"').replace('"Children"s"', '"Children\'s"')
    items = [{"item_id": f"i{n % 50}", **raw_item(n % 50)} for n in range(rows)]
    for item in items:
        item["tags"] = str(item["tags"]).replace("'", '"') if "tags" in item else None
    labels = np.array([n % 3 == 0 for n in range(rows)], np.float32)
    user_frame = pl.DataFrame(users, infer_schema_length=None)
    return Dataset(
        "small", small_schema(), user_frame, pl.DataFrame(items, infer_schema_length=None), labels, None, "x"
    )


def some_rows(rows: int) -> tuple[Preprocessing, ExpandedRows]:
    """Return `some_data` as training has it, and what preprocessing learns of it."""
    data = some_data(rows)
    encoded = encode(data)
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    return preprocessing, expand(preprocessing, encoded)


def test_statistics_are_numpys_after_the_transforms_before_standardise() -> None:
    raw = np.random.default_rng(0).lognormal(3, 2, 5000).astype(np.float32)
    raw[::7] = np.nan
    present = raw[~np.isnan(raw)].astype(np.float64)
    field = Numeric(name="n", entity="user", type="numeric", transforms=("log1p", "standardise", "square"), buckets=10)
    statistics = numeric_statistics(field, raw)
    assert statistics.mean == pytest.approx(np.log1p(present).mean(), rel=1e-5)
    assert statistics.deviation == pytest.approx(np.log1p(present).std(), rel=1e-5)
    np.testing.assert_allclose(statistics.borders, np.quantile(present, np.arange(1, 10) / 10), rtol=1e-5)


@pytest.mark.parametrize("raw", [[np.nan, np.nan], [], [5.0, 5.0, 5.0]])
def test_a_field_that_says_nothing_harms_nothing(raw: list[float]) -> None:
    field = Numeric(name="n", entity="user", type="numeric", buckets=4)
    statistics = numeric_statistics(field, np.array(raw, np.float32))
    assert statistics.deviation == 1.0
    assert len(statistics.borders) <= 1


def test_the_vocabulary_has_frequent_keys_and_all_fixed_ones() -> None:
    data = some_data()
    encoded = encode(data)
    fixed = {EMPTY_KEY} | {numeric_key(f.name) for f in data.schema.fields if isinstance(f, Numeric)}
    for min_count in (1, 5, 10_000):
        vocabulary = PreprocessingFit(min_count).fit(data.schema, encoded).vocabulary_V
        assert torch.equal(vocabulary, torch.unique(vocabulary))
        keys = set(vocabulary.tolist())
        assert fixed <= keys
        genres = {key for key, weight in zip(encoded.item.keys[:, 1], encoded.item.values[:, 1], strict=True) if weight}
        assert (genres <= keys) == (min_count < 10_000)
    assert keys == fixed
    all_keys = set(PreprocessingFit(1).fit(data.schema, encoded).vocabulary_V.tolist())
    assert len(all_keys - fixed) > 100


def test_rare_keys_share_the_fields_own_row() -> None:
    data = some_data()
    encoded = encode(data)
    preprocessing = PreprocessingFit(min_count=10_000).fit(data.schema, encoded)
    rows = expand(preprocessing, encoded)
    assert set(rows.rows_NT[:, 0].tolist()) == {preprocessing.oov_row("user_id")}


def test_training_rows_give_the_logits_that_serving_gives() -> None:
    data = some_data()
    encoded = encode(data)
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    rows = expand(preprocessing, encoded)
    model = ModelConfig().build(preprocessing).eval()
    slots = [torch.from_numpy(part) for part in (*encoded.user, *encoded.item)]
    fields_NFE = model.fields(rows.rows_NT, rows.x_NT)
    torch.testing.assert_close(model.logits(rows.rows_NT, rows.x_NT, fields_NFE), model(*slots))
    assert float(rows.x_NT[:, age_slot(data)].abs().max()) <= CLIP


def age_slot(data: Dataset) -> int:
    """Return the slot of `age`, the first numeric field."""
    names = [field.name for field in data.schema.side("user")]
    return sum(field.width for field in data.schema.side("user")[: names.index("age")])
