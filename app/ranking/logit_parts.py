"""Split the logit of one (request, item) pair into parts that add up to it, for models whose logit is a sum.

    logit = bias + sum over fields of first order + sum over pairs of fields + crosses of higher orders + deep

Field vectors of one declared field count as that field: a number and its bucket are one field, and what the two cross
is a pair of the field with itself. What a network computes is one part, with one exception: nfm's D is a network of
ReLUs over the pooled crosses f, so that it is linear around f, and f_k times the slope there is what dimension k gives:

    D(f) = sum_k f_k dD/df_k + rest          (rest, what the layers' biases give at f, is the part `deep`)

A model is read by its own methods and tensors, which a published program has under the same names; so versions that
were published before there were parts have them too. `app.models.base` explains the shape suffixes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, cast

import msgspec
import torch
from msgspec import UNSET, Meta, UnsetType
from torch import Tensor

from app.features.fields import SIDES
from app.features.slot_layout import declared_name
from app.features.slots import Slots
from app.models.hashed_crosses import hashed_crosses_of
from app.models.target_statistics import COLUMNS
from app.registry.artifact.artifact import Artifact
from app.runtime.loop_pacer import MOST_WAIT_S, SliceTurns

MAX_PAIRS = 200
"""Pairs of fields that are told apart, the strongest: as many as 20 fields have, and a tenth of what 64 fields have."""
MAX_ERROR = 1e-4
"""How far the sum of the parts may be from the logit."""


class NoLogitParts(Exception):
    """The logit of a model is no sum of parts, or the parts cannot be told; the message says which."""


# Thousands of them live at a time: a collection of garbage would walk them, and find nothing.
class LogitPart(msgspec.Struct, frozen=True, gc=False):
    """A term of a logit."""

    part: Literal["bias", "first", "pair", "order", "dimension", "deep"]
    fields: Annotated[
        tuple[str, ...],
        Meta(description="One of a `first`, two of a `pair`; none of others and of the `pair` of all further pairs"),
    ]
    value: float
    order: Annotated[int | UnsetType, Meta(description="Of an `order`: how many fields each cross is of")] = UNSET
    dimension: Annotated[int | UnsetType, Meta(description="Of a `dimension`: which pooled cross it is")] = UNSET


class LogitParts:
    """Computes the parts of a model's logits."""

    def __init__(self, artifact: Artifact, turns: SliceTurns) -> None:
        """
        Args:
            artifact: the version whose logits are split.
            turns: of the slices of requests that take long.

        Raises NoLogitParts if its model's logit is no sum of parts.
        """
        architecture = artifact.manifest.architecture
        terms: dict[str, Sequence[Callable[[Tensor, Tensor, Tensor], list[LogitPart]]]] = {
            "lr": (),
            "fm": (self._pairs,),
            "hofm": (self._pairs, self._orders),
            "deepfm": (self._pairs, self._deep),
            "wide_deep": (self._hashed_crosses, self._deep),
            "nfm": (self._dimensions,),
        }
        if architecture not in terms:
            raise NoLogitParts(f"the logit of {architecture} is no sum of parts; those of {', '.join(terms)} are")
        self._terms = terms[architecture]
        self._turns = turns
        self._model: Any = artifact.program  # read beyond the interface of programs, by its class's methods
        self._schema = artifact.schema
        self._device = artifact.device

    async def split(self, user: Slots, item: Slots, most_wait_s: float = MOST_WAIT_S) -> list[LogitPart]:
        """Split the logit of one user's and one item's slots [S]. Parts of a kind come strongest first, none is 0.

        Others have a turn before each kind but the first, so that they wait for one kind at most.

        Args:
            most_wait_s: how long each kind waits for an idle loop.

        Raises NoLogitParts if the program lacks what its model's class has today.
        """
        with _reading_the_program():
            inputs = self._inputs(user, item)
            parts = [LogitPart("bias", (), _number(self._model.bias)), *self._first_order(inputs[2])]
        for term in self._terms:
            await self._turns.next(most_wait_s)
            with _reading_the_program():
                parts += term(*inputs)
        return parts

    def _inputs(self, user: Slots, item: Slots) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows [1, T] of both sides' slots, their values [1, T] and the field vectors [1, F, E]."""
        model = self._model
        slots = [torch.from_numpy(array[None]).to(self._device) for array in (*user, *item)]
        user_rows_BT, user_x_BT = model.user.expand(model.vocabulary_V, *slots[:2])
        item_rows_BT, item_x_BT = model.item.expand(model.vocabulary_V, *slots[2:])
        rows_BT, x_BT = torch.cat([user_rows_BT, item_rows_BT], 1), torch.cat([user_x_BT, item_x_BT], 1)
        if getattr(model, "has_across", False):
            x_BT = torch.cat([x_BT, model.across(user_rows_BT, item_rows_BT).to(x_BT.dtype)], 1)
        fields_BFE = model.fields(rows_BT, x_BT)
        if getattr(model, "has_dims", False):
            fields_BFE = fields_BFE * model.dims_mask_FE
        return rows_BT, x_BT, fields_BFE

    @cached_property
    def _slot_names(self) -> list[str]:
        """The field of each of the T slots of both sides."""
        return [name for slots, _ in self._sides for name in slots]

    @cached_property
    def _vector_names(self) -> list[str]:
        """The field of each of the F field vectors of both sides."""
        return [name for _, vectors in self._sides for name in vectors]

    @cached_property
    def _sides(self) -> list[tuple[list[str], list[str]]]:
        """Of each side the fields of its slots and of its field vectors, those of target statistics among them."""
        sides = []
        for side, module in zip(SIDES, (self._model.user, self._model.item), strict=True):
            vectors = self._schema.layout(side).vectors
            slots = [declared_name(name) for name, run in vectors.items() for _ in range(run.stop - run.start)]
            statistics = []
            if getattr(module, "has_statistics", False):
                ends = zip(module.statistics.left_P.tolist(), module.statistics.right_P.tolist(), strict=True)
                pairs = [(slots[left], slots[right]) for left, right in ends]
                statistics = [left if left == right else f"{left}+{right}" for left, right in pairs] * len(COLUMNS)
            sides.append((slots + statistics, [*map(declared_name, vectors), *statistics]))
        return sides

    @cached_property
    def _fields(self) -> list[str]:
        return list(dict.fromkeys(self._vector_names))

    @cached_property
    def _field_of_vector_F(self) -> Tensor:
        """The index of each field vector's field among `_fields`."""
        return torch.tensor([self._fields.index(name) for name in self._vector_names])

    def _first_order(self, fields_BFE: Tensor) -> list[LogitPart]:
        weights_F = fields_BFE[0, :, 0].cpu()
        values = _numbers(weights_F.new_zeros(len(self._fields)).index_add(0, self._field_of_vector_F, weights_F))
        return _strongest_first(
            [LogitPart("first", (name,), value) for name, value in zip(self._fields, values, strict=True)]
        )

    def _pairs(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> list[LogitPart]:
        """Compute a_fg e_f . e_g for the model's pairs of field vectors, all of them where it chooses none."""
        e_BFK, crosses = fields_BFE[:, :, 1:], cast(Any, getattr(self._model, "crosses", None))
        if hasattr(crosses, "mask_JK1"):  # embeddings of several sizes are projected before they are crossed
            smaller_J = torch.cat([crosses.user_J, crosses.item_J + crosses.user_fields])
            e_BFK, crosses = crosses._project(e_BFK, smaller_J, crosses._projections()), crosses.crosses
        pairs_FF = torch.matmul(e_BFK[0], e_BFK[0].t())
        pairs_FF = (pairs_FF * crosses.weights() if hasattr(crosses, "left_P") else pairs_FF.triu(1)).cpu()
        field_F, fields = self._field_of_vector_F, len(self._fields)
        cell_FF = torch.minimum(field_F[:, None], field_F) * fields + torch.maximum(field_F[:, None], field_F)
        cells = pairs_FF.new_zeros(fields * fields).index_add(0, cell_FF.flatten(), pairs_FF.flatten())
        strongest = cells.abs().topk(min(MAX_PAIRS, len(cells))).indices
        parts = [
            LogitPart("pair", (self._fields[cell // fields], self._fields[cell % fields]), value)
            for cell, value in zip(strongest.tolist(), _numbers(cells[strongest]), strict=True)
        ]
        others = cells.double().index_fill(0, strongest, 0.0).sum()
        return [part for part in [*parts, LogitPart("pair", (), _number(others))] if part.value != 0]

    def _hashed_crosses(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> list[LogitPart]:
        """Compute each cross of a wide part by the wide part itself, of slots that are 0 outside the crossed fields."""
        model, crosses = self._model, hashed_crosses_of(self._schema)
        pairs = sorted({tuple(sorted(cross.fields, key=self._fields.index)) for cross in crosses})
        if not pairs:
            return []
        masks = [[float(name in pair) for name in self._slot_names] for pair in pairs]
        x_CT = x_BT[:, : len(self._slot_names)] * torch.tensor(masks, dtype=x_BT.dtype, device=x_BT.device)
        rows_CT = rows_BT.expand(len(pairs), -1)
        values = _numbers(model.wide(model.cross_table_C1, model.vocabulary_V, rows_CT, x_CT))
        return _strongest_first([LogitPart("pair", pair, value) for pair, value in zip(pairs, values, strict=True)])

    def _orders(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> list[LogitPart]:
        """Compute the crosses of three fields together, then those of four, as far as the model goes."""
        sums_L = _numbers(self._model.anova(fields_BFE[:, :, 1:])[0].sum(1))
        return [LogitPart("order", (), value, order=order) for order, value in enumerate(sums_L[2:], 3)]

    def _deep(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> list[LogitPart]:
        """Compute the network; its inputs are put together here, as programs before 2026-11-28 name that otherwise."""
        model, e_BFK = self._model, fields_BFE[:, :, 1:]
        slots, vectors = model.user.width, model.user.fields
        inputs = [
            *(e_BFK[:, :vectors].flatten(1), model.user.numerics(x_BT[:, :slots])),
            *(e_BFK[:, vectors:].flatten(1), model.item.numerics(x_BT[:, slots:])),
            x_BT[:, rows_BT.size(1) :].to(e_BFK.dtype),  # the statistics of pairs across sides
        ]
        if getattr(model, "element_wise", False):
            inputs.append(model.crosses(e_BFK))
        return [LogitPart("deep", (), _number(model.deep(torch.cat(inputs, 1))))]

    def _dimensions(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> list[LogitPart]:
        """Compute what each of the pooled crosses gives; the module has the formula."""
        pooled, f_BK = self._model.pooled, self._model.crosses(fields_BFE[:, :, 1:])
        values_K = (f_BK[0] * _slope(pooled, f_BK)).double()
        rest = pooled(f_BK).double() - values_K.sum()
        parts = [LogitPart("dimension", (), value, dimension=index) for index, value in enumerate(_numbers(values_K))]
        return [*parts, LogitPart("deep", (), _number(rest))]


def _slope(pooled: Any, f_BK: Tensor) -> Tensor:
    """Compute the slope dD/df [K] of a pooled network (`app.models.nfm.PooledMlp`) at f [1, K]."""
    x_BD, layers = pooled.norm(f_BK), []
    for block in (pooled.deep.first, *pooled.deep.rest.children()):
        x_BD = block(x_BD)
        layers.append((block.linear.weight, x_BD[0] > 0))
    slope_D: Tensor = pooled.deep.output.weight[0]
    for weight, active in reversed(layers):
        slope_D = torch.mv(weight.t(), slope_D * active)
    norm_slope_BK: Tensor = pooled.norm(torch.ones_like(f_BK)) - pooled.norm(torch.zeros_like(f_BK))
    return slope_D * norm_slope_BK[0]


def _numbers(values: Tensor) -> list[float]:
    """Return values [N] without the digits that float32 does not have."""
    rounded: list[float] = values.double().round(decimals=8).tolist()
    return rounded


def _number(value: Tensor) -> float:
    """Return one value, in a tensor of any shape, as `_numbers` does."""
    return _numbers(value.view(1))[0]


def _strongest_first(parts: list[LogitPart]) -> list[LogitPart]:
    return sorted((part for part in parts if part.value != 0), key=lambda part: -abs(part.value))


@contextlib.contextmanager
def _reading_the_program() -> Iterator[None]:
    """Run without gradients. Raises NoLogitParts where the program has other attributes or shapes than its class."""
    try:
        with torch.inference_mode():
            yield
    except (AttributeError, RuntimeError) as error:
        raise NoLogitParts("the parts of this version's logit cannot be told") from error
