"""The models' formulas, written a second time in plain Python and float64, one slot and one pair at a time.

Nothing of app.models is called: only weights are read. The code is slow and obvious on purpose.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from torch import Tensor

from app.features.fields import SIDES, Numeric, Side
from app.features.schema import FeatureSchema
from app.features.slots import NUMERIC_MARK, Slots, slot_key
from app.models.base import CtrModel
from app.models.preprocessing import NumericStatistics, Preprocessing
from app.models.target_statistics import Scope

Vector = np.ndarray[Any, np.dtype[np.float64]]


def transformed(raw: float, transforms: tuple[str, ...], statistics: NumericStatistics) -> float:
    """Transform a raw number; a missing one is 0."""
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
            # Learned statistics are kept in 32 bits.
            mean, deviation = float(np.float32(statistics.mean)), float(np.float32(statistics.deviation))
            raw = min(4.0, max(-4.0, (raw - mean) / deviation))
    return raw


@functools.lru_cache(2)
def indexed(vocabulary_V: Tensor) -> dict[int, int]:
    """Return each key of the vocabulary with its index; most examples of a test have the same."""
    return {int(key): index for index, key in enumerate(vocabulary_V)}


class Example:
    """One (request, item) pair as fields of (row, x), and the numbers beside them."""

    def __init__(self, preprocessing: Preprocessing, user: Slots, item: Slots) -> None:
        self.fields: dict[Side, list[list[tuple[int, float]]]] = {"user": [], "item": []}
        self.numbers: dict[Side, list[float]] = {"user": [], "item": []}
        self.named: dict[str, list[tuple[int, float]]] = {}
        """The fields by name; `<name>:bucket` is a number's bucket."""
        self.pair_numbers: list[float] = []
        """The target statistics of pairs across sides."""
        self._vocabulary = indexed(preprocessing.vocabulary_V)
        self._preprocessing = preprocessing
        for side, slots in (("user", user), ("item", item)):
            self._read(preprocessing.schema, side, list(zip(slots.keys.tolist(), slots.values.tolist(), strict=True)))  # type: ignore[arg-type]
        for side in SIDES:
            numbers = self._statistics(side)
            rows = preprocessing.statistic_rows(side)
            self.fields[side] += [[(row, x)] for row, x in zip(rows, numbers, strict=True)]
            self.numbers[side] += numbers
        self.pair_numbers = self._statistics("across")

    def _statistics(self, scope: Scope) -> list[float]:
        """Return the rates of all statistics, then their counts."""
        statistics = self._preprocessing.target_statistics(scope)
        values = dict(zip(statistics.keys_V.tolist(), statistics.values_V2.tolist(), strict=True))
        before = self._preprocessing.bucket_row(None)
        rates, counts = [], []
        for index, pair in enumerate(statistics.pairs):
            left, right = (self.named.get(f"{name}:bucket", self.named[name])[0][0] for name in pair)
            key = (left * before + right) * len(statistics.pairs) + index
            rate, count = values.get(key, (0.0, float(statistics.unseen_P[index])))
            rates.append(rate)
            counts.append(count)
        return rates + counts

    def _read(self, schema: FeatureSchema, side: Side, slots: list[tuple[int, float]]) -> None:
        buckets = []
        for field in schema.side(side):
            field_slots, slots = slots[: field.width], slots[field.width :]
            if isinstance(field, Numeric):
                [(key, raw)] = field_slots
                assert key == slot_key(field.name + NUMERIC_MARK)
                statistics = self._preprocessing.numerics[field.name]
                x = transformed(raw, field.transforms, statistics)
                self.fields[side].append([(self._row(key, None), x)])
                self.numbers[side].append(x)
                if field.buckets:
                    bucket = 0 if math.isnan(raw) else 1 + bisect_right(statistics.borders, raw)
                    buckets.append([(self._preprocessing.bucket_row(field.name) + bucket, 1.0)])
                    self.named[f"{field.name}:bucket"] = buckets[-1]
            else:
                self.fields[side].append([(self._row(key, field.name), x) for key, x in field_slots])
            self.named[field.name] = self.fields[side][-1]
        self.fields[side] += buckets

    def code(self, row: int) -> int:
        """Return a table row's code in hashed crosses: 31 bits of its key, or a small number if it has no key."""
        index = row - self._preprocessing.oov_rows
        if 0 <= index < len(self._vocabulary):
            return int(self._preprocessing.vocabulary_V[index]) % 2**31
        return row if index < 0 else row - len(self._vocabulary)

    def _row(self, key: int, field: str | None) -> int:
        index = self._vocabulary.get(key)
        if index is not None:
            return self._preprocessing.oov_rows + index
        assert field is not None, "the fixed keys of numbers are always known"
        return self._preprocessing.oov_row(field)


def vector(field: list[tuple[int, float]], table: Vector) -> Vector:
    """Compute e_f, the sum over a field's slots of x_s v_s."""
    total = np.zeros(table.shape[1])
    for row, x in field:
        total = total + x * table[row]
    return total


def first_order(example: Example, weights: dict[str, Vector]) -> float:
    """Compute w0 + the sum over slots of w_s x_s."""
    total = float(weights["bias"][0])
    for field in example.fields["user"] + example.fields["item"]:
        for row, x in field:
            total += x * float(weights["table_RE"][row, 0])
    return total


def pairs(example: Example, weights: dict[str, Vector]) -> float:
    """Sum <e_f, e_g> over pairs of fields f < g, every pair by itself and not by the lemma."""
    table = weights["table_RE"][:, 1:]
    vectors = [vector(field, table) for field in example.fields["user"] + example.fields["item"]]
    return sum(float(np.dot(e_f, e_g)) for e_f, e_g in combinations(vectors, 2))


def inputs(example: Example, weights: dict[str, Vector], sides: tuple[Side, ...] = ("user", "item")) -> Vector:
    """Return the input of a network that reads everything: each side's embeddings, then its numbers."""
    table = weights["table_RE"][:, 1:]
    parts = []
    for side in sides:
        parts += [*(vector(field, table) for field in example.fields[side]), np.array(example.numbers[side])]
    return np.concatenate(parts)


def hidden(weights: dict[str, Vector], prefix: str, x: Vector) -> Vector:
    """Compute blocks of linear, batch norm by its running statistics, ReLU."""
    for block in sorted({name.split(".linear.")[0] for name in weights if name.startswith(prefix + ".")}):
        if f"{block}.linear.weight" in weights:
            x = weights[f"{block}.linear.weight"] @ x + weights[f"{block}.linear.bias"]
            if f"{block}.norm.weight" in weights:
                x = normed(weights, f"{block}.norm", x)
            x = np.maximum(x, 0.0)
    return x


def normed(weights: dict[str, Vector], prefix: str, x: Vector) -> Vector:
    scale = weights[f"{prefix}.weight"] / np.sqrt(weights[f"{prefix}.running_var"] + 1e-5)
    return (x - weights[f"{prefix}.running_mean"]) * scale + weights[f"{prefix}.bias"]


def network(weights: dict[str, Vector], prefix: str, x: Vector) -> Vector:
    """Compute hidden blocks and a linear output."""
    return weights[f"{prefix}.output.weight"] @ hidden(weights, prefix, x) + weights[f"{prefix}.output.bias"]


def deep(example: Example, weights: dict[str, Vector]) -> float:
    return float(network(weights, "deep", inputs(example, weights))[0])


def deep_with_pairs(example: Example, weights: dict[str, Vector]) -> float:
    """Compute a network that reads the statistics of pairs across sides too."""
    x = np.concatenate([inputs(example, weights), np.array(example.pair_numbers)])
    return float(network(weights, "deep", x)[0])


def bias(example: Example, weights: dict[str, Vector]) -> float:
    return float(weights["bias"][0])


def triples(example: Example, weights: dict[str, Vector]) -> float:
    """Sum sum_k e_fk e_gk e_hk over triples of fields."""
    table = weights["table_RE"][:, 1:]
    vectors = [vector(field, table) for field in example.fields["user"] + example.fields["item"]]
    return sum(float((e_f * e_g * e_h).sum()) for e_f, e_g, e_h in combinations(vectors, 3))


def pooled(example: Example, weights: dict[str, Vector]) -> Vector:
    """Sum e_f * e_g over pairs of fields."""
    table = weights["table_RE"][:, 1:]
    vectors = [vector(field, table) for field in example.fields["user"] + example.fields["item"]]
    return sum((e_f * e_g for e_f, e_g in combinations(vectors, 2)), np.zeros(table.shape[1]))


def deep_over_pooled(example: Example, weights: dict[str, Vector], prefix: str = "pooled") -> float:
    normal = normed(weights, f"{prefix}.norm", pooled(example, weights))
    return float(network(weights, f"{prefix}.deep", normal)[0])


def bucket(left: int, right: int, buckets: int) -> int:
    mixed = (left * 0x2C1B3C6D) ^ (right * 0x297A2D39)
    mixed = ((mixed ^ (mixed >> 31)) % 2**31) * 0x31848BAB
    return (mixed ^ (mixed >> 29)) % buckets


def crossed(example: Example, weights: dict[str, Vector], crosses: list[tuple[str, str, int]]) -> float:
    """Sum x_s x_t w[h(s, t)] over hashed crosses, each with a range of weights of its field_slots."""
    total, first = 0.0, 0
    for left, right, buckets in crosses:
        for s, x_s in example.named[left]:
            for t, x_t in example.named[right]:
                row = first + bucket(example.code(s), example.code(t), buckets)
                total += x_s * x_t * float(weights["cross_table_C1"][row, 0])
        first += buckets
    return total


def wide(example: Example, weights: dict[str, Vector]) -> float:
    """Compute the wide part of the tests' schema, which declares no crosses; its two genre fields share a space."""
    return crossed(example, weights, [("liked_genres", "genres", 10_000)])


def named(example: Example, weights: dict[str, Vector], *names: str) -> list[Vector]:
    return [vector(example.named[name], weights["table_RE"][:, 1:]) for name in names]


def ids(example: Example, weights: dict[str, Vector]) -> float:
    return float(network(weights, "deep", np.concatenate(named(example, weights, "user_id", "item_id")))[0])


def towers_product(example: Example, weights: dict[str, Vector]) -> float:
    user = network(weights, "user_tower", inputs(example, weights, ("user",)))
    return float(user @ network(weights, "item_tower", inputs(example, weights, ("item",))))


def towers(example: Example, weights: dict[str, Vector]) -> float:
    return float(weights["scale"][0]) * towers_product(example, weights)


def four_crosses(example: Example, weights: dict[str, Vector]) -> float:
    user, user_genre, movie, movie_genre = named(example, weights, "user_id", "liked_genres", "item_id", "genres")
    products = [user @ movie, user @ movie_genre, user_genre @ movie, user_genre @ movie_genre]
    return float(weights["crosses.weight_P"] @ np.array(products))


def sparrow_deep(example: Example, weights: dict[str, Vector]) -> float:
    user, movie = named(example, weights, "user_id", "item_id")
    numbers = [np.array(example.numbers[side]) for side in ("user", "item")]
    return float(network(weights, "deep", np.concatenate([user, numbers[0], movie, numbers[1]]))[0])


def sparrow_projected(example: Example, weights: dict[str, Vector]) -> float:
    blocks = []
    for side, names in (("user", ("user_id", "liked_genres")), ("item", ("item_id", "genres"))):
        for index, e in enumerate(named(example, weights, *names)):
            blocks.append(e @ weights[f"{side}_blocks.weight_JKD"][index] + weights[f"{side}_blocks.bias_JD"][index])
    numbers = np.array(example.numbers["user"] + example.numbers["item"])
    blocks.insert(2, weights["numeric_DM"] @ numbers + weights["numeric_D"])
    twice_the_pairs = sum(p * q for p in blocks for q in blocks if p is not q)
    return float(weights["pairwise_D"] @ twice_the_pairs + network(weights, "deep", np.concatenate(blocks))[0])


def cross_network(example: Example, weights: dict[str, Vector]) -> float:
    x_0 = x = inputs(example, weights)
    for layer in ("first", "later.0"):
        x = x_0 * (weights[f"{layer}.weight"] @ x + weights[f"{layer}.bias"]) + x
    return float(weights["output.weight"][0] @ x + weights["output.bias"][0])


def two_streams(example: Example, weights: dict[str, Vector]) -> float:
    x = inputs(example, weights)
    outputs = []
    for side in ("user", "item"):
        gate = 2 / (1 + np.exp(-network(weights, f"{side}_gate", inputs(example, weights, (side,)))))  # type: ignore[arg-type]
        pair_numbers = np.array(example.pair_numbers if side == "user" else [])
        outputs.append(hidden(weights, f"{side}_stream", np.concatenate([gate * x, pair_numbers])))
    o_1, o_2 = outputs
    bilinear, start = 0.0, 0
    for matrix in weights["bilinear_HOO"]:
        stop = start + len(matrix)
        bilinear += float(o_1[start:stop] @ matrix @ o_2[start:stop])
        start = stop
    return bilinear + float(weights["linear.weight"][0] @ np.concatenate(outputs) + weights["linear.bias"][0])


def joint_neuron(example: Example, weights: dict[str, Vector]) -> float:
    x = inputs(example, weights)
    outputs = [
        wide(example, weights) + network(weights, "wide_deep", np.concatenate([x, np.array(example.pair_numbers)]))[0],
        towers_product(example, weights),
        pairs(example, weights) + network(weights, "deepfm", x)[0],
        deep_over_pooled(example, weights, "nfm"),
    ]
    return float(weights["joint_4"] @ np.array(outputs))


FORMULAS: dict[str, list[Callable[[Example, dict[str, Vector]], float]]] = {
    "lr": [first_order],
    "fm": [first_order, pairs],
    "hofm": [first_order, pairs, triples],
    "deepfm": [first_order, pairs, deep_with_pairs],
    "embedding_mlp": [bias, deep_with_pairs],
    "wide_deep": [first_order, wide, deep_with_pairs],
    "neural_cf": [bias, ids],
    "neural_cf_towers": [bias, towers],
    "deepfm_sparrow": [first_order, four_crosses, sparrow_deep],
    "deepfm_sparrow_v2": [first_order, sparrow_projected],
    "nfm": [first_order, deep_over_pooled],
    "dcn": [bias, cross_network, deep_with_pairs],
    "finalmlp": [bias, two_streams],
    "fusion": [first_order, joint_neuron],
}
"""The terms of each model's logit, by the model's name."""


def weights_of(model: CtrModel) -> dict[str, Vector]:
    return {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}


def logit(model: CtrModel, preprocessing: Preprocessing, user: Slots, item: Slots, weights: dict[str, Vector]) -> float:
    """Return the logit by the formula; the weights are those of `weights_of`."""
    example = Example(preprocessing, user, item)
    return sum(part(example, weights) for part in FORMULAS[model.name])
