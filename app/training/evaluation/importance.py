"""Measure permutation importance (Breiman 2001, section 10): what a model loses when a field is shuffled.

It belongs to this model and not to the data: of two fields with the same content, either may get it all, or both half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from app.features.slot_layout import declared_name
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.training.evaluation.predict import log_loss, predict
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.sampling import sample

MAX_ROWS = 10_000
REPEATS = 3


@dataclass(frozen=True)
class FieldImportance:
    """Tells how much worse a model predicts without one field."""

    field: str
    entity: str
    log_loss: float
    """Holds the mean rise of the log loss, in nats; below 0, the model would do better without the field."""
    log_loss_range: tuple[float, float]
    """Holds the least and the largest rise among the repeats."""
    auc: float
    """Holds the mean fall of the AUC."""


def measure_importance(
    model: CtrModel,
    preprocessing: Preprocessing,
    rows: ExpandedRows,
    *,
    seed: int = 0,
    max_rows: int = MAX_ROWS,
    scale: float = 1.0,
) -> list[FieldImportance]:
    """Measure every field on a sample of the rows and return the most important first.

    A number and its bucket are shuffled together, and a field with its target statistic. The statistic of a pair is
    shuffled by itself; its field is called `<field>+<field>`.

    Args:
        scale: what the model's logits are multiplied by, before any calibration.
    """
    rows = sample(rows, seed, max_rows)
    labels = rows.labels_N.numpy()
    weights_N = None if rows.weights_N is None else rows.weights_N.numpy()
    has_both_labels = labels.min() < labels.max()

    def measure(examples: ExpandedRows) -> tuple[float, float]:
        logits_N = scale * predict(model, examples)
        auc = (
            float(roc_auc_score(labels, logits_N.numpy(), sample_weight=weights_N)) if has_both_labels else float("nan")
        )
        return log_loss(logits_N, examples.labels_N, examples.weights_N), auc

    loss, auc = measure(rows)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(labels), generator=generator) for _ in range(REPEATS)]
    fields, entities = [], {f.name: f.entity for f in preprocessing.schema.fields}
    for field, slots in field_slots(preprocessing).items():
        rises, falls = [], []
        for order_N in orders:
            shuffled = rows._replace(rows_NT=rows.rows_NT.clone(), x_NT=rows.x_NT.clone())
            shuffled.rows_NT[:, slots] = rows.rows_NT[order_N][:, slots]
            shuffled.x_NT[:, slots] = rows.x_NT[order_N][:, slots]
            shuffled_loss, shuffled_auc = measure(shuffled)
            rises.append(shuffled_loss - loss)
            falls.append(auc - shuffled_auc)
        entity = entities[field.partition("+")[0]]
        fields.append(
            FieldImportance(field, entity, float(np.mean(rises)), (min(rises), max(rises)), float(np.mean(falls)))
        )
    return sorted(fields, key=lambda importance: -importance.log_loss)


def field_slots(preprocessing: Preprocessing) -> dict[str, list[int]]:
    """Return the slots of each declared field among the T of both sides, its bucket's and its statistic's included."""
    slots_of: dict[str, list[int]] = {}
    for name, slots in preprocessing.vectors.items():
        slots_of.setdefault(declared_name(name), []).extend(range(slots.start, slots.stop))
    return slots_of
