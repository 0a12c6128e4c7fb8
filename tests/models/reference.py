"""The formulas once more, in plain Python and float64, one slot and one pair at a time.

Nothing of app.models is called: only weights are read. Slow and obvious on purpose.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from app.features.encoder import NUMERIC_MARK, Slots, slot_key
from app.features.schema import FeatureSchema, Numeric, Side
from app.models.contract import CtrModel
from app.models.inputs import NumericStatistics, Preprocessing

Vector = np.ndarray[Any, np.dtype[np.float64]]


def transformed(raw: float, transforms: tuple[str, ...], statistics: NumericStatistics) -> float:
    """What a number becomes; 0 where it is missing."""
    if math.isnan(raw):
        return 0.0
    for name in transforms:
        if name == "log1p":
            raw = math.copysign(math.log1p(abs(raw)), raw)
        elif name == "sqrt":
            raw = math.copysign(math.sqrt(abs(raw)), raw)
        elif name == "square":
            raw = raw * raw
        else:
            # What is learned is kept in 32 bits.
            mean, deviation = float(np.float32(statistics.mean)), float(np.float32(statistics.deviation))
            raw = min(4.0, max(-4.0, (raw - mean) / deviation))
    return raw


class Example:
    """One (request, item) pair as fields of (row, x), and the numbers beside them."""

    def __init__(self, preprocessing: Preprocessing, user: Slots, item: Slots) -> None:
        self.fields: dict[Side, list[list[tuple[int, float]]]] = {"user": [], "item": []}
        self.numbers: dict[Side, list[float]] = {"user": [], "item": []}
        self._vocabulary = {int(key): place for place, key in enumerate(preprocessing.vocabulary_V)}
        self._preprocessing = preprocessing
        for side, slots in (("user", user), ("item", item)):
            self._read(preprocessing.schema, side, list(zip(slots.keys.tolist(), slots.values.tolist(), strict=True)))  # type: ignore[arg-type]

    def _read(self, schema: FeatureSchema, side: Side, slots: list[tuple[int, float]]) -> None:
        buckets = []
        for field in schema.side(side):
            own, slots = slots[: field.width], slots[field.width :]
            if isinstance(field, Numeric):
                [(key, raw)] = own
                assert key == slot_key(field.name + NUMERIC_MARK)
                statistics = self._preprocessing.numerics[field.name]
                x = transformed(raw, field.transforms, statistics)
                self.fields[side].append([(self._row(key, None), x)])
                self.numbers[side].append(x)
                if field.buckets:
                    bucket = 0 if math.isnan(raw) else 1 + bisect_right(statistics.borders, raw)
                    buckets.append([(self._preprocessing.bucket_row(field.name) + bucket, 1.0)])
            else:
                self.fields[side].append([(self._row(key, field.name), x) for key, x in own])
        self.fields[side] += buckets

    def _row(self, key: int, field: str | None) -> int:
        place = self._vocabulary.get(key)
        if place is not None:
            return self._preprocessing.oov_rows + place
        assert field is not None, "the fixed keys of numbers are always known"
        return self._preprocessing.oov_row(field)


def vector(field: list[tuple[int, float]], table: Vector) -> Vector:
    """e_f: the sum over a field's slots of x_s v_s."""
    total = np.zeros(table.shape[1])
    for row, x in field:
        total = total + x * table[row]
    return total


def first_order(example: Example, weights: dict[str, Vector]) -> float:
    """w0 + sum over slots of w_s x_s."""
    total = float(weights["bias"][0])
    for field in example.fields["user"] + example.fields["item"]:
        for row, x in field:
            total += x * float(weights["table_RE"][row, 0])
    return total


def pairs(example: Example, weights: dict[str, Vector]) -> float:
    """The sum over pairs of fields f < g of <e_f, e_g>: no identity, every pair by itself."""
    table = weights["table_RE"][:, 1:]
    vectors = [vector(field, table) for field in example.fields["user"] + example.fields["item"]]
    return sum(float(np.dot(e_f, e_g)) for e_f, e_g in combinations(vectors, 2))


def deep(example: Example, weights: dict[str, Vector]) -> float:
    """D(): linear, batch norm by its running statistics, ReLU; then one output."""
    table = weights["table_RE"][:, 1:]
    hidden = np.concatenate(
        [
            np.concatenate([*(vector(field, table) for field in example.fields[side]), np.array(example.numbers[side])])
            for side in ("user", "item")
        ]
    )
    blocks = ["deep.first", *sorted({name[: name.index(".", 10)] for name in weights if name.startswith("deep.rest.")})]
    for block in blocks:
        hidden = weights[f"{block}.linear.weight"] @ hidden + weights[f"{block}.linear.bias"]
        scale = weights[f"{block}.norm.weight"] / np.sqrt(weights[f"{block}.norm.running_var"] + 1e-5)
        hidden = (hidden - weights[f"{block}.norm.running_mean"]) * scale + weights[f"{block}.norm.bias"]
        hidden = np.maximum(hidden, 0.0)
    return float(weights["deep.output.weight"][0] @ hidden + weights["deep.output.bias"][0])


FORMULAS: dict[str, list[Callable[[Example, dict[str, Vector]], float]]] = {
    "lr": [first_order],
    "fm": [first_order, pairs],
    "deepfm": [first_order, pairs, deep],
}
"""Each model's logit is the sum of these."""


def logit(model: CtrModel, preprocessing: Preprocessing, user: Slots, item: Slots) -> float:
    weights = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}
    example = Example(preprocessing, user, item)
    return sum(part(example, weights) for part in FORMULAS[model.name])
