"""What numbers that differ have to do with each other: a unit, a transform, digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from app.training.skew.field_differences import CLOSE, Flags

Numbers = npt.NDArray[np.float64]
ENOUGH = 3
"""Distinct numbers from which on a relation between them says something."""
UNITS = {
    1e3: "times 1000, as milliseconds for seconds",
    1e6: "times 1000000, as microseconds for seconds",
    1e9: "times 1000000000, as nanoseconds for seconds",
    60.0: "times 60, as seconds for minutes",
    3600.0: "times 3600, as seconds for hours",
    24.0: "times 24, as hours for days",
    86_400.0: "times 86400, as seconds for days",
    100.0: "times 100, as per cent for a share",
    -1.0: "with another sign",
}
TRANSFORMS: dict[str, Callable[[Numbers], Numbers]] = {
    "log(1 + x)": np.log1p,
    "log x": np.log,
    "exp(x) - 1": np.expm1,
    "the square root": np.sqrt,
    "the square": np.square,
    "without its fraction": np.trunc,
    "the next smaller whole number": np.floor,
    "the next larger whole number": np.ceil,
    "16-bit floats": lambda x: x.astype(np.float16).astype(np.float64),
    "bfloat16": lambda x: (x.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64),
}


def relations(served: Numbers, offline: Numbers) -> Iterator[tuple[str, Flags]]:
    """Yield what served numbers [K] may be of those of the table [K], and of which of them it is true.

    Numbers that are missing on a side are in no relation.
    """
    with np.errstate(all="ignore"):
        for digits in range(7):
            yield f"rounded to {digits} decimals", _close(served, np.round(offline, digits))
        for name, transform in TRANSFORMS.items():
            yield name, _close(served, transform(offline))
        for factor, name in UNITS.items():
            yield name, _close(served, offline * factor)
            if factor != -1:
                yield name.replace("times", "divided by").partition(",")[0], _close(served, offline / factor)
        varied = len(np.unique(offline)) >= ENOUGH
        finite = np.isfinite(served) & np.isfinite(offline)
        if varied and finite.any():
            factor = float(np.median((served / offline)[finite & (offline != 0)])) if (offline != 0).any() else 1.0
            yield f"times {factor:.4g}", _close(served, offline * factor)
            shift = float(np.median((served - offline)[finite]))
            yield f"{shift:+.4g}", _close(served, offline + shift)


def _close(one: Numbers, other: Numbers) -> Flags:
    # Both went through 32-bit floats, and so did what one was made of.
    close: Flags = np.abs(one - other) <= 10 * CLOSE * np.maximum(np.abs(one), np.abs(other))
    return close & np.isfinite(one)
