"""Compute the logits of many examples, and their log loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from app.models.base import CtrModel
from app.training.preprocessing.expand import ExpandedRows

PREDICT_ROWS = 16_384


@torch.inference_mode()
def predict(model: CtrModel, examples: ExpandedRows) -> Tensor:
    """Return logits [N] in main memory, in evaluation mode; the model's mode is left as it was."""
    training, device = model.training, model.table_RE.device
    model.eval()
    chunks = zip(torch.split(examples.rows_NT, PREDICT_ROWS), torch.split(examples.x_NT, PREDICT_ROWS), strict=True)
    parts = []
    for chunk in chunks:
        rows_BT, x_BT = (tensor.to(device) for tensor in chunk)
        parts.append(model.logits(rows_BT, x_BT, model.fields(rows_BT, x_BT)).cpu())
    model.train(training)
    return torch.cat(parts)


def log_loss(logits_N: Tensor, labels_N: Tensor, weights_N: Tensor | None = None) -> float:
    """Return the mean binary cross-entropy in nats, weighted where there are weights."""
    total = log_loss_sum(logits_N, labels_N, weights_N)
    return total / (len(labels_N) if weights_N is None else float(weights_N.double().sum()))


def log_loss_sum(logits_N: Tensor, labels_N: Tensor, weights_N: Tensor | None = None) -> float:
    """Return the sum of the binary cross-entropies in nats, each times its weight where there are weights."""
    weight = None if weights_N is None else weights_N.double()
    return float(binary_cross_entropy_with_logits(logits_N.double(), labels_N.double(), weight, reduction="sum"))
