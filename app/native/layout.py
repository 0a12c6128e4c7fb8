"""The structures and constants that Python and the C library share, and the check that both sides mean the same.

The library lists its own sizes, offsets and constants (`src/layout.h`). A difference means that it was built from other
sources than these: a call would then read or write the wrong memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import c_double, c_float, c_int64, c_void_p
from enum import IntEnum

REBUILD = "build it again: `make setup`, `pip install .`, or in a checkout `python setup.py -q build_ext --inplace`"

MAX_LAYERS = 8
MAX_WIDTH = 1024
"""Units of a hidden layer, at most."""
MAX_INPUTS = 4096
"""Numbers in a user's field vectors and numeric fields together, at most."""
MAX_TRANSFORMS = 8
"""Transforms of one numeric field, at most."""
ABSENT, AMBIGUOUS = -1, -2
"""Rows that `index_find` gives for an unknown hash and for one that several ids have."""
ALL_DISTINCT = 1 << 8
"""Set in the result of `mark_used`, beside the flags, if no row occurs twice."""
MAX_VALUE_BYTES = 65_536
"""A longer value in a reply of the store is one that `find_oversized` finds."""


class Isa(IntEnum):
    """An instruction set that the scorer is compiled for; it implies the precision of item states and weights."""

    BASE = 0
    AVX2 = 1
    AVX512 = 2
    BFLOAT16 = 3
    """AVX-512 BF16: products of bfloat16, everything else in float32."""


class Transform(IntEnum):
    """A transform of a numeric field, as `NumericField.transforms` lists them; 0 is none."""

    LOG1P = 1
    SQRT = 2
    SQUARE = 3
    STANDARDISE = 4


class DrawnBy(IntEnum):
    """A policy by which an order is drawn from scores (`app.native.exploration`)."""

    SOFTMAX = 1
    EPSILON = 2


class Layer(ctypes.Structure):
    """One dense layer after the first: `Layer` in `src/top_mlp.h`."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("width", c_int64), ("padded", c_int64))


class TopMlp(ctypes.Structure):
    """The scorer of a version: `TopMlp` in `src/top_mlp.h`."""

    _fields_ = (
        *((name, c_int64) for name in ("hidden", "cross", "user_bias", "item_bias")),
        *((name, c_int64) for name in ("item_width", "layers", "output_width")),
        *((name, c_float) for name in ("output_bias", "calibration_scale", "calibration_offset")),
        ("output_weight", c_void_p),
        ("layer", Layer * MAX_LAYERS),
    )


class NumericField(ctypes.Structure):
    """A numeric field of the user: `NumericField` in `src/user_encoder.h`."""

    _fields_ = (
        *((name, c_int64) for name in ("slot", "bucket_row", "borders", "bucket_field")),
        ("transforms", c_int64 * MAX_TRANSFORMS),
        ("border", c_void_p),
        ("mean", c_float),
        ("deviation", c_float),
    )


class UserEncoder(ctypes.Structure):
    """The user encoder of a version: `UserEncoder` in `src/user_encoder.h`."""

    _fields_ = (
        *((name, c_void_p) for name in ("vocabulary", "table", "oov_row", "field", "numeric", "weight", "bias")),
        *((name, c_int64) for name in ("vocabulary_size", "first_vocabulary_row", "vector_width")),
        *((name, c_int64) for name in ("slots", "fields", "numerics", "state_width", "cross_start", "cross_count")),
        ("clip", c_float),
    )


class IndexEntry(ctypes.Structure):
    """An entry of `app.features.item_index`: `IndexEntry` in `src/id_index.h`."""

    _fields_ = (("hash", ctypes.c_uint64), ("row", c_int64))


class Policy(ctypes.Structure):
    """How an order is drawn: `Policy` in `src/explore.h`."""

    _fields_ = (("kind", c_int64), ("isa", c_int64), ("parameter", c_double), ("scratch_4N", c_void_p))


STRUCTURES: tuple[type[ctypes.Structure], ...] = (Layer, TopMlp, NumericField, UserEncoder, IndexEntry, Policy)
CONSTANTS: Mapping[str, int] = {
    **{f"ISA_{isa.name}": isa.value for isa in Isa},
    **{f"TRANSFORM_{transform.name}": transform.value for transform in Transform},
    **{f"POLICY_{policy.name}": policy.value for policy in DrawnBy},
    "MAX_LAYERS": MAX_LAYERS,
    "MAX_WIDTH": MAX_WIDTH,
    "MAX_INPUTS": MAX_INPUTS,
    "MAX_TRANSFORMS": MAX_TRANSFORMS,
    "ABSENT": ABSENT,
    "AMBIGUOUS": AMBIGUOUS,
    "ALL_DISTINCT": ALL_DISTINCT,
    "MAX_VALUE_BYTES": MAX_VALUE_BYTES,
}


def declared_layout(
    structures: Sequence[type[ctypes.Structure]] = STRUCTURES, constants: Mapping[str, int] = CONSTANTS
) -> dict[str, int]:
    """Return the sizes, offsets and constants that Python declares, under the names of the library's list."""
    layout = dict(constants)
    for structure in structures:
        layout[f"sizeof({structure.__name__})"] = ctypes.sizeof(structure)
        for name, *_ in structure._fields_:
            field = getattr(structure, name)
            layout[f"offsetof({structure.__name__}, {name})"] = field.offset
            layout[f"sizeof({structure.__name__}.{name})"] = field.size
    return layout


def check_layout(compiled: Mapping[str, int], declared: Mapping[str, int]) -> None:
    """Compare the library's layout with Python's. Raises ImportError, which says how to rebuild, if they differ."""
    names = sorted(compiled.keys() | declared.keys())
    differences = [
        f"{name} is {declared.get(name, 'absent')} in Python and {compiled.get(name, 'absent')} in the library"
        for name in names
        if compiled.get(name) != declared.get(name)
    ]
    if differences:
        raise ImportError(f"the compiled library of ctr-serving is of other sources: {differences[0]}; {REBUILD}")
