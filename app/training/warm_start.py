"""Start training from the live version: its weights in a model that can be trained, and rows for new keys.

- Keys: all keys of the live vocabulary, and the new ones that occur often enough. A known key keeps its row's weights;
  a new one starts with fresh ones.
- Numbers: mean, deviation and borders stay the live version's, so that bucket rows and weights keep their meaning. Only
  a field of which the live version had seen no value is fitted on the new rows.
- Target statistics: of the same fields, learned anew from the new rows; the weights of their numbers are kept.
- Batch norms were folded into the linear maps when the version was exported. A norm whose scale and shift are the
  deviation and the mean of what it will see does nothing at first, so the model begins as the very function that is
  live (Ioffe & Szegedy 2015, the remark on recovering the identity), and goes on with normalised batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.errors import ArtifactError
from app.features.fields import SIDES, Numeric
from app.features.schema import FeatureSchema
from app.features.slot_layout import SlotLayout, declared_name
from app.models.base import CtrModel
from app.models.layers import Block
from app.models.preprocessing import NumericStatistics, Preprocessing
from app.models.target_statistics import KeyStatistics, Scope
from app.registry.artifact.artifact import Artifact
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.loop.batch_norm import sample_rows
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.preprocessing_fit import PreprocessingFit

CHUNK_ROWS = 16_384
"""This many rows are scored at a time to see which table rows they use."""


@dataclass(frozen=True)
class WarmStart:
    """Records the weights that a warm start gave the model, so that `restore_unused_rows` can restore some of them."""

    known_keys: int
    new_keys: int
    table_RE: Tensor
    """Holds the table with which training starts."""
    is_live_R: Tensor
    """Tells which of the table's rows are the live version's."""
    cross_tables: dict[str, Tensor]
    """Holds the tables of hashed crosses by name; all of their rows are the live version's."""


def live_preprocessing(live: Artifact) -> Preprocessing:
    """Read what the live version's preprocessing learned back from its program."""
    numerics = {}
    for side in SIDES:
        part = getattr(live.program, side)
        layout = live.schema.layout(side)
        borders = {f.name: row for f, row in zip(layout.bucketed, part.borders_GQ, strict=True)}
        for position, field in enumerate(layout.numerics):
            padded_borders = borders.get(field.name, torch.empty(0))
            numerics[field.name] = NumericStatistics(
                float(part.mean_M[position]),
                float(part.deviation_M[position]),
                tuple(padded_borders[torch.isfinite(padded_borders)].tolist()),  # padded with infinity
            )
    return Preprocessing(live.schema, live.program.vocabulary_V, numerics, _live_statistics(live))


def _live_statistics(live: Artifact) -> dict[Scope, KeyStatistics]:
    """Read the target statistics back, whose fields are known by their slots; a program may have none."""
    names = {side: _declared_names(live.schema.layout(side)) for side in SIDES}
    found: dict[Scope, KeyStatistics] = {}
    for side in SIDES:
        lookup: Any = getattr(getattr(live.program, side), "statistics", None)
        if hasattr(lookup, "keys_V"):
            found[side] = _read_lookup(lookup, names[side], names[side])
    across: Any = getattr(live.program, "across", None)
    if hasattr(across, "lookup"):
        user = [names["user"][slot] for slot in across.user_L.tolist()]
        item = [names["item"][slot] for slot in across.item_R.tolist()]
        found["across"] = _read_lookup(across.lookup, user, item)
    return found


def _declared_names(layout: SlotLayout) -> list[str]:
    """Return the declared field of each of a side's slots, buckets included."""
    return [declared_name(name) for name, slots in layout.vectors.items() for _ in range(slots.start, slots.stop)]


def _read_lookup(lookup: Any, left: Sequence[str], right: Sequence[str]) -> KeyStatistics:
    positions = list(zip(lookup.left_P.tolist(), lookup.right_P.tolist(), strict=True))
    return KeyStatistics(
        tuple((left[f], right[g]) for f, g in positions),
        lookup.keys_V[:-1],
        lookup.values_V2[:-1],
        lookup.unseen_2P[len(positions) :],
    )


def join_preprocessing(live: Preprocessing, fitted: Preprocessing) -> Preprocessing:
    """Join the live version's keys and numeric statistics with those fitted on new rows that it had not met."""
    numerics = {
        name: fitted.numerics[name] if statistics == NumericStatistics() else statistics
        for name, statistics in live.numerics.items()
    }
    vocabulary_V = torch.unique(torch.cat([live.vocabulary_V, fitted.vocabulary_V]))
    return Preprocessing(live.schema, vocabulary_V, numerics)


@dataclass(frozen=True)
class ContinuedPreprocessingFit(PreprocessingFit):
    """Fits preprocessing on new rows and joins it with the live version's."""

    live: Preprocessing | None = None

    def fit(self, schema: FeatureSchema, train: EncodedRows, group: ProcessGroup = SINGLE_PROCESS) -> Preprocessing:
        fitted = super().fit(schema, train, group)
        return fitted if self.live is None else join_preprocessing(self.live, fitted)

    def extend(
        self,
        preprocessing: Preprocessing,
        rows: dict[str, ExpandedRows],
        *,
        across: bool,
        seed: int,
        like: Preprocessing | None = None,
    ) -> tuple[Preprocessing, dict[str, ExpandedRows]]:
        """Learn the live version's target statistics anew, from the new rows, and add their numbers to the rows."""
        return super().extend(preprocessing, rows, across=across, seed=seed, like=like or self.live)


def warm_start(model: CtrModel, preprocessing: Preprocessing, live: Artifact, train: ExpandedRows) -> WarmStart:
    """Give a fresh model, built for the joined preprocessing, the live version's weights.

    Raises:
        ArtifactError: the version's program lacks weights that this architecture has.
    """
    live_fit = live_preprocessing(live)
    learned: dict[str, Tensor] = dict(live.program.named_parameters()) | dict(live.program.named_buffers())
    is_live_R = torch.zeros(preprocessing.rows, dtype=torch.bool)
    with torch.no_grad():
        for rows, live_rows in _matching_rows(preprocessing, live_fit):
            model.table_RE[rows] = _live_weight(learned, "table_RE", model.table_RE[:0], rows=live_rows)
            is_live_R[rows] = True
        for name, parameter in model.named_parameters():
            if name != "table_RE" and not _is_folded(model, name):
                parameter.copy_(_live_weight(learned, name, parameter))
        # An averaged version serves 1 - a times its logit, and has a / (1 - a) times a regression's weights in it. The
        # first-order part is brought to what is served; the rest stays as it was trained, to be trained on.
        scale = live.manifest.config.get("calibrated", {}).get("scale", 1.0)
        for first_order in (model.table_RE[:, 0], model.bias):
            first_order.mul_(scale)
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm1d) and f"{name}.running_mean" in learned:  # one that is not folded
                for statistic in ("running_mean", "running_var"):
                    target = getattr(module, statistic)
                    target.copy_(_live_weight(learned, f"{name}.{statistic}", target))
        _restore_batch_norms(model, train)
    new = len(preprocessing.vocabulary_V) - len(live_fit.vocabulary_V)
    cross_tables = {name: table.detach().clone() for name, table in _cross_tables(model).items()}
    return WarmStart(len(live_fit.vocabulary_V), new, model.table_RE.detach().clone(), is_live_R, cross_tables)


def restore_unused_rows(model: CtrModel, preprocessing: Preprocessing, warm: WarmStart, train: ExpandedRows) -> int:
    """Give table rows that no training row used their live weights back, so that weight decay does not erase them.

    Returns:
        How many keys had no training row.
    """
    absent_R = warm.is_live_R.clone()
    absent_R[: preprocessing.oov_rows] = False
    absent_R[train.rows_NT.flatten()] = False
    unused = {name: ~_used_rows(model, table, train) for name, table in _cross_tables(model).items()}
    with torch.no_grad():
        model.table_RE[absent_R] = warm.table_RE[absent_R]
        for name, rows_C in unused.items():
            getattr(model, name)[rows_C] = warm.cross_tables[name][rows_C]
    return int(absent_R.sum())


def _cross_tables(model: CtrModel) -> dict[str, nn.Parameter]:
    """Return the tables of hashed crosses by name: the learned tables other than the embeddings."""
    tables = {name: getattr(model, name) for name in model.tables if name != "table_RE"}
    return {name: table for name, table in tables.items() if isinstance(table, nn.Parameter)}


def _used_rows(model: CtrModel, table: nn.Parameter, train: ExpandedRows) -> Tensor:
    """Tell which rows of a table training rows look up: those for which the sum of the logits has a gradient."""
    used_C = torch.zeros(len(table), dtype=torch.bool)
    model.eval()
    chunks = (torch.split(tensor, CHUNK_ROWS) for tensor in (train.rows_NT, train.x_NT))
    for rows_BT, x_BT in zip(*chunks, strict=True):
        with torch.no_grad():
            fields_BFE = model.fields(rows_BT, x_BT)
        (gradient,) = torch.autograd.grad(model.logits(rows_BT, x_BT, fields_BFE).sum(), table)
        used_C |= gradient.ne(0).any(1)
    return used_C


def _matching_rows(new: Preprocessing, live: Preprocessing) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of rows of the new table and of the live one that have the same meaning."""
    position_V = torch.searchsorted(new.vocabulary_V, live.vocabulary_V)
    oov = torch.arange(new.oov_rows)
    pairs = [(oov, oov), (position_V + new.oov_rows, torch.arange(len(live.vocabulary_V)) + live.oov_rows)]
    for field in new.schema.fields:
        if isinstance(field, Numeric) and field.buckets:
            same = new.numerics[field.name].borders == live.numerics[field.name].borders
            rows = torch.arange(len(live.numerics[field.name].borders) + 2 if same else 1)  # the first is "missing"
            pairs.append((rows + new.bucket_row(field.name), rows + live.bucket_row(field.name)))
    for side in SIDES:
        both = [name for name in new.layout(side).statistics if name in live.layout(side).statistics]
        rows, live_rows = (torch.tensor([fit.number_row(side, name) for name in both]).long() for fit in (new, live))
        pairs.append((rows, live_rows))
    return pairs


def _is_folded(model: CtrModel, parameter: str) -> bool:
    """Tell whether a parameter is of a batch norm that is folded away when a version is exported."""
    norm, _, _ = parameter.rpartition(".")
    block, _, name = norm.rpartition(".")
    return name == "norm" and isinstance(model.get_submodule(block), Block)


def _live_weight(learned: dict[str, Tensor], name: str, like: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return a weight of the live version in the shape and dtype of `like`, or the rows of it that are given.

    Raises ArtifactError if the version has no such weight, or one of another shape.
    """
    weight = learned.get(name)
    if weight is None or weight.shape[rows is not None :] != like.shape[rows is not None :]:
        shape = "none" if weight is None else f"{list(weight.shape)}"
        raise ArtifactError(
            "program", f"the live version's {name} is {shape} and would have to be {list(like.shape)}: use --fresh"
        )
    return (weight if rows is None else weight[rows]).to(like.dtype)


def _restore_batch_norms(model: CtrModel, train: ExpandedRows) -> None:
    """Set every folded batch norm to the identity, with the training rows' statistics."""
    blocks = [block for block in model.modules() if isinstance(block, Block)]
    norms = [block.norm for block in blocks if isinstance(block.norm, nn.BatchNorm1d)]
    if not norms:
        return
    inputs_of: dict[nn.Module, Tensor] = {}

    def keep_inputs(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        inputs_of[norm] = inputs[0]

    for norm in norms:
        _set_identity(
            norm, torch.zeros_like(norm.bias), torch.ones_like(norm.weight) - norm.eps
        )  # the identity, exactly
    handles = [norm.register_forward_pre_hook(keep_inputs) for norm in norms]
    model.eval()
    sample = sample_rows(train)
    rows_BT, x_BT = sample.rows_NT, sample.x_NT
    model.logits(rows_BT, x_BT, model.fields(rows_BT, x_BT))
    for handle in handles:
        handle.remove()
    for norm in norms:
        _set_identity(norm, inputs_of[norm].mean(0), inputs_of[norm].var(0, correction=0))


def _set_identity(norm: nn.BatchNorm1d, mean_H: Tensor, variance_H: Tensor) -> None:
    """Give a norm these statistics, and the scale and shift that undo them."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean_H)
    norm.running_var.copy_(variance_H)
    norm.weight.copy_((variance_H + norm.eps).sqrt())
    norm.bias.copy_(mean_H)
