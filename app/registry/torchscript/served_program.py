"""The interface of a loaded program: what a version's `model.pt` offers to the rest of the service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

from app.models.base import CtrModel
from app.native.user_encoder import EncodedSide


class ServedProgram(Protocol):
    """A model as a program: the methods of `app.models.base.CtrModel` that serving calls, and the tensors it reads."""

    @property
    def user(self) -> EncodedSide: ...
    @property
    def item(self) -> EncodedSide: ...
    @property
    def vocabulary_V(self) -> Tensor: ...
    @property
    def table_RE(self) -> Tensor: ...
    @property
    def calibration_2(self) -> Tensor: ...

    def __call__(
        self, user_keys_BS: Tensor, user_values_BS: Tensor, item_keys_BS: Tensor, item_values_BS: Tensor
    ) -> Tensor: ...
    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor: ...
    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor: ...
    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor: ...
    def score_users(self, users_UD: Tensor, items_PD: Tensor, counts: list[int]) -> Tensor: ...
    def probability(self, logits_N: Tensor) -> Tensor: ...
    def ranked(self, user_D: Tensor, states_CD: Tensor, rows_N: Tensor) -> tuple[Tensor, Tensor]: ...

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]: ...
    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...


def check_interface(program: object) -> None:
    """Raise ValueError if a method that every published program has is missing from this one."""
    _check_attributes(program, CtrModel.required)


def attach_tables(program: ServedProgram, tables: Mapping[str, Tensor]) -> None:
    """Put a version's tables in the place of the empty ones that its program holds.

    A loaded program takes a tensor by attribute assignment only: it has neither `register_buffer` nor `load_state_dict`
    for another shape. Raises ValueError if the program has no table of a name.
    """
    _check_attributes(program, tables)
    for name, table in tables.items():
        setattr(program, name, table)


def _check_attributes(program: object, names: Mapping[str, Tensor] | tuple[str, ...]) -> None:
    missing = [name for name in names if not hasattr(program, name)]
    if missing:
        raise ValueError(f"it has no {missing}")
