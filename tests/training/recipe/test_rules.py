"""Rules choose by what the data is, and leave alone what the user gave."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.commands.options import job_config
from app.models import MODELS
from app.training.recipe.facts import MAX_VALIDATION_SHARE, VALIDATION_SHARE, DataFacts, validation_share
from app.training.recipe.rules import (
    MAX_BATCH,
    MAX_EPOCHS,
    MIN_BATCH,
    MIN_STEPS,
    RARE_SHARE,
    RARE_STEPS_PER_EPOCH,
    alternatives,
    apply_rules,
    further_alternatives,
    target_statistics,
)

NAMES = st.sampled_from(sorted(MODELS))


@given(name=NAMES, rows=st.integers(2, 10**9), unseen=st.none() | st.floats(0, 1))
def test_the_rules_stay_within_their_bounds(name: str, rows: int, unseen: float | None) -> None:
    config = job_config(name, 0, effort="default")
    trainer = apply_rules(config, DataFacts(rows, rows // 2, unseen)).config.trainer
    assert MIN_BATCH <= trainer.batch_size <= MAX_BATCH
    assert trainer.table_l2 == config.model.table_l2(rows) > 0
    assert config.trainer.epochs <= trainer.epochs <= MAX_EPOCHS
    steps = -(-rows // trainer.batch_size)
    assert trainer.epochs * steps >= MIN_STEPS or trainer.epochs == MAX_EPOCHS
    if name == "lr":
        assert trainer.id_dropout == 0
    elif unseen is None:
        assert trainer.id_dropout == config.trainer.id_dropout
    else:
        assert trainer.id_dropout == pytest.approx(min(unseen, 0.2), abs=1e-3)


@given(name=NAMES, rows=st.integers(2, 10**9), share=st.floats(0, 0.09) | st.floats(0.1, 0.5))
def test_many_rows_with_few_clicks_have_larger_batches_and_a_longer_average(name: str, rows: int, share: float) -> None:
    config = job_config(name, 0, effort="default")
    recipes = [apply_rules(config, DataFacts(rows, math.ceil(rows * part), None)) for part in (0.5, share)]
    many, few = (recipe.config.trainer for recipe in recipes)
    if share < RARE_SHARE and rows >= 2 * RARE_STEPS_PER_EPOCH * MAX_BATCH:
        assert MAX_BATCH < few.batch_size <= rows / RARE_STEPS_PER_EPOCH * 2**0.5
        assert few.averaging > many.averaging
        assert few.epochs * rows / few.batch_size >= MIN_STEPS
        assert {"few of one class", "weights averaged over 500 steps"} <= set(", ".join(recipes[1].reasons).split(", "))
        others = alternatives(recipes[1].config, rows).values()
        assert recipes[1].config not in others
    elif share >= RARE_SHARE or rows <= RARE_STEPS_PER_EPOCH * MAX_BATCH:
        assert few == many


@given(name=NAMES, rows=st.integers(2, 10**7))
def test_given_options_are_left_alone(name: str, rows: int) -> None:
    options = {"batch_size": 333, "l2": 0.123, "learning_rate": 0.0123, "id_dropout": 0.45, "epochs": 7}
    options["averaging"] = 0.9
    config = job_config(name, 0, effort="high", target_statistics="none", **options)
    ruled = apply_rules(config, DataFacts(rows, rows // 20, 0.01)).config
    others = [*alternatives(ruled, rows).values(), *further_alternatives(ruled).values()]
    for adapted in (ruled, *others):
        trainer = adapted.trainer
        assert (trainer.batch_size, trainer.table_l2, trainer.learning_rate) == (333, 0.123, 0.0123)
        assert (trainer.id_dropout, trainer.epochs, trainer.averaging) == (0.45, 7, 0.9)
    assert not target_statistics(ruled)


@pytest.mark.parametrize("name", MODELS)
def test_alternatives_differ_from_the_rules_and_from_each_other(name: str) -> None:
    config = apply_rules(job_config(name, 0, effort="high"), DataFacts(40_000, 20_000, 0.1)).config
    others = [
        config,
        *alternatives(config, 40_000).values(),
        *target_statistics(config).values(),
    ]
    others += further_alternatives(config).values()
    assert len({repr(other) for other in others}) == len(others)


@given(clicks=st.integers(1, 5000), others=st.integers(1, 5000))
def test_a_validation_part_has_enough_rows_of_both_classes_where_a_quarter_can(clicks: int, others: int) -> None:
    labels_N = np.repeat(np.array([1, 0], np.float32), [clicks, others])
    share = validation_share(labels_N)
    assert VALIDATION_SHARE <= share <= MAX_VALIDATION_SHARE
    if share < MAX_VALIDATION_SHARE:
        assert share * len(labels_N) >= 500 - 1e-6
        assert share * min(clicks, others) >= 100 - 1e-6
    assert validation_share(np.repeat(np.array([1, 0], np.float32), 50_000)) == VALIDATION_SHARE
