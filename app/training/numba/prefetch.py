"""Prefetch a cache line from a compiled loop, by an intrinsic of LLVM.

Rows of a large table lie anywhere in memory. Waiting for one after the other takes most of a step's time with many
keys; the memory answers a dozen requests at once if they are made ahead.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_cgutils: Any = cgutils
READ, ALL_CACHES, DATA = 0, 3, 1
"""Arguments of LLVM's `llvm.prefetch`: the line will be read, belongs in all caches, and holds data, not code."""


def _prefetch(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """Start fetching the cache line of `array[row, column]`, which must exist, and return without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        array_value = context.make_array(array_type)(context, builder, arguments[0])
        index = list(arguments[1:])
        pointer = _cgutils.get_item_pointer(context, builder, array_type, array_value, index, wraparound=False)
        address = builder.bitcast(pointer, _cgutils.voidptr_t)
        i32 = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [address.type, i32, i32, i32])
        function = _cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        builder.call(function, [address, i32(READ), i32(ALL_CACHES), i32(DATA)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


prefetch: Any = intrinsic(_prefetch)
