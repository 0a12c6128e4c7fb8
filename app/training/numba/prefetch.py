"""What compiled loops share: how numba compiles them, and how they ask memory for a row before it is needed.

Rows of a large table lie anywhere. Waiting for one after the other takes most of a step's time with many keys; memory
answers a dozen questions at once if it is asked.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

Array = npt.NDArray[Any]
fast = numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
"""Sums in any order, multiply and add as one; infinities and NaN as they are. Code is kept beside the file it is of."""
tools: Any = cgutils
READ, KEEP, DATA = 0, 3, 1
"""The processor's hint: to be read, to stay in all caches, data and not code (LLVM's `llvm.prefetch`)."""


def _prefetch(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """Start fetching the cache line of `array[row, column]`, which must exist; nothing is returned or waited for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        given = context.make_array(kind)(context, builder, arguments[0])
        pointer = tools.get_item_pointer(context, builder, kind, given, list(arguments[1:]), wraparound=False)
        address = builder.bitcast(pointer, tools.voidptr_t)
        number = ir.IntType(32)
        hint = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = tools.get_or_insert_function(builder.module, hint, "llvm.prefetch.p0")
        builder.call(function, [address, number(READ), number(KEEP), number(DATA)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


prefetch: Any = intrinsic(_prefetch)
