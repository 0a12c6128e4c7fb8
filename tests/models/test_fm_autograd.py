"""DeepFM's hand-written gradient is that of its formula."""

from __future__ import annotations

import pytest
import torch

from app.models import build
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.preprocessing.test_preprocessing_fit import some_data


@pytest.mark.parametrize("rows", [2, 50])
def test_the_gradient_is_the_formulas(rows: int) -> None:
    data = some_data(50)
    encoded = encode(data)
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    given = expand(preprocessing, encoded)
    torch.manual_seed(0)
    model = build("deepfm", preprocessing, dim=3, hidden=(5,), dropout=0.0, batch_norm=False).double()
    with torch.no_grad():
        model.table_RE.normal_()
    slope_B = torch.randn(rows, dtype=torch.float64)
    found = []
    for training in (True, False):
        model.train(training)
        rows_BT, x_BT = given.rows_NT[:rows], given.x_NT[:rows].double()
        logits_B = model.logits(rows_BT, x_BT, model.fields(rows_BT, x_BT))
        found.append((logits_B, *torch.autograd.grad(logits_B, list(model.parameters()), slope_B)))
    for by_hand, plain in zip(*found, strict=True):
        torch.testing.assert_close(by_hand, plain, rtol=1e-12, atol=1e-12)
    assert float(found[0][1].abs().max()) > 0
