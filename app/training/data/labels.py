"""Read labels: 0 and 1 in the usual spellings, or what `--positive` names against all else (docs/values.md)."""

from __future__ import annotations

import operator
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import polars as pl

from app.errors import ConfigError, EncodingError
from app.features.tables.plain_series import plain_series
from app.features.values import MISSING_NUMBERS, canonical_text

WORDS = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}
NUMBERS = {1.0: 1.0, 0.0: 0.0, -1.0: 0.0}
"""Labels are 0 and 1, or -1 and 1; -1, 0 and 1 are three."""
MINUS, ZERO = "-1", "0"
"""What `seen` holds of a column that has such labels: both are not two classes but three."""
THRESHOLD = re.compile(r"\s*(>=|>|<=|<)\s*(\S+)\s*")
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}
MAX_SHOWN = 5
MAX_NUMBER = 40
"""Longer text is no number that counts."""


@dataclass(frozen=True)
class LabelReading:
    """Says which values of a label column are clicks."""

    positive: str | None = None
    """The value that is a click, or a threshold such as `>=4`; every other value is none. None reads 0 and 1."""

    def __post_init__(self) -> None:
        """Raise ConfigError if a threshold is no number."""
        threshold = THRESHOLD.fullmatch(self.positive or "")
        if threshold is not None and _number(threshold[2]) is None:
            raise ConfigError(f"--positive {self.positive}: {threshold[2]} is no number")

    def read(self, column: pl.Series, seen: set[str]) -> pl.Series:
        """Return labels 0 and 1 as Float32, null where a value is neither.

        Args:
            seen: receives `MINUS` and `ZERO` where the column has such labels.
        """
        texts = _texts(column)
        distinct = texts.drop_nulls().unique().to_list()
        labels = [self._label(text) for text in distinct]
        if self.positive is None:
            numbers = {_number(text) for text in distinct if len(text) <= MAX_NUMBER}
            seen.update(mark for mark, number in ((MINUS, -1.0), (ZERO, 0.0)) if number in numbers)
        return texts.replace_strict(distinct, labels, default=None, return_dtype=pl.Float32)

    def describe(self, name: str) -> str:
        """Say of rows what is wrong with their label."""
        return f"{name} is missing" if self.positive is not None else f"{name} is not 0 or 1"

    def advice(self, column: pl.Series) -> str:
        """Say what a column holds and which option would read it; empty where the option was given."""
        if self.positive is not None:
            return ""
        if column.dtype.is_nested():
            return "it holds lists or objects: write the label as 0 and 1"
        values = [text for text in _texts(column).drop_nulls().unique().sort().to_list() if text]
        numbers = sorted(number for text in values if (number := _number(text)) is not None)
        shown = [f"{number:g}" for number in numbers] if len(numbers) == len(values) else values
        held = ", ".join(text[:40] for text in shown[:MAX_SHOWN]) + (", ..." if len(shown) > MAX_SHOWN else "")
        if len(shown) < 2:
            return f"it holds {held or 'nothing'}, and nothing else: write 0 where there was no click"
        option = "--positive VALUE names the value that is a click"
        if len(shown) == 2 and len(numbers) == 2:
            option = f"--positive '{shown[-1]}' makes that one a click and the other none"
        elif len(shown) == 2:  # of two words nobody knows which is the click
            option = (
                " or ".join(f"--positive {shlex.quote(text[:40])}" for text in shown) + " says which one is a click"
            )
        return f"it holds {held}: {option}"

    def _label(self, text: str) -> float | None:
        if self.positive is not None:
            return None if text.lower() in MISSING_NUMBERS else float(self._is_positive(text))
        number = _number(text)
        return WORDS.get(text.lower()) if number is None else NUMBERS.get(number)

    def _is_positive(self, text: str) -> bool:
        assert self.positive is not None
        number, threshold = _number(text), THRESHOLD.fullmatch(self.positive)
        if threshold is not None:
            return number is not None and COMPARISONS[threshold[1]](number, cast(float, _number(threshold[2])))
        wanted = _number(self.positive)
        return (number is not None and number == wanted) or _spelled(text) == _spelled(self.positive.strip())


ZERO_OR_ONE = LabelReading()
"""Reads 0 and 1 in the usual spellings."""


def _texts(column: pl.Series) -> pl.Series:
    plain = plain_series(column)
    if plain.dtype.is_nested() or plain.dtype == pl.Binary:
        return pl.Series(column.name, [None] * len(column), dtype=pl.String)
    return plain.cast(pl.String, strict=False).str.strip_chars()


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _spelled(text: str) -> str:
    try:
        return canonical_text(text, "label")
    except EncodingError:
        return text
