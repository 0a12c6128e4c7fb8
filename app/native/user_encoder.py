"""One user's slots to the user state, compiled, where the state is linear in the user's field vectors.

It is what `CtrModel.user_map` describes, after the preprocessing that all models share (`app.models.side_input`): on
their own, the forty operators of both take longer to start than to run.
"""

from __future__ import annotations

import ctypes
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.native import bindings
from app.native.bindings import MAX_INPUTS, MAX_STEPS, NumberStruct, UserStruct


class Side(Protocol):
    """`app.models.side_input.SideInput`, as it is or as a program holds it."""

    slots: int
    fields: int
    clip: float
    first_vocabulary_row: int
    oov_S: Tensor
    numeric_M: Tensor
    steps_PM: Tensor
    mean_M: Tensor
    deviation_M: Tensor
    bucket_G: Tensor
    bucket_row_G: Tensor
    borders_GQ: Tensor
    pool_FT: Tensor


class UserState:
    """One version's. Immutable, for any thread; reads the tables where they lie."""

    def __init__(
        self,
        side: Side,
        vocabulary_V: Tensor,
        table_RE: Tensor,
        map_DI: Tensor,
        offset_D: Tensor,
        crossed: int,
        crosses: int,
    ) -> None:
        """
        Args:
            map_DI, offset_D: the state of field vectors, flattened, and numbers.
            crossed, crosses: the columns of the state that are S, the sum of the fields' embeddings; their crosses
                within the user are added to the last column.

        Raises:
            ValueError: more inputs or transforms than are supported, or tables that are not on the CPU as they should.
        """
        width, numbers, steps = table_RE.shape[1], len(side.numeric_M), len(side.steps_PM)
        inputs = side.fields * width + numbers
        if inputs > MAX_INPUTS or side.slots > MAX_INPUTS or steps > MAX_STEPS:
            raise ValueError(f"at most {MAX_INPUTS} inputs and {MAX_STEPS} transforms, not {inputs} and {steps}")
        if map_DI.shape[1] != inputs or crossed + crosses >= len(offset_D) or crosses not in (0, width - 1):
            raise ValueError(f"a map of {tuple(map_DI.shape)} does not fit {inputs} inputs")
        if not (vocabulary_V.is_contiguous() and table_RE.is_contiguous() and table_RE.dtype == torch.float32):
            raise ValueError("the tables are not contiguous")
        pool_FT = side.pool_FT.numpy()
        field_T = pool_FT.argmax(0)
        if not np.array_equal(pool_FT, np.arange(len(pool_FT))[:, None] == field_T):
            raise ValueError("field vectors are not plain sums over their own slots")
        self._width = len(offset_D)
        self._kept: list[object] = [vocabulary_V, table_RE]
        self._numbers = (NumberStruct * numbers)()
        buckets = {slot: place for place, slot in enumerate(side.bucket_G.tolist())}
        for place, slot in enumerate(side.numeric_M.tolist()):
            bucket = buckets.get(slot)
            number = self._numbers[place]
            number.slot, number.bucket_row = slot, -1
            number.mean, number.deviation = float(side.mean_M[place]), float(side.deviation_M[place])
            number.steps[:steps] = side.steps_PM[:, place].tolist()
            if bucket is not None:
                number.bucket_row = int(side.bucket_row_G[bucket])
                number.bucket_field = int(field_T[side.slots + bucket])
                number.borders = side.borders_GQ.shape[1]
                number.border = self._keep(side.borders_GQ[bucket].numpy(), np.float32)
        self._struct = UserStruct(
            vocabulary=vocabulary_V.data_ptr(),
            table=table_RE.data_ptr(),
            oov=self._keep(side.oov_S.numpy(), np.int64),
            field=self._keep(field_T[: side.slots], np.int64),
            number=ctypes.addressof(self._numbers),
            map=self._keep(map_DI.numpy().T, np.float32),
            offset=self._keep(offset_D.numpy(), np.float32),
            keys=len(vocabulary_V),
            first_row=side.first_vocabulary_row,
            width=width,
            slots=side.slots,
            fields=side.fields,
            numbers=numbers,
            state=self._width,
            crossed=crossed,
            crosses=crosses,
            clip=side.clip,
        )
        self._pointer = ctypes.addressof(self._struct)

    def __call__(self, key_S: npt.NDArray[np.int64], value_S: npt.NDArray[np.float32]) -> Tensor:
        """The state [D] of one user's slots."""
        state_D = torch.empty(self._width)
        bindings.user_state(self._pointer, key_S.ctypes.data, value_S.ctypes.data, state_D.data_ptr())
        return state_D

    def _keep(self, array: npt.NDArray[np.generic], dtype: npt.DTypeLike) -> int:
        kept = np.array(array, dtype, order="C")
        self._kept.append(kept)
        return kept.ctypes.data
