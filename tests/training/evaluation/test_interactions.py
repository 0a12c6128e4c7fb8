"""Crosses are the pairwise terms of the model's own logit; models without such terms say why."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.models import MODELS
from app.training.architectures import ModelConfig
from app.training.evaluation.interactions import REASONS, WITH_PAIRS, Interactions, measure_interactions
from tests.training.evaluation.test_importance import DATA, PREPROCESSING, ROWS


@pytest.mark.parametrize("name", ["fm", "deepfm", "hofm", "deepfm_sparrow"])
def test_crosses_are_the_mean_of_the_models_own_pairwise_terms(name: str) -> None:
    model = ModelConfig(name, dim=4).build(PREPROCESSING).eval()
    with torch.no_grad():
        model.table_RE.normal_(0, 0.5, generator=torch.Generator().manual_seed(2))
        if name == "deepfm_sparrow":
            model.crosses.weight_P.copy_(torch.tensor([2.0, -1.0, 0.5, 3.0])[: len(model.crosses.weight_P)])
        e_NFK = model.fields(ROWS.rows_NT, ROWS.x_NT)[:, :, 1:]
    result = measure_interactions(model, PREPROCESSING, ROWS)
    assert isinstance(result, Interactions)
    names = list(DATA.schema.vectors)
    positions = [names.index(field) for field in result.fields]
    weights = torch.ones(len(names), len(names))
    if name == "deepfm_sparrow":
        assert len(result.fields) <= 4
        weights = (model.crosses.weights() + model.crosses.weights().t()).detach()
    for row, left in enumerate(positions):
        for column, right in enumerate(positions):
            expected = 0.0
            if left != right:
                expected = float((weights[left, right] * (e_NFK[:, left] * e_NFK[:, right]).sum(1)).abs().mean())
            assert result.strength_FF[row, column] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(result.strength_FF, result.strength_FF.T)


def test_the_others_say_why_they_have_none_to_show() -> None:
    for name, kind in MODELS.items():
        result = measure_interactions(ModelConfig(name).build(PREPROCESSING).eval(), PREPROCESSING, ROWS)
        assert isinstance(result, Interactions) == issubclass(kind, WITH_PAIRS), name
        assert isinstance(result, Interactions) or len(result) > 10
    assert set(REASONS) <= set(MODELS)
