"""Choose options by rules, from what the data is. docs/adr/0014 has what each is worth on eleven sets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from app.training.job_config import JobConfig
from app.training.preprocessing.target_statistics import TargetStatistics
from app.training.recipe.facts import DataFacts

STEPS_PER_EPOCH = 80
MIN_BATCH, MAX_BATCH = 64, 512
STEADY_STEPS_PER_EPOCH, MAX_STEADY_BATCH = 30, 2048
STEADY_AVERAGING = 0.998
"""An average over 500 steps."""
RARE_SHARE, RARE_STEPS_PER_EPOCH = 0.1, 400
"""Where a smaller share of the rows than this is of the rarer class, clicks as a rule, a step sees a handful of them,
and the weights follow the last few. With rows for so many steps an epoch all the same, batches are larger and the
average is longer."""
MAX_ID_DROPOUT = 0.2
PAIRS = "target statistics of pairs"
STATISTICS: dict[str, TargetStatistics] = {PAIRS: "pairs", "target statistics of fields": "fields"}
MIN_STEPS, MAX_EPOCHS = 600, 120
"""Training may take at least so many steps, in at most so many epochs: epochs of few rows have few steps."""


@dataclass(frozen=True)
class Recipe:
    """Holds a job's adapted configuration, and why it is so."""

    config: JobConfig
    reasons: tuple[str, ...]


def change(config: JobConfig, **values: Any) -> JobConfig:
    """Return the configuration with these fields of its trainer or model, but for those that the user gave."""
    wanted = {name: value for name, value in values.items() if name not in config.given}
    model = {name: value for name, value in wanted.items() if name in config.model.takes}
    trainer = {name: value for name, value in wanted.items() if hasattr(config.trainer, name)}
    return replace(config, model=replace(config.model, **model), trainer=replace(config.trainer, **trainer))


def apply_rules(config: JobConfig, facts: DataFacts) -> Recipe:
    """Choose batch size, average, epochs, L2 factor and id dropout."""
    rows = facts.rows
    batch = _batch_size(rows, STEPS_PER_EPOCH, MAX_BATCH)
    rare_batch = _batch_size(rows, RARE_STEPS_PER_EPOCH, MAX_STEADY_BATCH)
    is_rare = facts.rarer_class < RARE_SHARE * rows and rare_batch > batch
    batch = rare_batch if is_rare else batch
    steps = -(-rows // batch)
    epochs = min(max(config.trainer.epochs, -(-MIN_STEPS // steps)), MAX_EPOCHS)
    seen = facts.impressions or rows
    table_l2 = config.model.table_l2(seen)
    counted = "training rows" if facts.impressions is None else "impressions"
    why = {
        "batch_size": f"batch size {batch} for {rows:,} training rows" + (", few of one class" if is_rare else ""),
        "table_l2": f"L2 {table_l2:.2g} for {seen:,} {counted}",
    }
    values: dict[str, Any] = {"batch_size": batch, "table_l2": table_l2, "epochs": epochs}
    if is_rare and "batch_size" not in config.given:
        values["averaging"] = STEADY_AVERAGING
        why["averaging"] = f"weights averaged over {1 / (1 - STEADY_AVERAGING):.0f} steps"
    reasons = [reason for name, reason in why.items() if name not in config.given]
    if "dim" not in config.model.takes:
        values["id_dropout"] = 0.0  # logistic regression: its other weights would only make up for the user's
    elif facts.unseen_users is not None:
        values["id_dropout"] = round(min(facts.unseen_users, MAX_ID_DROPOUT), 3)
        if "id_dropout" not in config.given:
            reasons.append(f"id dropout {values['id_dropout']:g}, as {facts.unseen_users:.1%} of the users are new")
    return Recipe(change(config, **values), tuple(reasons))


def alternatives(config: JobConfig, rows: int) -> dict[str, JobConfig]:
    """Return the configurations that a search tries beside the rules', by name, the most promising first.

    Networks without dropout, with larger batches and an average over half a thousand steps, under the same penalty and
    under five times that, which suits sets where ids tell most; and for models without a network the penalty alone.
    """
    l2 = config.trainer.table_l2
    if "dropout" not in config.model.takes:
        return {
            "weaker penalty": change(config, table_l2=l2 * 0.3),
            "stronger penalty": change(config, table_l2=l2 * 3),
        }
    batch = max(_batch_size(rows, STEADY_STEPS_PER_EPOCH, MAX_STEADY_BATCH), config.trainer.batch_size)
    steady = {"dropout": 0.0, "averaging": STEADY_AVERAGING, "batch_size": batch}
    tried = {
        "steady, stronger penalty": change(config, **steady, table_l2=l2 * 5),
        "steady": change(config, **steady),
    }
    return {name: other for name, other in tried.items() if other != config}


def target_statistics(config: JobConfig) -> dict[str, JobConfig]:
    """Return the configuration with target statistics of each kind, by name.

    There are none if the user said which to have, or for a model that is not to have any.
    """
    if "target_statistics" in config.given or not config.model.family.tries_statistics:
        return {}
    return {
        name: replace(config, preparation=replace(config.preparation, target_statistics=kind))
        for name, kind in STATISTICS.items()
    }


def further_alternatives(config: JobConfig) -> dict[str, JobConfig]:
    """Return what `--effort high` tries besides, changes of the best so far."""
    l2, rate = config.trainer.table_l2, config.trainer.learning_rate
    tried = {
        "a tenth of the penalty": change(config, table_l2=l2 / 10),
        "twice the penalty": change(config, table_l2=l2 * 2),
        "half the learning rate": change(config, learning_rate=rate / 2),
        "twice the learning rate": change(config, learning_rate=rate * 2),
        "no id dropout": change(config, id_dropout=0.0),
    }
    if config.model.dim is not None:
        tried["twice the embedding size"] = change(config, dim=config.model.dim * 2)
    if config.model.hidden is not None:
        tried["wider layers"] = change(config, hidden=tuple(width * 2 for width in config.model.hidden))
    return {name: other for name, other in tried.items() if other != config}


def _batch_size(rows: int, steps: int, largest: int) -> int:
    """Return the power of two with which an epoch has about so many steps, within the bounds."""
    return min(max(1 << round(math.log2(max(rows / steps, 1))), MIN_BATCH), largest)
