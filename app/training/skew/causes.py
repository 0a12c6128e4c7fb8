"""`likely_causes` says why a field was served as another value than the table says, by rows that differ.

Each cause takes the rows that it explains; those that are left go to the next. What no cause explains is `other`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from app.features.fields import MultiCategorical, Numeric
from app.features.schema import FeatureSchema
from app.features.slots import EMPTY_KEY, Slots
from app.training.skew.field_differences import Examples, FieldDifferences, Flags, are_same
from app.training.skew.lag import find_lag
from app.training.skew.number_causes import relations
from app.training.skew.offline_table import OfflineTable
from app.training.skew.rewriting import Rewriting
from app.training.skew.spellings import WORDS, Rewrite, truncated, ways

LEAST_SHARE = 0.05
"""A cause explains at least this share of the rows that differ."""
LEAST_CONSTANT = 0.9
"""A value is taken for one that stands for others if at least this share of the unexplained rows has it."""
TRIED = 256
"""Rows with which a way of writing is tried, before it is with all."""
MAX_WAYS = 3


@dataclass(frozen=True)
class SkewCause:
    """Why rows of a field differ."""

    cause: str
    """`missing_online`, `missing_offline`, `default_online`, `default_offline`, `stale`, `ahead`, `encoding`,
    `truncated` or `other`."""
    detail: str
    share: float
    """Of the rows that differ."""
    hours: float | None = None
    """Of `stale` and `ahead`."""


def likely_causes(
    differences: FieldDifferences, examples: Examples, schema: FeatureSchema, table: OfflineTable, raw: pl.Series
) -> list[SkewCause]:
    """Return why rows of a field differ, the most frequent cause first.

    Args:
        differences: of the field.
        examples: rows of the field that differ.
        table: what they were compared with.
        raw: what the table says in each of the examples, as it is written.
    """
    return _Search(differences, examples, schema, table, raw).causes()


class _Search:
    """Finds the causes of one field."""

    def __init__(
        self,
        differences: FieldDifferences,
        examples: Examples,
        schema: FeatureSchema,
        table: OfflineTable,
        raw: pl.Series,
    ) -> None:
        self._field, self._table, self._slots = differences.field, table, differences.slots
        self._lowest, self._highest = differences.lowest, differences.highest
        self._examples, self._raw = examples, raw
        self._rewriting = Rewriting(self._field, schema, examples, raw)
        self._offline = table.slots_at(examples.position_K, self._slots)
        self._left: Flags = np.ones(len(examples), np.bool_)
        self._found: list[SkewCause] = []

    def causes(self) -> list[SkewCause]:
        self._take_lags()
        absent = self._rewriting.absent
        for served, side in ((self._examples.served, "online"), (self._offline, "offline")):
            gone = are_same(served, Slots(absent.keys[None], absent.values[None]))
            if self._field.default is None:
                self._take(f"missing_{side}", "" if side == "online" else self._absence(gone), gone)
            else:
                self._take(f"default_{side}", f"the schema's, {self._field.default}", gone)
        if isinstance(self._field, Numeric):
            self._take_bound()
            self._take_constants()
            self._take_relations()
        else:
            self._take_parts()
            self._take_ways()
            self._take_constants()
        other = float(self._examples.weight_K[self._left].sum() / self._examples.weight_K.sum())
        if other > 0:
            self._found.append(SkewCause("other", "", other))
        return sorted(self._found, key=lambda cause: (cause.cause == "other", -cause.share))

    def _take(self, cause: str, detail: str, explained: Flags, hours: float | None = None) -> bool:
        """Give a cause the rows that are left of those that it explains; False if these are too few."""
        explained = explained & self._left
        weights = self._examples.weight_K
        share = float(weights[explained].sum() / weights.sum())
        if share < LEAST_SHARE:
            return False
        self._left &= ~explained
        self._found.append(SkewCause(cause, detail, share, hours))
        return True

    def _absence(self, gone: Flags) -> str:
        """Say which word was served where the table has nothing, or what it has there that is no number."""
        rows = np.flatnonzero(gone & self._left)[:TRIED]
        if isinstance(self._field, Numeric):
            texts = [text for text in self._raw[rows.tolist()].cast(pl.String, strict=False) if text and text.strip()]
            return f"{texts[0]!r} is no number" if len(texts) >= LEAST_CONSTANT * max(1, len(rows)) else ""
        for word in WORDS if len(rows) else ():
            slots = self._rewriting.encode(word) if word else None
            if slots is not None and self._rewriting.is_served(rows, slots).mean() >= LEAST_CONSTANT:
                return f"served as the word {word!r}"
        return ""

    def _take_lags(self) -> None:
        rows = np.flatnonzero(self._left)
        if not self._table.is_timed or not len(rows):
            return
        lags = [find_lag(self._table, self._slots, self._examples.take(rows), direction) for direction in (-1, 1)]
        best = max((lag for lag in lags if lag is not None), key=lambda lag: lag.share, default=None)
        if best is not None:
            explained = np.zeros_like(self._left)
            explained[rows] = best.explained_K
            word = "stale" if best.direction < 0 else "ahead"
            self._take(word, f"by {duration(best.hours)}", explained, best.hours)

    def _take_bound(self) -> None:
        served, offline = self._examples.served.values[:, 0], self._offline.values[:, 0]
        for bound, beyond in ((self._highest, offline > served), (self._lowest, offline < served)):
            at_bound = (served == bound) & self._left
            # A default is put in place of smaller and greater numbers alike.
            if at_bound.any() and beyond[at_bound].mean() >= LEAST_CONSTANT:
                self._take("encoding", f"bounded by {bound:.4g}", at_bound & beyond)

    def _take_relations(self) -> None:
        served, offline = (slots.values[:, 0].astype(np.float64) for slots in (self._examples.served, self._offline))
        while self._left.any():
            rows = np.flatnonzero(self._left)
            name, explained = max(relations(served[rows], offline[rows]), key=lambda found: found[1].sum())
            flags = np.zeros_like(self._left)
            flags[rows] = explained
            if not self._take("encoding", name, flags):
                return

    def _take_parts(self) -> None:
        """Find lists of which one side has a part."""
        if not isinstance(self._field, MultiCategorical):
            return
        served, offline = self._examples.served.keys, self._offline.keys
        served_count, offline_count = (served != EMPTY_KEY).sum(1), (offline != EMPTY_KEY).sum(1)
        for part, whole, part_count, whole_count, side in (
            (served, offline, served_count, offline_count, "online"),
            (offline, served, offline_count, served_count, "offline"),
        ):
            inside = ((part[:, :, None] == whole[:, None, :]).any(2) | (part == EMPTY_KEY)).all(1)
            cut = inside & (part_count < whole_count) & self._left
            if cut.any():
                longest = int(part_count[cut].max())
                first = (part[:, :longest] == whole[:, :longest]).all(1) & (part_count == longest)
                what = (
                    f"the first {longest} of the list" if first[cut].mean() >= LEAST_CONSTANT else "a part of the list"
                )
                self._take("truncated", f"{side} has {what}", cut)

    def _take_ways(self) -> None:
        """Find other ways of writing: the best one, and then the best for what is left."""
        candidates: dict[str, tuple[str, Rewrite]] = {
            name: ("encoding", rewrite) for name, rewrite in ways(self._field).items()
        }
        for length in self._rewriting.lengths(np.flatnonzero(self._left)[: TRIED // 8])[:MAX_WAYS]:
            candidates[f"the first {length} letters"] = ("truncated", truncated(self._field, length))
        for _ in range(MAX_WAYS):
            rows = np.flatnonzero(self._left)[:TRIED]
            if not len(rows):
                return
            hits = {name: self._rewriting.explained(rows, rewrite).sum() for name, (_, rewrite) in candidates.items()}
            name = max(hits, key=lambda name: hits[name])
            cause, rewrite = candidates[name]
            if hits[name] < LEAST_SHARE * len(rows):
                return
            explained = np.zeros_like(self._left)
            rows = np.flatnonzero(self._left)
            explained[rows] = self._rewriting.explained(rows, rewrite)
            if not self._take(cause, name, explained):
                return

    def _take_constants(self) -> None:
        """Find a value that stands for others: a default that some program has put in their place."""
        for cause, slots, other in (
            ("default_online", self._examples.served, self._offline),
            ("default_offline", self._offline, self._examples.served),
        ):
            rows = np.flatnonzero(self._left)
            if len(rows) < 3:
                return
            codes, others = _codes(slots, rows), _codes(other, rows)
            constant = codes == np.bincount(codes).argmax()
            stands_for = np.bincount(others[constant])
            if constant.mean() >= LEAST_CONSTANT and stands_for.max() < LEAST_CONSTANT * constant.sum():
                row = rows[constant.argmax()]
                flags = np.zeros_like(self._left)
                flags[rows] = constant
                self._take(cause, self._named(Slots(slots.keys[row], slots.values[row])), flags)

    def _named(self, slots: Slots) -> str:
        if isinstance(self._field, Numeric):
            return f"always {slots.values[0]:g}"
        for word in WORDS:
            encoded = self._rewriting.encode(word) if word else None
            if encoded is not None and (encoded.keys == slots.keys).all():
                return f"always the word {word!r}"
        return "always one value"


def _codes(slots: Slots, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """Return numbers [K] that are the same where slots [K, W] are."""
    parts = [np.ascontiguousarray(part[rows]).view(np.uint8).reshape(len(rows), -1) for part in slots]
    codes: npt.NDArray[np.int64] = np.unique(np.concatenate(parts, 1), axis=0, return_inverse=True)[1].ravel()
    return codes


def duration(hours: float) -> str:
    """Write a time in the unit that suits it."""
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
