"""Hashed crosses: what the schema declares, how they are hashed, and that looking them up per pair is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from app.errors import SchemaError
from app.features.categorical_encoder import CategoricalEncoder
from app.features.fields import Categorical
from app.features.schema import FeatureSchema, parse_schema, schema_from_json
from app.models.hashed_crosses import HashedCrosses, hash_codes, hashed_crosses_of, pack_slots, unpack_slots
from app.models.preprocessing import Preprocessing
from app.registry.artifact.export import write
from app.registry.artifact.load import load
from tests.factories import SCHEMA_YAML, fitted, golden
from tests.models.reference import Example, bucket, crossed, deep, first_order
from tests.models.test_options import assert_split, both_ways, randomised, slots, weights_of

DECLARED = (
    SCHEMA_YAML
    + """\
crosses:
  - {fields: [item_id, gender], buckets: 50}
  - {fields: [liked_genres, genres], buckets: 300}
  - {fields: [age, hour]}
  - {fields: [year, tags], buckets: 40}
  - {fields: [age, genres], buckets: 2}
"""
)
CROSSES = [
    ("gender", "item_id", 50),
    ("liked_genres", "genres", 300),
    ("age:bucket", "hour", 10_000),
    ("year:bucket", "tags", 40),
    ("age:bucket", "genres", 2),
]
"""The crosses as the reference takes them, the user's field first."""
BEFORE_CROSSES = "60ff6e0719c7315496536b10fae2bbfe80d73b2d5a3920c9b17f876b854a10e7"


@pytest.fixture(scope="module")
def schema() -> FeatureSchema:
    return parse_schema(DECLARED)


def test_declared_crosses_are_looked_up_pair_by_pair(schema: FeatureSchema) -> None:
    preprocessing = fitted(schema)
    model = randomised("wide_deep", preprocessing, hidden=(16, 8))
    user, item = slots(schema)
    actual_UN, _ = both_ways(model, user, item, torch.float64)
    weights = weights_of(model)
    assert weights["cross_table_C1"].shape == (50 + 300 + 10_000 + 40 + 2, 1)
    for u in range(len(user.keys)):
        for i in range(len(item.keys)):
            example = Example(
                preprocessing, type(user)(user.keys[u], user.values[u]), type(item)(item.keys[i], item.values[i])
            )
            wide = crossed(example, weights, CROSSES)
            expected = first_order(example, weights) + wide + deep(example, weights)
            assert float(actual_UN[u, i]) == pytest.approx(expected, abs=1e-10)
            assert wide != 0
    assert_split(model, user, item)


@pytest.mark.parametrize("name", ["wide_deep", "fusion"])
def test_a_schema_with_crosses_survives_the_artifact(tmp_path: Path, schema: FeatureSchema, name: str) -> None:
    write(tmp_path, randomised(name, fitted(schema)), schema, name=name, golden=golden())
    loaded = load(tmp_path)
    assert loaded.schema == schema
    assert loaded.manifest.tables["cross_table_C1"] == [10_392, 1]


def test_a_cross_means_the_same_under_another_vocabulary(schema: FeatureSchema) -> None:
    """New keys move the rows of all others; the weights of their crosses must not move."""
    few, many = fitted(schema, users=20, items=30), fitted(schema, users=40, items=60)
    strangers = torch.arange(1, 50) * 2**50
    many = Preprocessing(schema, torch.cat([many.vocabulary_V, strangers]).sort().values, few.numerics)
    assert many.rows > few.rows
    user, item = slots(schema, users=3, items=9)  # the last of each is unknown to both
    codes = []
    for preprocessing in (few, many):
        model = randomised("wide_deep", preprocessing, hidden=(4,))
        user_rows, _ = model.user.expand(model.vocabulary_V, *map(torch.from_numpy, user))
        item_rows, _ = model.item.expand(model.vocabulary_V, *map(torch.from_numpy, item))
        assert isinstance(model.wide, HashedCrosses)
        codes.append([model.wide.slot_codes(model.vocabulary_V, rows) for rows in (user_rows, item_rows)])
    for few_codes, many_codes in zip(*codes, strict=True):
        assert torch.equal(few_codes, many_codes)
        assert 0 <= int(few_codes.min()) <= int(few_codes.max()) < 2**31


def test_codes_survive_even_bfloat16() -> None:
    codes_BL = torch.tensor([[0, 1, 255, 256, 65_537, 2**31 - 1, 123_456_789]])
    x_BL = torch.tensor([[0.0, 1.0, 0.5, 0.25, 2.0, -1.0, 0.125]])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        unpacked_BL, unpacked_x_BL = unpack_slots(pack_slots(codes_BL, x_BL).to(dtype), 7)
        assert torch.equal(unpacked_BL, codes_BL)
        assert torch.equal(unpacked_x_BL.to(torch.float32), x_BL)


def test_the_hash_spreads_evenly_and_tells_orders_apart() -> None:
    """The codes are real: 200 users' values with 500 items' values, 100,000 pairs in 1,000 buckets."""
    encoders = [CategoricalEncoder(Categorical(name=name, entity="user")) for name in ("left", "right")]
    left, right = (torch.tensor([e.key(str(n)) % 2**31 for n in range(500)]) for e in encoders)
    hash_LR = hash_codes(left[:200, None], right[None])
    assert int(hash_LR.min()) >= 0
    assert hash_LR.unique().numel() == hash_LR.numel()
    counts = np.bincount((hash_LR % 1000).flatten().numpy(), minlength=1000)
    chi_square = float(((counts - 100.0) ** 2 / 100.0).sum())
    assert 850 < chi_square < 1150, "999 degrees of freedom: mean 999, deviation 45"
    # No value may fall on few buckets, or two values always together.
    assert min((row % 1000).unique().numel() for row in hash_LR) > 350, "500 in 1000 buckets: 393 expected"
    assert not torch.equal(hash_codes(left, right), hash_codes(right, left))
    for row in range(0, 200, 50):
        expected = bucket(int(left[row]), int(right[7]), 1000)
        assert int(hash_LR[row, 7] % 1000) == expected


def test_undeclared_crosses_are_of_fields_that_share_a_space() -> None:
    [cross] = hashed_crosses_of(fitted().schema)
    assert cross.fields == ("liked_genres", "genres")
    assert hashed_crosses_of(parse_schema("fields:\n  - {name: a, entity: user, type: categorical}\n")) == []


def test_crosses_are_part_of_the_schema_and_its_hash(schema: FeatureSchema) -> None:
    assert schema_from_json(schema.model_dump(mode="json")) == schema
    assert schema.hash != parse_schema(SCHEMA_YAML).hash
    published = schema_from_json({"version": 1, "fields": [{"name": "age", "entity": "user", "type": "numeric"}]})
    assert published.hash == BEFORE_CROSSES, "published versions must keep the hash they have"


@pytest.mark.parametrize(
    ("cross", "complaint"),
    [
        ("{fields: [gender, film]}", "there is no field 'film'"),
        ("{fields: [gender, rating]}", "the number 'rating' needs `buckets`"),
        ("{fields: [gender, gender]}", "two different fields"),
        ("{fields: [genres, liked_genres]}", "every pair once"),
        ("{fields: [gender]}", "Field required"),
        ("{fields: [gender, hour], buckets: 1}", "greater than or equal to 2"),
    ],
)
def test_crosses_that_do_not_fit_are_refused(cross: str, complaint: str) -> None:
    with pytest.raises(SchemaError, match=complaint):
        parse_schema(SCHEMA_YAML + "crosses:\n  - {fields: [liked_genres, genres]}\n  - " + cross)
