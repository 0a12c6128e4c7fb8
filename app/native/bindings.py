"""The functions of the C library, with their argument types; `setup.py` builds it from `src/`.

All calls keep the interpreter's lock: each is shorter than releasing and taking it again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.native.layout import REBUILD, check_layout, declared_layout

PATH = Path(__file__).with_name("library.so")


class _LayoutEntry(ctypes.Structure):
    _fields_ = (("name", c_char_p), ("value", c_int64))


def _load() -> ctypes.PyDLL:
    """Load the library. Raises ImportError, which says how to build it, if it is missing or of other sources."""
    try:
        library = ctypes.PyDLL(str(PATH))
    except OSError as error:
        message = f"the compiled library of ctr-serving is missing or is another machine's ({error}); {REBUILD}"
        raise ImportError(message) from error
    check_layout(compiled_layout(library), declared_layout())
    return library


def compiled_layout(library: ctypes.PyDLL) -> dict[str, int]:
    """Return the sizes, offsets and constants that the library was compiled with, by name."""
    try:
        function = library.ctr_layout
    except AttributeError:
        return {}
    function.restype, function.argtypes = POINTER(_LayoutEntry), (POINTER(c_int64),)
    count = c_int64()
    entries = function(ctypes.byref(count))
    return {entry.name.decode(): entry.value for entry in entries[: count.value]}


library = _load()


def address_of(
    array: npt.NDArray[np.generic],
    _of: Callable[[Any], int] = ctypes.addressof,
    _start: Callable[[Any], Any] = ctypes.c_char.from_buffer,
) -> int:
    """Return where an array is that can be written to and is not empty, in a third of the time of `ctypes.data`."""
    return _of(_start(array))


def _function(name: str, result: type | None, *arguments: type) -> ctypes._NamedFuncPointer:
    function: ctypes._NamedFuncPointer = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


_P, _I = c_void_p, c_int64
supported_isas = _function("ctr_supported_isas", _I)
panel_columns = _function("ctr_panel_columns", _I, _I)
ranked = _function("ctr_ranked", None, _P, _I, _P, _P, _I, _P, _P, _P, _P)
draw_order = _function("ctr_draw_order", None, _P, c_uint64, _P, _P, _I, _I, _I, _P)
encode_user = _function("ctr_encode_user", None, _P, _P, _P, _P)
hash_id = _function("ctr_hash_id", c_uint64, c_char_p, _I, _P)
scan_ids = _function("ctr_scan_ids", _I, c_char_p, _I, _I, _I, _P, _P, _P, _P)
index_find = _function("ctr_index_find", _I, _P, c_uint64, _P, _I, _P)
index_insert = _function("ctr_index_insert", _I, _P, c_uint64, c_uint64, _I)
index_remove = _function("ctr_index_remove", _I, _P, c_uint64, c_uint64)
index_copy = _function("ctr_index_copy", None, _P, c_uint64, _P, c_uint64)
mark_used = _function("ctr_mark_used", _I, _P, _I, _P, _P, _I, _I)
max_items_bytes = _function("ctr_max_items_bytes", _I, _P, _P, _P, _I, _I)
write_items = _function("ctr_write_items", _I, c_char_p, _P, _P, _P, _P, _P, _I, _I, _P)
find_oversized = _function("ctr_find_oversized", _I, c_char_p, _I, _I, _P)
