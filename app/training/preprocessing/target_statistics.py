"""Learn target statistics on the training rows, without a row's own label ever entering its own numbers.

The training rows are dealt into folds at random, and a row's numbers are those of the rows of all other folds: prior,
prior's weight and counts alike. Held-out rows, and the version that is served, have the numbers of all training rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from app.errors import ConfigError
from app.features.fields import SIDES, MultiCategorical, Numeric
from app.features.slot_layout import bucket_name
from app.models.preprocessing import Preprocessing
from app.models.target_statistics import KeyStatistics, Scope, StatisticsLookup
from app.training.preprocessing.click_rates import (
    Counts,
    Floats,
    deal_folds,
    example_weights,
    out_of_fold,
    smoothed_rates,
)
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.row_chunks import row_chunks

TargetStatistics = Literal["none", "fields", "pairs"]
"""No statistics, those of single fields, or those of single fields and of the pairs that are worth it."""
Pair = tuple[str, str]

SCOPES: tuple[Scope, ...] = ("user", "item", "across")
FOLDS = 10
MAX_PAIRS = 12
"""At most this many pairs a side, and as many across the sides, get a statistic."""
MIN_KEYS = 10
"""A field with fewer keys has no statistic of its own: each key's table row learns the same from many rows."""
SAMPLE_ROWS = 200_000
"""Pairs are compared on at most this many training rows, drawn at random."""
CHUNK_ROWS = 100_000


@dataclass(frozen=True)
class TargetStatisticsFit:
    """Learns target statistics and adds them to rows."""

    kind: TargetStatistics = "fields"
    seed: int = 0
    across: bool = False
    """Whether pairs across sides are wanted, which only some models read."""
    folds: int = FOLDS
    max_pairs: int = MAX_PAIRS
    known: tuple[Pair, ...] | None = None
    """The statistics to learn; None means those that `kind` says."""

    def extend(
        self, preprocessing: Preprocessing, rows: dict[str, ExpandedRows]
    ) -> tuple[Preprocessing, dict[str, ExpandedRows]]:
        """Learn the statistics of the part `train`, and add their numbers to all parts.

        Args:
            preprocessing: one without statistics.
            rows: rows by part, as `expand` gives them for that preprocessing.

        Raises:
            ConfigError: the table has too many rows for the keys of pairs.
        """
        train = rows["train"]
        encoder = _Keys(preprocessing)
        units_N = None if train.units_N is None else train.units_N.numpy()
        folds_N = deal_folds(len(train.labels_N), max(2, self.folds), self.seed, units_N)
        labels_N = train.labels_N.numpy().astype(np.float64)
        weights_N = example_weights(train)
        pairs = self.known if self.known is not None else self._choose(encoder, train, labels_N, weights_N, folds_N)
        learned: dict[Scope, KeyStatistics] = {}
        train_numbers: dict[Scope, Tensor] = {}
        for scope in SCOPES:
            chosen = tuple(pair for pair in pairs if encoder.scope(pair) == scope)
            if chosen:
                learned[scope], train_numbers[scope] = _learn(encoder, chosen, train, labels_N, weights_N, folds_N)
        extended = replace(preprocessing, statistics=learned)
        return extended, {
            part: _with_numbers(
                extended, part_rows, train_numbers if part == "train" else _look_up(encoder, learned, part_rows)
            )
            for part, part_rows in rows.items()
        }

    def _choose(
        self, encoder: _Keys, train: ExpandedRows, labels_N: Floats, weights_N: Floats, folds_N: Counts
    ) -> tuple[Pair, ...]:
        rows_NT = train.rows_NT.numpy()
        singles = [
            (field, field)
            for field in encoder.fields
            if len(np.unique(encoder.keys(rows_NT, (field, field)))) > MIN_KEYS
        ]
        if self.kind == "fields":
            return tuple(singles)
        if len(labels_N) > SAMPLE_ROWS:
            sample = np.sort(np.random.default_rng(self.seed).choice(len(labels_N), SAMPLE_ROWS, replace=False))
            rows_NT, folds_N = rows_NT[sample], folds_N[sample]
            labels_N, weights_N = labels_N[sample], weights_N[sample]
        rates = [out_of_fold(encoder.keys(rows_NT, pair), labels_N, folds_N, weights_N)[0] for pair in singles]
        gain = ScoreTest(np.stack(rates, 1) if rates else np.empty((len(labels_N), 0)), labels_N, weights_N)
        chosen_pairs = []
        for scope in SCOPES if self.across else SIDES:
            gains = {
                pair: gain(out_of_fold(encoder.keys(rows_NT, pair), labels_N, folds_N, weights_N)[0])
                for pair in encoder.candidates(scope)
            }
            # One more coefficient has to be worth log N in twice the log likelihood (Schwarz 1978).
            worth = [
                pair
                for pair in sorted(gains, key=gains.__getitem__, reverse=True)
                if gains[pair] > np.log(len(labels_N))
            ]
            chosen_pairs += worth[: self.max_pairs]
        return (*singles, *chosen_pairs)


class _Keys:
    """Computes the keys of pairs of fields from rows without statistics."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        vectors, schema = preprocessing.vectors, preprocessing.schema
        keyed = [
            field
            for side in SIDES
            for field in schema.side(side)
            if not isinstance(field, MultiCategorical) and not (isinstance(field, Numeric) and not field.buckets)
        ]
        """The fields with one key an example: categories, and numbers by their buckets."""
        self.fields = [field.name for field in keyed if not field.is_position]
        """Those of them that may have statistics: a network would learn of them what an item is worth at a place."""
        self.slot_of = {field.name: vectors.get(bucket_name(field.name), vectors[field.name]).start for field in keyed}
        self.table_rows = preprocessing.rows
        self._side = {field.name: field.side for field in schema.fields}

    def scope(self, pair: Pair) -> Scope:
        left, right = (self._side[name] for name in pair)
        return left if left == right else "across"

    def candidates(self, scope: Scope) -> Iterable[Pair]:
        """Return all pairs of different fields that are there."""
        sides = {side: [name for name in self.fields if self._side[name] == side] for side in SIDES}
        return product(sides["user"], sides["item"]) if scope == "across" else combinations(sides[scope], 2)

    def keys(self, rows_NT: npt.NDArray[np.int64], pair: Pair) -> npt.NDArray[np.int64]:
        left, right = (self.slot_of[name] for name in pair)
        return rows_NT[:, left] * self.table_rows + rows_NT[:, right]


class ScoreTest:
    """Measures what one more number adds to a logistic regression over some (Rao 1948), without fitting it again."""

    def __init__(self, x_NC: Floats, labels_N: Floats, weights_N: Floats) -> None:
        if x_NC.shape[1] and 0 < labels_N.sum() < len(labels_N):
            model = LogisticRegression(C=1e4, max_iter=1000).fit(x_NC, labels_N, sample_weight=weights_N)
            p_N = model.predict_proba(x_NC)[:, 1]
        else:
            p_N = np.full(len(labels_N), np.average(labels_N, weights=weights_N))
        x_NC = np.column_stack([np.ones(len(labels_N)), x_NC])
        self._residual_N = weights_N * (labels_N - p_N)
        self._weight_N = weights_N * p_N * (1 - p_N)
        self._weighted_CN = np.ascontiguousarray((x_NC * self._weight_N[:, None]).T)
        self._inverse_CC = np.linalg.pinv(self._weighted_CN @ x_NC)
        self._gradient_C = self._residual_N @ x_NC

    def __call__(self, x_N: Floats) -> float:
        """Return about twice the rise of the log likelihood by this number; 0 if it would count against clicks."""
        # What is left of the number beside the others, x - X b, is not computed: X^T W x gives its products.
        products_C = self._weighted_CN @ x_N
        b_C = self._inverse_CC @ products_C
        squares = float(self._weight_N @ np.square(x_N))
        slope = float(self._residual_N @ x_N - self._gradient_C @ b_C)
        information = squares - float(products_C @ b_C)
        return slope * slope / information if slope > 0 and information > 1e-9 * squares else 0.0


def _learn(
    encoder: _Keys,
    pairs: Sequence[Pair],
    train: ExpandedRows,
    labels_N: Floats,
    weights_N: Floats,
    folds_N: Counts,
) -> tuple[KeyStatistics, Tensor]:
    """Return the statistics of all training rows, and the out-of-fold numbers [N, 2 P] of these."""
    if encoder.table_rows**2 * len(pairs) >= 2**63:
        raise ConfigError(
            f"--target-statistics: {encoder.table_rows:,} table rows are too many for keys of pairs; "
            "raise --min-count, or leave them out"
        )
    rows_NT = train.rows_NT.numpy()
    all_keys, all_values, unseen = [], [], []
    numbers_N2P = np.empty((len(labels_N), 2 * len(pairs)), np.float32)
    for index, pair in enumerate(pairs):
        keys_N = encoder.keys(rows_NT, pair)
        rate_N, others_N = out_of_fold(keys_N, labels_N, folds_N, weights_N)
        keys_V, key_N = np.unique(keys_N, return_inverse=True)
        rows_V = np.bincount(key_N, weights_N, len(keys_V)).astype(np.float64)
        log_N = np.log1p(rows_V)[key_N]
        mean, deviation = float(log_N.mean()), max(float(log_N.std()), 0.1)
        numbers_N2P[:, index] = rate_N
        numbers_N2P[:, len(pairs) + index] = (np.log1p(others_N) - mean) / deviation
        all_keys.append(keys_V * len(pairs) + index)
        rates_V = smoothed_rates(np.bincount(key_N, weights_N * labels_N, len(keys_V)).astype(np.float64), rows_V)
        all_values.append(np.stack([rates_V, (np.log1p(rows_V) - mean) / deviation], 1))
        unseen.append(-mean / deviation)
    keys_V, values_V2 = np.concatenate(all_keys), np.concatenate(all_values)
    order = np.argsort(keys_V)
    learned = KeyStatistics(
        tuple(pairs),
        torch.from_numpy(keys_V[order]),
        torch.from_numpy(values_V2[order].astype(np.float32)),
        torch.tensor(unseen, dtype=torch.float32),
    )
    return learned, torch.from_numpy(numbers_N2P)


def _look_up(encoder: _Keys, learned: dict[Scope, KeyStatistics], rows: ExpandedRows) -> dict[Scope, Tensor]:
    """Return the numbers [N, 2 P] of held-out rows."""
    numbers = {}
    for scope, statistics in learned.items():
        left, right = ([encoder.slot_of[pair[end]] for pair in statistics.pairs] for end in (0, 1))
        lookup = StatisticsLookup(statistics, left, right, encoder.table_rows)
        parts = [
            lookup(rows.rows_NT[chunk], rows.rows_NT[chunk])
            for chunk in row_chunks(slice(0, len(rows.labels_N)), CHUNK_ROWS)
        ]
        numbers[scope] = torch.cat(parts) if parts else torch.empty(0, lookup.width)
    return numbers


def _with_numbers(extended: Preprocessing, rows: ExpandedRows, numbers: dict[Scope, Tensor]) -> ExpandedRows:
    """Put the numbers behind each side's slots, and those across sides behind all."""
    count, start = len(rows.labels_N), 0
    table_rows, x = [], []
    for side in SIDES:
        statistic_rows = extended.statistic_rows(side)
        width = extended.layout(side).expanded_width - len(statistic_rows)
        table_rows += [
            rows.rows_NT[:, start : start + width],
            torch.tensor(list(statistic_rows)).long().expand(count, -1),
        ]
        x += [rows.x_NT[:, start : start + width], numbers.get(side, torch.empty(count, 0))]
        start += width
    x.append(numbers.get("across", torch.empty(count, 0)))
    return rows._replace(rows_NT=torch.cat(table_rows, 1), x_NT=torch.cat(x, 1))
