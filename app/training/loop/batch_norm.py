"""Estimate the statistics of batch norms anew for the weights that a model has now.

A batch norm's running statistics trail behind the weights, and an average of weights is a network that no batch was
ever run through: averaged running statistics belong to no network. As stochastic weight averaging does (Izmailov et
al. 2018, section 3.2), the averaged model is run once over training rows before it is judged or kept. docs/adr/0014
has what that is worth.
"""

from __future__ import annotations

import torch
from torch import nn

from app.models.base import CtrModel
from app.training.preprocessing.expand import ExpandedRows

SAMPLE_ROWS = 16_384
"""Number of training rows that statistics are estimated from."""


def batch_norms(model: nn.Module) -> list[nn.BatchNorm1d]:
    """Return the batch norms of a model."""
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]


def sample_rows(train: ExpandedRows, count: int = SAMPLE_ROWS) -> ExpandedRows:
    """Return at most `count` rows, evenly spread over the training rows."""
    stride = -(-len(train.labels_N) // count)
    return ExpandedRows(*(tensor[::stride].clone() for tensor in train[:3]))


@torch.no_grad()
def estimate_batch_norms(model: CtrModel, rows: ExpandedRows) -> None:
    """Set every batch norm's statistics, in place, to mean and variance of its inputs for these rows.

    Dropout is off, as it is when the model scores. Each norm sees what the norms below it pass on by their new
    statistics. The model ends in evaluation mode.

    Args:
        rows: at least two rows.
    """
    norms = batch_norms(model)
    model.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()  # and the count of batches, the same however often a run was resumed
        norm.train()
        norm.momentum = 1.0  # the statistics of this one batch, and nothing of those before
    device = model.table_RE.device
    rows_BT, x_BT = rows.rows_NT.to(device), rows.x_NT.to(device)
    model.logits(rows_BT, x_BT, model.fields(rows_BT, x_BT))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
