"""Permutation importance finds the fields that decide and none that does not; crosses are the model's own terms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.models import MODELS
from app.training.architectures import ModelConfig
from app.training.evaluation.importance import field_slots, importances
from app.training.evaluation.interactions import REASONS, WITH_PAIRS, Interactions, interactions
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from app.training.preprocessing.sampling import sample
from tests.training.preprocessing.test_preprocessing_fit import some_data

DATA = some_data(300)
PREPROCESSING = PreprocessingFit(min_count=1).fit(DATA.schema, encode(DATA))
ROWS = expand(PREPROCESSING, encode(DATA))


def test_every_slot_belongs_to_one_field_and_a_bucket_to_its_number() -> None:
    places = field_slots(DATA.schema)
    assert list(places) == [field.name for side in ("user", "item") for field in DATA.schema.side(side)]
    assert sorted(slot for slots in places.values() for slot in slots) == list(range(ROWS.rows_NT.shape[1]))
    bucketed = [field.name for field in DATA.schema.fields if field.type == "numeric" and field.buckets]
    assert bucketed
    for name in bucketed:
        assert len(places[name]) == 2


@pytest.mark.parametrize("decides", ["gender", "age"])
def test_the_field_that_decides_is_the_important_one(decides: str) -> None:
    model = ModelConfig("lr").build(PREPROCESSING).eval()
    slots = field_slots(DATA.schema)[decides]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.table_RE.zero_()
        rows = ROWS.rows_NT[:, slots].unique()
        model.table_RE[rows, 0] = torch.randn(len(rows), generator=generator) * 3
        logits = model.logits(ROWS.rows_NT, ROWS.x_NT, model.fields(ROWS.rows_NT, ROWS.x_NT))
    labelled = ExpandedRows(
        ROWS.rows_NT, ROWS.x_NT, (torch.rand(300, generator=generator) < torch.sigmoid(logits)).float()
    )
    before = labelled.rows_NT.clone()
    first, *others = importances(model, DATA.schema, labelled, seed=3)
    assert first.field == decides
    assert first.log_loss > 0.05 < first.auc
    assert first.log_loss_range[0] <= first.log_loss <= first.log_loss_range[1]
    assert all(other.log_loss == 0 == other.auc for other in others), "what has no weight has no importance"
    assert torch.equal(before, labelled.rows_NT), "the rows are as they were"
    assert importances(model, DATA.schema, labelled, seed=3)[0] == first


def test_a_sample_is_bounded_seeded_and_keeps_rows_whole() -> None:
    one, two = sample(ROWS, 5, 40), sample(ROWS, 5, 40)
    assert len(one.labels_N) == 40
    assert all(torch.equal(left, right) for left, right in zip(one, two, strict=True))
    whole = {(*rows.tolist(), float(label)) for rows, label in zip(ROWS.rows_NT, ROWS.labels_N, strict=True)}
    assert all((*r.tolist(), float(label)) in whole for r, label in zip(one.rows_NT, one.labels_N, strict=True))
    assert sample(ROWS, 5, 300) is ROWS


@pytest.mark.parametrize("name", ["fm", "deepfm", "hofm", "deepfm_sparrow"])
def test_crosses_are_the_mean_of_the_models_own_pairwise_terms(name: str) -> None:
    model = ModelConfig(name, dim=4).build(PREPROCESSING).eval()
    with torch.no_grad():
        model.table_RE.normal_(0, 0.5, generator=torch.Generator().manual_seed(2))
        if name == "deepfm_sparrow":
            model.crosses.weight_P.copy_(torch.tensor([2.0, -1.0, 0.5, 3.0])[: len(model.crosses.weight_P)])
        e_NFK = model.fields(ROWS.rows_NT, ROWS.x_NT)[:, :, 1:]
    found = interactions(model, DATA.schema, ROWS)
    assert isinstance(found, Interactions)
    names = list(DATA.schema.vectors)
    places = [names.index(field) for field in found.fields]
    weights = torch.ones(len(names), len(names))
    if name == "deepfm_sparrow":
        assert len(found.fields) <= 4
        weights = (model.crosses.weights() + model.crosses.weights().t()).detach()
    for row, left in enumerate(places):
        for column, right in enumerate(places):
            expected = 0.0
            if left != right:
                expected = float((weights[left, right] * (e_NFK[:, left] * e_NFK[:, right]).sum(1)).abs().mean())
            assert found.strength_FF[row, column] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(found.strength_FF, found.strength_FF.T)


def test_the_others_say_why_they_have_none_to_show() -> None:
    for name, kind in MODELS.items():
        found = interactions(ModelConfig(name).build(PREPROCESSING).eval(), DATA.schema, ROWS)
        assert isinstance(found, Interactions) == issubclass(kind, WITH_PAIRS), name
        assert isinstance(found, Interactions) or len(found) > 10
    assert set(REASONS) <= set(MODELS)
