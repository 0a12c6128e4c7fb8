"""The compiled user encoder of a version: one user's slots to the user state, for models whose state is affine.

`CtrModel.user_affine` describes which models these are. The preprocessing that all models share is compiled with it
(`app.models.side_input`): the forty operators of both take longer to start than to run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.native import bindings, layout
from app.native.layout import MAX_INPUTS, MAX_TRANSFORMS


class EncodedSide(Protocol):
    """The user side of a model: `app.models.side_input.SideInput`, as a module or as a part of a program."""

    @property
    def slots(self) -> int: ...
    @property
    def fields(self) -> int: ...
    @property
    def clip(self) -> float: ...
    @property
    def first_vocabulary_row(self) -> int: ...
    @property
    def oov_S(self) -> Tensor: ...
    @property
    def numeric_M(self) -> Tensor: ...
    @property
    def steps_PM(self) -> Tensor: ...
    @property
    def mean_M(self) -> Tensor: ...
    @property
    def deviation_M(self) -> Tensor: ...
    @property
    def bucket_G(self) -> Tensor: ...
    @property
    def bucket_row_G(self) -> Tensor: ...
    @property
    def borders_GQ(self) -> Tensor: ...
    @property
    def pool_FT(self) -> Tensor: ...


class NativeUserEncoder:
    """The compiled user encoder of one version, for any thread. It reads the tables in place."""

    def __init__(
        self,
        side: EncodedSide,
        vocabulary_V: Tensor,
        table_RE: Tensor,
        weight_DI: Tensor,
        bias_D: Tensor,
        cross_start: int,
        cross_count: int,
    ) -> None:
        """
        Args:
            weight_DI, bias_D: the affine map from [field vectors, flattened | numbers] to the state.
            cross_start, cross_count: the columns of the state that are S, the sum of the fields' embeddings; the
                crosses within the user are added to the last column.

        Raises:
            ValueError: there are more inputs or transforms than are supported, shapes do not fit, a table is not
                contiguous, or fields are pooled by anything but a plain sum.
        """
        width, numerics, steps = table_RE.shape[1], len(side.numeric_M), len(side.steps_PM)
        inputs = side.fields * width + numerics
        if inputs > MAX_INPUTS or side.slots > MAX_INPUTS or steps > MAX_TRANSFORMS:
            raise ValueError(f"at most {MAX_INPUTS} inputs and {MAX_TRANSFORMS} transforms, not {inputs} and {steps}")
        crosses_fit = cross_start + cross_count < len(bias_D) and cross_count in (0, width - 1)
        if weight_DI.shape[1] != inputs or not crosses_fit:
            raise ValueError(f"a map of {tuple(weight_DI.shape)} does not fit {inputs} inputs")
        if not (vocabulary_V.is_contiguous() and table_RE.is_contiguous() and table_RE.dtype == torch.float32):
            raise ValueError("the tables are not contiguous")
        field_T = _field_of_slot(side.pool_FT.numpy())
        self._state_width = len(bias_D)
        self._memory: list[object] = [vocabulary_V, table_RE]
        """The owners of the memory that the structures point to."""
        self._numerics = (layout.NumericField * numerics)()
        buckets = {slot: bucket for bucket, slot in enumerate(side.bucket_G.tolist())}
        for number in range(numerics):
            self._fill_numeric(self._numerics[number], side, number, buckets, field_T)
        self._struct = layout.UserEncoder(
            vocabulary=vocabulary_V.data_ptr(),
            table=table_RE.data_ptr(),
            oov_row=self._address(side.oov_S.numpy(), np.int64),
            field=self._address(field_T[: side.slots], np.int64),
            numeric=ctypes.addressof(self._numerics),
            weight=self._address(weight_DI.numpy().T, np.float32),
            bias=self._address(bias_D.numpy(), np.float32),
            vocabulary_size=len(vocabulary_V),
            first_vocabulary_row=side.first_vocabulary_row,
            vector_width=width,
            slots=side.slots,
            fields=side.fields,
            numerics=numerics,
            state_width=self._state_width,
            cross_start=cross_start,
            cross_count=cross_count,
            clip=side.clip,
        )
        self._pointer = ctypes.addressof(self._struct)

    def __call__(self, key_S: npt.NDArray[np.int64], value_S: npt.NDArray[np.float32]) -> Tensor:
        """Encode one user's slots [S] to the user state [D]."""
        state_D = torch.empty(self._state_width)
        bindings.encode_user(self._pointer, key_S.ctypes.data, value_S.ctypes.data, state_D.data_ptr())
        return state_D

    def _fill_numeric(
        self,
        numeric: layout.NumericField,
        side: EncodedSide,
        number: int,
        buckets: Mapping[int, int],
        field_T: npt.NDArray[np.int64],
    ) -> None:
        """Describe the numeric field of this number; `buckets` maps slots to rows of the bucket tensors."""
        slot = int(side.numeric_M[number])
        numeric.slot, numeric.bucket_row = slot, -1
        numeric.mean, numeric.deviation = float(side.mean_M[number]), float(side.deviation_M[number])
        numeric.transforms[: len(side.steps_PM)] = side.steps_PM[:, number].tolist()
        bucket = buckets.get(slot)
        if bucket is not None:
            numeric.bucket_row = int(side.bucket_row_G[bucket])
            numeric.bucket_field = int(field_T[side.slots + bucket])
            numeric.borders = side.borders_GQ.shape[1]
            numeric.border = self._address(side.borders_GQ[bucket].numpy(), np.float32)

    def _address(self, array: npt.NDArray[np.generic], dtype: npt.DTypeLike) -> int:
        """Keep a contiguous copy of the array for as long as this object lives, and return its address."""
        contiguous = np.array(array, dtype, order="C")
        self._memory.append(contiguous)
        return contiguous.ctypes.data


def _field_of_slot(pool_FT: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the field [T] that each slot is summed into. Raises ValueError if a field is not a plain sum of slots."""
    field_T: npt.NDArray[np.int64] = pool_FT.argmax(0)
    if not np.array_equal(pool_FT, np.arange(len(pool_FT))[:, None] == field_T):
        raise ValueError("field vectors are not plain sums over their own slots")
    return field_T
