"""`SideInput` transforms numbers as numpy does, and looks rows up as a dictionary does."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from app.features.encoder import Encoder
from app.features.schema import parse_schema
from app.models.preprocessing import NumericStatistics, Preprocessing, numeric_key
from app.models.side_input import CLIP, SideInput

NUMBERS = [-3e38, -14_616.0, -2.5, -1.0, -1e-30, 0.0, 1e-30, 0.5, 1.0, 1990.0, 14_616.0, 3e38]
STATISTICS = NumericStatistics(mean=3.0, deviation=2.0, borders=(-1.0, 0.0, 1990.0))


def side(*specs: dict[str, Any], statistics: NumericStatistics = STATISTICS) -> tuple[Preprocessing, SideInput]:
    fields = [{"entity": "item", "type": "numeric", **spec} for spec in specs]
    schema = parse_schema(msgspec.json.encode({"fields": fields}).decode())
    keys = sorted(numeric_key(field["name"]) for field in fields)
    learned = Preprocessing(schema, torch.tensor(keys), {field["name"]: statistics for field in fields})
    return learned, SideInput(learned, "item").double()


def expanded(learned: Preprocessing, inputs: SideInput, raws: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Look up rows and x [B, T] of raw items."""
    slots = Encoder(learned.schema, "item").encode_many(raws, [None] * len(raws))
    keys, values = torch.from_numpy(slots.keys), torch.from_numpy(slots.values).to(inputs.mean_M.dtype)
    return inputs.expand(learned.vocabulary_V, keys, values)


def scaled(numbers: list[float], transforms: list[str]) -> list[float]:
    learned, inputs = side({"name": "f", "transforms": transforms})
    _, x_BT = expanded(learned, inputs, [{"f": x} for x in numbers])
    return x_BT[:, 0].tolist()


def standardise(x: Any) -> Any:
    return np.clip((x - STATISTICS.mean) / STATISTICS.deviation, -CLIP, CLIP)


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        ([], lambda x: x),
        (["log1p"], lambda x: np.sign(x) * np.log1p(np.abs(x))),
        (["sqrt"], lambda x: np.sign(x) * np.sqrt(np.abs(x))),
        (["square"], lambda x: x * x),
        (["standardise"], standardise),
        (["log1p", "standardise"], lambda x: standardise(np.sign(x) * np.log1p(np.abs(x)))),
        (["standardise", "square"], lambda x: standardise(x) ** 2),
        (["sqrt", "sqrt"], lambda x: np.sign(x) * np.abs(x) ** 0.25),
    ],
)
def test_transforms_are_numpys_in_their_order(transforms: list[str], expected: Any) -> None:
    x = np.array(NUMBERS, np.float32).astype(np.float64)
    assert scaled(NUMBERS, transforms) == pytest.approx(expected(x).tolist(), rel=1e-12, abs=1e-300)
    assert scaled([float("nan")], transforms) == [0.0], "missing contributes nothing"


def test_fields_with_different_transforms_do_not_mix() -> None:
    specs = [("a", ["log1p", "standardise"]), ("b", []), ("c", ["standardise"]), ("d", ["square", "sqrt", "log1p"])]
    learned, inputs = side(*({"name": name, "transforms": transforms} for name, transforms in specs))
    _, x_BT = expanded(learned, inputs, [{name: x for name, _ in specs} for x in NUMBERS])
    for column, (_, transforms) in enumerate(specs):
        assert x_BT[:, column].tolist() == pytest.approx(scaled(NUMBERS, transforms), rel=1e-12)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_buckets_are_numpys_digitize(numbers: list[float]) -> None:
    learned, inputs = side({"name": "f", "buckets": 4})
    rows_BT, x_BT = expanded(learned, inputs, [{"f": x} for x in numbers])
    buckets = rows_BT[:, 1] - learned.bucket_row("f")
    assert buckets.tolist() == (np.digitize(np.array(numbers), STATISTICS.borders) + 1).tolist()
    assert x_BT[:, 1].tolist() == [1.0] * len(numbers)


def test_a_missing_number_has_a_bucket_of_its_own() -> None:
    learned, inputs = side({"name": "f", "buckets": 4}, {"name": "g", "buckets": 2})
    rows_BT, _ = expanded(learned, inputs, [{}, {"f": -5, "g": 5}])
    first, second = learned.bucket_row("f"), learned.bucket_row("g")
    assert second == first + len(STATISTICS.borders) + 2
    assert rows_BT[:, 2:].tolist() == [[first, second], [first + 1, second + 3]]
    assert learned.rows == second + len(STATISTICS.borders) + 2


def test_buckets_of_fields_with_fewer_borders_stay_in_their_range() -> None:
    """Borders are padded to one length; a number past the last border must not count the padding."""
    schema = parse_schema(
        "fields:\n"
        "- {name: a, entity: item, type: numeric, buckets: 9}\n"
        "- {name: b, entity: item, type: numeric, buckets: 9}\n"
    )
    keys = torch.tensor(sorted([numeric_key("a"), numeric_key("b")]))
    learned = Preprocessing(
        schema, keys, {"a": NumericStatistics(borders=(1.0, 2.0, 3.0)), "b": NumericStatistics(borders=())}
    )
    inputs = SideInput(learned, "item")
    rows_BT, _ = expanded(learned, inputs, [{"a": 3e38, "b": 3e38}])
    assert rows_BT[0, 2:].tolist() == [learned.bucket_row("a") + 4, learned.bucket_row("b") + 1]
    assert learned.rows == learned.bucket_row("b") + 2


keys_64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(keys_64, min_size=1, max_size=30, unique=True), keys_64)
def test_keys_are_found_as_a_dictionary_finds_them(vocabulary: list[int], stranger: int) -> None:
    schema = parse_schema(
        "fields:\n- {name: a, entity: user, type: categorical}\n- {name: b, entity: item, type: categorical}\n"
    )
    sorted_keys = sorted(vocabulary)
    learned = Preprocessing(schema, torch.tensor(sorted_keys), {})
    inputs = SideInput(learned, "item")
    keys = [*vocabulary, stranger]
    rows_BT, _ = inputs.expand(learned.vocabulary_V, torch.tensor(keys)[:, None], torch.ones(len(keys), 1))
    index_of = {key: index for index, key in enumerate(sorted_keys)}
    assert rows_BT[:, 0].tolist() == [2 + index_of[key] if key in index_of else learned.oov_row("b") for key in keys]
