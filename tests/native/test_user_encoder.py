"""The compiled user encoder against the model's own `encode_user`, for every kind of field and value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.features.fields import Numeric
from app.features.schema import parse_schema
from app.models.deepfm import DeepFM
from app.models.preprocessing import NumericStatistics, Preprocessing, numeric_key
from app.models.serving_form import ServedDeepFM, serving_form
from app.native.layout import Transform
from app.native.user_encoder import NativeUserEncoder

SCHEMA = parse_schema("""\
version: 1
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: likes, entity: user, type: multi_categorical, weighted: true, max_length: 4}
  - {name: plain, entity: user, type: numeric, transforms: []}
  - {name: age, entity: user, type: numeric, transforms: [log1p, standardise], buckets: 4}
  - {name: depth, entity: user, type: numeric, transforms: [sqrt, square, standardise]}
  - {name: visits, entity: context, type: numeric, transforms: [square], buckets: 3}
  - {name: hour, entity: context, type: categorical}
  - {name: item_id, entity: item, type: categorical, id: true}
""")
NUMBERS = ("plain", "age", "depth", "visits")
KEYS = sorted({*(numeric_key(name) for name in NUMBERS), *range(-60, 60, 3), -(2**63), 2**63 - 1})


def fused(dim: int = 5) -> ServedDeepFM:
    statistics = {
        "plain": NumericStatistics(),
        "age": NumericStatistics(2.0, 0.75, (-1.0, 2.5, 40.0)),
        "depth": NumericStatistics(1.0, 3.0),
        "visits": NumericStatistics(borders=(0.0, 1.0)),
    }
    torch.manual_seed(5)
    preprocessing = Preprocessing(SCHEMA, torch.tensor(KEYS, dtype=torch.int64), statistics)
    model = DeepFM(preprocessing, dim=dim, hidden=(37, 8)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    served = serving_form(model)
    assert isinstance(served, ServedDeepFM)
    return served


MODEL = fused()


def compiled(model: ServedDeepFM) -> NativeUserEncoder:
    weights = model.user_affine()
    assert weights is not None
    return NativeUserEncoder(model.user, model.vocabulary_V, model.table_RE, *weights)


number = st.floats(-1e4, 1e4, width=32) | st.sampled_from([math.nan, 0.0, -0.0, 2.5, 40.0, -1.0, 1.0])
key = st.sampled_from(KEYS) | st.integers(-(2**63), 2**63 - 1)


@given(st.data())
def test_it_is_what_the_model_says(data: st.DataObject) -> None:
    """Keys are seen or unseen, slots may be empty or weighted, numbers missing or on a border of their buckets."""
    slots = MODEL.user.slots
    key_S = np.array(data.draw(st.lists(key, min_size=slots, max_size=slots)), np.int64)
    value_S = np.array(data.draw(st.lists(st.floats(-2, 2, width=32), min_size=slots, max_size=slots)), np.float32)
    for slot, name in zip(MODEL.user.numeric_M.tolist(), NUMBERS, strict=True):
        key_S[slot], value_S[slot] = numeric_key(name), data.draw(number)
    slots_1S = torch.from_numpy(key_S[None]), torch.from_numpy(value_S[None])
    expected_D, state_D = MODEL.encode_user(*slots_1S)[0], compiled(MODEL)(key_S, value_S)
    # The crosses are a difference of sums of squares, which is as exact as these are.
    scale = 1 + float(MODEL.user_fields(*slots_1S)[0].sum(1).square().sum())
    assert float((state_D - expected_D).abs().max()) < 2e-6 * scale


def test_numbers_too_large_for_float32_stay_finite_where_the_model_keeps_them_so() -> None:
    key_S, value_S = np.zeros(MODEL.user.slots, np.int64), np.zeros(MODEL.user.slots, np.float32)
    for slot, name in zip(MODEL.user.numeric_M.tolist(), NUMBERS, strict=True):
        key_S[slot] = numeric_key(name)
    value_S[MODEL.user.numeric_M[1]] = 3e38  # standardised and clipped
    expected_D = MODEL.encode_user(torch.from_numpy(key_S[None]), torch.from_numpy(value_S[None]))[0]
    assert torch.isfinite(expected_D).all()
    assert torch.allclose(compiled(MODEL)(key_S, value_S), expected_D, atol=1e-5)


def test_the_models_transform_codes_are_those_of_the_library() -> None:
    codes = [[code for code in column if code] for column in MODEL.user.steps_PM.t().tolist()]
    fields = [field for field in SCHEMA.fields if isinstance(field, Numeric)]
    assert codes == [[Transform[name.upper()] for name in field.transforms] for field in fields]


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = MODEL.user_affine()
    assert weights is not None
    weight_DI, *others = weights
    sides = MODEL.user, MODEL.vocabulary_V, MODEL.table_RE
    with pytest.raises(ValueError, match="does not fit"):
        NativeUserEncoder(*sides, weight_DI[:, :-1], *others)
    with pytest.raises(ValueError, match="contiguous"):
        NativeUserEncoder(sides[0], sides[1], sides[2].double(), *weights)
    with monkeypatch.context() as patch:
        patch.setattr(MODEL.user, "pool_FT", MODEL.user.pool_FT * 2)
        with pytest.raises(ValueError, match="plain sums"):
            compiled(MODEL)
    with pytest.raises(ValueError, match="at most 4096 inputs"):
        compiled(fused(dim=600))
