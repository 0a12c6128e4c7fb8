"""`evaluate` estimates what a policy would have brought, from recorded answers whose order was drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from app.errors import DataError
from app.events.evaluation.estimates import Doubles, ValueSums
from app.events.evaluation.recorded_answers import LabelledAnswers
from app.events.evaluation.targets import target_propensities
from app.events.rescoring import score_again
from app.ranking_policy import RankingPolicy
from app.registry.artifact.artifact import Artifact

ANSWERS_AT_ONCE = 5_000


@dataclass
class Evaluation:
    """What was found, with the answers that it is of."""

    sums: ValueSums
    policies: Counter[str] = field(default_factory=Counter)
    """Answers by the policy that drew their order."""
    complete: int = 0
    """Answers of which every candidate is recorded."""
    left_out: int = 0
    """Answers in descending order of scores: they have no propensities."""
    other_schemas: int = 0
    """Answers by another schema than that of the version in question."""
    without_slots: int = 0
    """Answers left out because the log lacks the slots of some item."""


def evaluate(
    source: Iterable[LabelledAnswers],
    policy: RankingPolicy,
    places: int,
    *,
    artifact: Artifact | None = None,
    dtype: torch.dtype = torch.float32,
    report: Callable[[int], None] = lambda answers: None,
) -> Evaluation:
    """Estimate how many clicks a policy would have brought in the first places of an answer.

    Args:
        places: how many places count.
        artifact: the version whose scores the policy orders by; by default those that are recorded.
        dtype: precision of the item states, as the service has it.
        report: told of the answers so far.

    Raises DataError if no answer has propensities, or none is by the version's schema.
    """
    found = Evaluation(ValueSums(places))
    for answers, items in source:
        drawn = answers.filter(pl.col("propensities").is_not_null())
        found.left_out += len(answers) - len(drawn)
        if artifact is not None:
            others = len(drawn)
            drawn = drawn.filter(pl.col("schema_hash") == artifact.schema_hash)
            found.other_schemas += others - len(drawn)
        for some in drawn.iter_slices(ANSWERS_AT_ONCE):
            if artifact is not None and len(some):
                some = _with_scores_of(artifact, some, items, dtype, found)
            if len(some):
                _add(found, some, policy, is_logged_score=artifact is None)
            report(found.sums.answers)
    if not found.sums.answers:
        raise DataError(_why_nothing(found))
    return found


def _with_scores_of(
    artifact: Artifact, answers: pl.DataFrame, items: pl.DataFrame, dtype: torch.dtype, found: Evaluation
) -> pl.DataFrame:
    """Return the answers with a version's scores in place of those that are recorded."""
    refer_to = answers.select(pl.col("items").explode().drop_nulls().unique().alias("reference"))
    items = items.join(refer_to, on="reference", how="semi")
    again = list(score_again(artifact, answers, items, dtype))
    is_whole = [bool(one.is_there_K.all()) for one in again]
    found.without_slots += is_whole.count(False)
    scores = [one.scores if whole else None for one, whole in zip(again, is_whole, strict=True)]
    return answers.with_columns(pl.Series("scores", scores, pl.List(pl.Float32))).filter(pl.Series(is_whole))


def _add(found: Evaluation, answers: pl.DataFrame, policy: RankingPolicy, *, is_logged_score: bool) -> None:
    places = found.sums.places
    length_B = answers["items"].list.len().to_numpy().astype(np.int64)
    width = max(places, int(length_B.max()))
    candidates_B = answers["candidates"].to_numpy().astype(np.int64)
    logged_BT = _padded(answers["propensities"], length_B, width, 1.0)[:, :places]
    logged_BT = np.maximum(logged_BT, np.finfo(np.float32).tiny)
    score_BK = _padded(answers["scores"], length_B, width, 0.0)
    target_BT = target_propensities(policy, score_BK, length_B, candidates_B, places)
    if is_logged_score:  # what is known exactly need not be taken from the recorded items alone
        is_same_B = (answers["policy"] == policy.name) & (answers["policy_parameter"] == policy.parameter)
        target_BT = np.where(is_same_B.to_numpy()[:, None], logged_BT, target_BT)
    reward_BT = (_padded(answers["labels"], length_B, width, 0.0) == 1.0)[:, :places].astype(np.float64)
    found.sums.add(target_BT, logged_BT, reward_BT)
    found.complete += int((length_B >= candidates_B).sum())
    for name, parameter, count in answers.group_by("policy", "policy_parameter").len().iter_rows():
        found.policies[str(RankingPolicy(name, parameter))] += count


def _padded(lists: pl.Series, length_B: npt.NDArray[np.int64], width: int, behind: float) -> Doubles:
    """Return lists as rows of one array [B, width], filled up behind their ends."""
    padded_BK = np.full((len(length_B), width), behind)
    padded_BK[np.arange(width) < length_B[:, None]] = lists.explode().to_numpy()
    return padded_BK


def _why_nothing(found: Evaluation) -> str:
    if found.other_schemas:
        return f"none of the {found.other_schemas:,} answers is by the schema of this version: nothing can be scored"
    if found.without_slots:
        return f"of all {found.without_slots:,} answers the log lacks the slots of some item"
    if found.left_out:
        return (
            f"none of the {found.left_out:,} answers has propensities: they stand in descending order of scores, which "
            "says nothing of another order; serve with CTR_EXPLORE=softmax:0.05, and evaluate what is recorded then"
        )
    return "no answers are recorded in that time; a log's newest are joined once the window after them is over"
