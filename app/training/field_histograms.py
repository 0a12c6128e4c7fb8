"""Histograms of the training rows' fields, for the manifest: serving compares what it is asked with them."""

from __future__ import annotations

import numpy as np

from app.features.field_histogram import FieldHistogram, histogram_of
from app.features.fields import SIDES
from app.features.schema import FeatureSchema
from app.features.slots import Slots
from app.training.preprocessing.encode import EncodedRows

MAX_ROWS = 100_000
"""Rows that are looked at; a share of 1 % is known to a thirtieth of itself by as many."""


def field_histograms(schema: FeatureSchema, rows: EncodedRows, seed: int = 0) -> dict[str, FieldHistogram]:
    """Return the histogram of each field by name, in a sample of the rows, as often as each counts in metrics.

    Fields of the position have none: requests are all scored at one.
    """
    total, weighting = len(rows.labels_N), rows.weighting
    chosen = np.arange(total)
    if weighting is not None or total > MAX_ROWS:
        rng = np.random.default_rng(seed)
        if weighting is None:
            drawn = rng.choice(total, MAX_ROWS, replace=False)
        else:
            drawn = rng.choice(total, MAX_ROWS, p=weighting.weights_N / weighting.weights_N.sum())
        chosen = np.sort(drawn)
    histograms = {}
    for side in SIDES:
        slots = rows.side(side)
        sample = Slots(slots.keys[chosen], slots.values[chosen])
        for field, field_slots in schema.layout(side):
            if field.is_position:
                continue
            histograms[field.name] = histogram_of(field, field_slots, sample)
    return histograms
