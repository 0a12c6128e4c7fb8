"""Permutation importance finds the fields that decide and none that does not."""

from __future__ import annotations

import pytest
import torch

from app.training.architectures import ModelConfig
from app.training.evaluation.importance import field_slots, measure_importance
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.preprocessing.test_preprocessing_fit import some_data

DATA = some_data(300)
PREPROCESSING = PreprocessingFit(min_count=1).fit(DATA.schema, encode(DATA))
ROWS = expand(PREPROCESSING, encode(DATA))


def test_every_slot_belongs_to_one_field_and_a_bucket_to_its_number() -> None:
    slots_of = field_slots(PREPROCESSING)
    assert list(slots_of) == [field.name for side in ("user", "item") for field in DATA.schema.side(side)]
    assert sorted(slot for slots in slots_of.values() for slot in slots) == list(range(ROWS.rows_NT.shape[1]))
    bucketed = [field.name for field in DATA.schema.fields if field.type == "numeric" and field.buckets]
    assert bucketed
    for name in bucketed:
        assert len(slots_of[name]) == 2


@pytest.mark.parametrize("decides", ["gender", "age"])
def test_the_field_that_decides_is_the_important_one(decides: str) -> None:
    model = ModelConfig("lr").build(PREPROCESSING).eval()
    slots = field_slots(PREPROCESSING)[decides]
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
    first, *others = measure_importance(model, PREPROCESSING, labelled, seed=3)
    assert first.field == decides
    assert first.log_loss > 0.05 < first.auc
    assert first.log_loss_range[0] <= first.log_loss <= first.log_loss_range[1]
    assert all(other.log_loss == 0 == other.auc for other in others), "what has no weight has no importance"
    assert torch.equal(before, labelled.rows_NT), "the rows are as they were"
    assert measure_importance(model, PREPROCESSING, labelled, seed=3)[0] == first
