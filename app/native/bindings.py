"""The shared library that `setup.py` builds from `source/`: loaded once, its functions with their C types.

All calls keep the interpreter's lock: each is shorter than handing the lock over and back.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int64, c_uint64, c_void_p
from pathlib import Path

PATH = Path(__file__).with_name("kernels.so")
MAX_LAYERS = 8
MAX_WIDTH = 1024
"""Of a hidden layer."""
MAX_INPUTS = 4096
"""Of a user's field vectors and numbers together."""
MAX_STEPS = 8
"""Transforms of a number."""


class Layer(ctypes.Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("width", c_int64), ("padded", c_int64))


class TailStruct(ctypes.Structure):
    """`Tail` in kernels.c."""

    _fields_ = (
        ("hidden", c_int64),
        ("across", c_int64),
        ("user_own", c_int64),
        ("item_own", c_int64),
        ("width", c_int64),
        ("layers", c_int64),
        ("last_width", c_int64),
        ("output_bias", c_float),
        ("a", c_float),
        ("b", c_float),
        ("output", c_void_p),
        ("layer", Layer * MAX_LAYERS),
    )


class NumberStruct(ctypes.Structure):
    """`Number` in user.h."""

    _fields_ = (
        ("slot", c_int64),
        ("bucket_row", c_int64),
        ("borders", c_int64),
        ("bucket_field", c_int64),
        ("steps", c_int64 * MAX_STEPS),
        ("border", c_void_p),
        ("mean", c_float),
        ("deviation", c_float),
    )


class UserStruct(ctypes.Structure):
    """`User` in user.h."""

    _fields_ = (
        *((name, c_void_p) for name in ("vocabulary", "table", "oov", "field", "number", "map", "offset")),
        *((name, c_int64) for name in ("keys", "first_row", "width", "slots", "fields", "numbers")),
        *((name, c_int64) for name in ("state", "crossed", "crosses")),
        ("clip", c_float),
    )


def _load() -> ctypes.PyDLL:
    try:
        return ctypes.PyDLL(str(PATH))
    except OSError as error:
        raise ImportError(
            f"the compiled part of ctr-serving is missing or is another machine's ({error}); build it by installing "
            "the package again: `make setup`, or `pip install .`"
        ) from error


_library = _load()


def _function(name: str, result: type | None, *arguments: type) -> ctypes._NamedFuncPointer:
    function = getattr(_library, name)
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]


_P, _I = c_void_p, c_int64
kinds = _function("ctr_kinds", _I)
tile = _function("ctr_tile", _I, _I)
rank = _function("ctr_rank", None, _P, _I, _P, _P, _I, _P, _P, _P, _P)
user_state = _function("ctr_user", None, _P, _P, _P, _P)
hash_id = _function("ctr_hash", c_uint64, ctypes.c_char_p, _I, _P)
scan_ids = _function("ctr_scan_ids", _I, ctypes.c_char_p, _I, _I, _I, _P, _P, _P, _P)
index_find = _function("ctr_index_find", _I, _P, c_uint64, _P, _I, _P)
index_insert = _function("ctr_index_insert", _I, _P, c_uint64, c_uint64, _I)
index_remove = _function("ctr_index_remove", _I, _P, c_uint64, c_uint64)
index_move = _function("ctr_index_move", None, _P, c_uint64, _P, c_uint64)
touch = _function("ctr_touch", _I, _P, _I, _P, _P, _I, _I)
items_room = _function("ctr_items_room", _I, _P, _P, _P, _I)
put_items = _function("ctr_put_items", _I, ctypes.c_char_p, _P, _P, _P, _P, _I, _P)
