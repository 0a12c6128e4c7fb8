"""`rescore` scores recorded answers again, from the recorded slots and by the recorded versions, and compares.

That the scores are the same is the proof that training sees what was served: features, encoding and all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from app.errors import ArtifactError
from app.events.joining.log_reader import LogReader
from app.events.records import IMPRESSIONS
from app.features.slots import Slots
from app.native.scorer import Floats
from app.registry.artifact.artifact import Artifact

SPAN = timedelta(hours=1)
TOLERANCE = 1e-6
NOT_FINITE = "non_finite_scores"


@dataclass
class Rescoring:
    """What a comparison found."""

    rows: int = 0
    """Items whose score was computed again."""
    different: int = 0
    """Of these, with a score that is further than the tolerance from the recorded one."""
    largest: float = 0.0
    """The largest difference."""
    example: str = ""
    """The id of the impression with the largest difference beyond the tolerance."""
    without_slots: int = 0
    """Items of which the log has no slots."""
    by_version: dict[tuple[str, int], int] = field(default_factory=dict)
    """Items by model and version."""
    unavailable: dict[tuple[str, int], str] = field(default_factory=dict)
    """Why a version cannot be loaded, say because it was pruned."""


def rescore(
    events: Path,
    load: Callable[[str, int], Artifact],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    dtype: torch.dtype = torch.float32,
    tolerance: float = TOLERANCE,
    report: Callable[[int], None] = lambda rows: None,
) -> Rescoring:
    """Score the answers of a log again.

    Args:
        load: returns a version of a model. Raises ArtifactError if it cannot.
        since, until: bounds of the answers' times; by default all of them.
        dtype: precision of the item states, as the service has it (`CTR_PRECISION`).
        report: told of the items so far.

    Raises DataError if there is no log, or a file of it cannot be read.
    """
    log, result = LogReader(events), Rescoring()
    artifacts: dict[tuple[str, int], Artifact] = {}
    first = since or log.first or datetime.now(UTC)
    stop = until or datetime.now(UTC)
    for start, end in log.spans(IMPRESSIONS, first, stop, SPAN):
        answers = log.collect(log.records(IMPRESSIONS, start, end)).unique("impression_id", maintain_order=True)
        items = log.items_of(answers, start, end)
        for (model, version), of_version in answers.group_by("model", "version", maintain_order=True):
            key = str(model), int(version)
            if key in result.unavailable:
                continue
            try:
                artifact = artifacts[key] = artifacts.get(key) or load(*key)
            except ArtifactError as error:
                result.unavailable[key] = str(error)
                continue
            _compare(artifact, of_version, items, dtype, tolerance, result)
            report(result.rows)
    return result


class ScoredAgain(NamedTuple):
    """An answer with the scores that a version gives its items."""

    answer: dict[str, Any]
    is_there_K: npt.NDArray[np.bool_]
    """Of which items the log has slots."""
    scores: Floats
    """Of these, probabilities in the order of the answer."""


def score_again(
    artifact: Artifact, answers: pl.DataFrame, items: pl.DataFrame, dtype: torch.dtype = torch.float32
) -> Iterator[ScoredAgain]:
    """Score recorded answers by a version of their schema, from nothing but the recorded slots.

    Args:
        items: the slots that they refer to, each once.
        dtype: precision of the item states.
    """
    items = items.filter(pl.col("schema_hash") == artifact.schema_hash).sort("reference")
    width = artifact.item_encoder.width
    slots = Slots(*(items[name].list.to_array(width).to_numpy(writable=True) for name in ("keys", "values")))
    reference_C = items["reference"].to_numpy()
    with torch.inference_mode():
        states_CD = artifact.encode_items(slots).to(dtype)
        for answer in answers.iter_rows(named=True):
            reference_K = np.array(answer["items"], np.int64)
            row_K = np.searchsorted(reference_C, reference_K)
            is_there_K = np.isin(reference_K, reference_C)
            again = np.empty(int(is_there_K.sum()), np.float32)
            if len(again):
                user = Slots(np.array(answer["user_keys"], np.int64), np.array(answer["user_values"], np.float32))
                scores, places = artifact.ranked(artifact.encode_user(user), states_CD, row_K[is_there_K])
                again[places] = scores
            yield ScoredAgain(answer, is_there_K, again)


def _compare(
    artifact: Artifact,
    answers: pl.DataFrame,
    items: pl.DataFrame,
    dtype: torch.dtype,
    tolerance: float,
    result: Rescoring,
) -> None:
    """Score the answers of one version again, and add what was found to the result."""
    key = artifact.manifest.name, artifact.version
    finite = answers.filter(~pl.col("degraded").list.contains(NOT_FINITE))
    for answer, is_there_K, again in score_again(artifact, finite, items, dtype):
        result.without_slots += int((~is_there_K).sum())
        if not len(again):
            continue
        off = np.abs(again - np.array(answer["scores"], np.float32)[is_there_K])
        result.rows += len(off)
        result.by_version[key] = result.by_version.get(key, 0) + len(off)
        result.different += int((off > tolerance).sum())
        if off.max() > result.largest:
            result.largest = float(off.max())
            result.example = answer["impression_id"] if result.largest > tolerance else ""
