"""Compile models to TorchScript archives without their tables."""

from __future__ import annotations

import copy
import io
import warnings

import torch
from torch import nn

from app.models.base import CtrModel


def script(model: CtrModel) -> bytes:
    """Compile a model's `forward` and exported methods to TorchScript, with empty tables in the place of its own."""
    for method in model.exported:
        torch.jit.export(getattr(type(model), method))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(_without_tables(model)), buffer)
    return buffer.getvalue()


def _without_tables(model: CtrModel) -> CtrModel:
    """Make a copy whose tables are buffers of one row; the tables themselves are not copied."""
    tables = {name: getattr(model, name) for name in model.tables}
    empty = {name: torch.zeros((1, *table.shape[1:]), dtype=table.dtype) for name, table in tables.items()}
    # deepcopy takes what its memo holds for the copy of an object.
    copied = copy.deepcopy(model, {id(table): empty[name] for name, table in tables.items()})
    for name, table in tables.items():
        if isinstance(table, nn.Parameter):
            delattr(copied, name)
            copied.register_buffer(name, empty[name])
    return copied
