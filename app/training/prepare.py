"""From raw rows to table rows: fit what preprocessing learns, encode with the one encoder, expand once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.errors import DataError, EncodingError
from app.features.encoder import EMPTY_KEY, Encoder, Keys, Slots, Values
from app.features.schema import FeatureSchema, Numeric, Side
from app.models.inputs import NumericStatistics, Preprocessing, SideInput, numeric_key, transform
from app.training.datasets.dataset import MAX_BAD_SHARE, MAX_NAMED_ROWS, Dataset, Skipped, without_nan

SIDES: tuple[Side, Side] = ("user", "item")


class Rows(NamedTuple):
    """N examples as models take them: table rows int64 [N, T] and numbers [N, T], user side first, and labels [N]."""

    rows_NT: Tensor
    x_NT: Tensor
    labels_N: Tensor


class Encoded(NamedTuple):
    """N examples as slots."""

    user: Slots
    item: Slots
    labels_N: npt.NDArray[np.float32]
    unreadable: dict[str, Skipped]
    """Field name to the rows whose value no slot can hold; there the field counts as missing, as in serving."""

    def side(self, side: Side) -> Slots:
        return self.user if side == "user" else self.item


@dataclass(frozen=True)
class Preparation:
    """What is fitted on the training rows; `min_count` is how often a category must occur to get its own row."""

    min_count: int = 2

    def fit(self, schema: FeatureSchema, train: Encoded) -> Preprocessing:
        keys: list[Keys] = []
        numerics: dict[str, NumericStatistics] = {}
        for side in SIDES:
            slots = train.side(side)
            start = 0
            for field in schema.side(side):
                place = slice(start, start + field.width)
                start += field.width
                if isinstance(field, Numeric):
                    numerics[field.name] = numeric_statistics(field, slots.values[:, start - 1])
                else:
                    keys.append(slots.keys[:, place][slots.values[:, place] != 0.0])
        distinct, counts = np.unique(np.concatenate(keys) if keys else np.empty(0, np.int64), return_counts=True)
        fixed = [EMPTY_KEY, *(numeric_key(name) for name in numerics)]
        vocabulary = np.union1d(distinct[counts >= self.min_count], np.array(fixed, np.int64))
        return Preprocessing(schema, torch.from_numpy(vocabulary), numerics)


def numeric_statistics(field: Numeric, raw_N: Values) -> NumericStatistics:
    """Mean and deviation as `standardise` will meet the numbers, after the transforms before it; quantile borders.

    Missing (NaN) numbers are left out; a constant field gets deviation 1.
    """
    known_N = raw_N[~np.isnan(raw_N)]
    if not len(known_N):
        return NumericStatistics()
    x_N = torch.from_numpy(known_N)
    for name in field.transforms:
        if name == "standardise":
            break
        x_N = transform(x_N, name)
    x64_N = x_N.double()
    deviation = float(x64_N.std(correction=0))
    borders: tuple[float, ...] = ()
    if field.buckets > 1:
        quantiles = np.quantile(known_N.astype(np.float64), np.linspace(0, 1, field.buckets + 1)[1:-1])
        borders = tuple(float(border) for border in np.unique(quantiles.astype(np.float32)))
    return NumericStatistics(float(x64_N.mean()), deviation if deviation > 1e-6 else 1.0, borders)


def encode(data: Dataset) -> Encoded:
    """Slots of a dataset's rows.

    Raises:
        DataError: a field has more than `MAX_BAD_SHARE` values that cannot be read.
    """
    unreadable: dict[str, Skipped] = {}
    slots = {side: _encode_side(data, side, unreadable) for side in SIDES}
    return Encoded(slots["user"], slots["item"], data.labels_N, unreadable)


def expand(preprocessing: Preprocessing, encoded: Encoded) -> Rows:
    """Table rows and numbers of encoded examples, by the very module that serving uses."""
    parts = [
        SideInput(preprocessing, side).expand(
            preprocessing.vocabulary_V,
            torch.from_numpy(encoded.side(side).keys),
            torch.from_numpy(encoded.side(side).values),
        )
        for side in SIDES
    ]
    return Rows(
        torch.cat([rows for rows, _ in parts], 1),
        torch.cat([x for _, x in parts], 1),
        torch.from_numpy(encoded.labels_N),
    )


def _encode_side(data: Dataset, side: Side, unreadable: dict[str, Skipped]) -> Slots:
    columns = without_nan(data.side(side)).to_dict(as_series=False)
    refused: set[str] = set()
    slots = Encoder(data.schema, side).encode_columns(columns, len(data), refused.add)
    for field in data.schema.side(side):
        if field.name not in refused:
            continue
        one = FeatureSchema(fields=(field,))
        bad = _bad_rows(Encoder(one, side), columns[field.raw_name], field.raw_name)
        skipped = Skipped(len(bad), tuple(bad[:MAX_NAMED_ROWS]), "the value fits no slot and counts as missing")
        if len(bad) > MAX_BAD_SHARE * len(data):
            raise DataError(
                f"{data.source}: {field.name} cannot be read as {field.type} in {len(bad)} of {len(data)} rows, "
                f"first in row {bad[0]} of the part; is the field's type right?"
            )
        unreadable[field.name] = skipped
    return slots


def _bad_rows(encoder: Encoder, column: Sequence[Any], raw_name: str) -> list[int]:
    """Numbers, from 1, of the rows whose value the encoder refuses."""
    bad = []
    for number, value in enumerate(column, start=1):
        try:
            encoder.encode({raw_name: value}, value)
        except EncodingError:
            bad.append(number)
    return bad
