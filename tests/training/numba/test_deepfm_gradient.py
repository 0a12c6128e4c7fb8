"""The flagship's hand-written loss and gradient are those of its formula, differentiated by torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from app.models import build
from app.models.deepfm import DeepFM
from app.models.preprocessing import Preprocessing
from app.training.loop.dropout import DropoutMasks, set_mask_source
from app.training.loop.train_step import TrainStep
from app.training.numba.deepfm_gradient import DeepFmGradient
from app.training.numba.table_kernels import NumbaRowWiseRmsprop
from app.training.optim.embedding_lookup import EmbeddingLookup
from app.training.optim.flat_weights import FlatWeights
from app.training.optim.rowwise_rmsprop import RowWiseRmspropConfig
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.target_statistics import SCOPES, TargetStatisticsFit
from tests.factories import STATISTICS
from tests.training.preprocessing.test_preprocessing_fit import some_rows

Given = tuple[Preprocessing, ExpandedRows]
VARYING = tuple(pair for pair in STATISTICS if pair != ("user_id", "item_id"))
"""Each of these 80 rows has another user and item; a batch norm makes rounding of a constant number's gradient."""


@pytest.fixture(scope="module", params=["declared fields", "target statistics"])
def given(request: pytest.FixtureRequest) -> Given:
    """Rows without and with numbers that are of a side, or of both."""
    preprocessing, rows = some_rows(80)
    if request.param == "declared fields":
        return preprocessing, rows
    preprocessing, parts = TargetStatisticsFit(known=VARYING).extend(preprocessing, {"train": rows})
    assert {scope for scope, statistics in preprocessing.statistics.items() if statistics.pairs} == set(SCOPES)
    return preprocessing, parts["train"]


def small(preprocessing: Preprocessing, batch_norm: bool, dropout: float, hidden: tuple[int, ...] = (9, 5)) -> DeepFM:
    torch.manual_seed(1)
    model = build("deepfm", preprocessing, dim=3, hidden=hidden, dropout=dropout, batch_norm=batch_norm)
    assert isinstance(model, DeepFM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


def by_hand(
    model: DeepFM, preprocessing: Preprocessing, batch: ExpandedRows, own: slice
) -> tuple[float, dict[str, Tensor]]:
    """Loss, and the gradient of every parameter."""
    rows_BT, x_BT, labels_B, weights_B, _ = batch
    with torch.no_grad():
        lookup = EmbeddingLookup(preprocessing, len(model.table_RE), torch.device("cpu"))
        table = NumbaRowWiseRmsprop(model.table_RE.detach().clone(), lookup, RowWiseRmspropConfig(1e-3, 0.0, 0.9))
        weights = FlatWeights(model, model, [model.table_RE], set())
    gradient = DeepFmGradient(model, preprocessing, table, weights.gradient_of, DropoutMasks(7))
    loss, gradient_UE = gradient(
        rows_BT, x_BT[own].contiguous(), labels_B[own], None if weights_B is None else weights_B[own], own
    )
    table_RE = torch.zeros_like(model.table_RE)
    table_RE[torch.from_numpy(table.unique_U)] = gradient_UE
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    result = {names[id(p)]: weights.gradient_of(p).clone() for p in weights.parameters}
    return loss, {**result, "table_RE": table_RE}


def plainly(model: DeepFM, batch: ExpandedRows, own: slice) -> tuple[float, dict[str, Tensor]]:
    rows_BT, x_BT, labels_B, weights_B, _ = batch
    set_mask_source(model, DropoutMasks(7))
    logits_O = model.logits(rows_BT[own], x_BT[own], model.fields(rows_BT[own], x_BT[own]))
    set_mask_source(model, None)
    weights_O = None if weights_B is None else weights_B[own]
    loss = binary_cross_entropy_with_logits(logits_O, labels_B[own], weights_O, reduction="sum")
    gradients = torch.autograd.grad(loss / len(rows_BT), list(model.parameters()))
    named = zip(model.named_parameters(), gradients, strict=True)
    return float(loss.detach()), {name: gradient for (name, _), gradient in named}


@pytest.fixture(params=[False, True], ids=["equal", "weighted"])
def one_batch(given: Given, request: pytest.FixtureRequest) -> ExpandedRows:
    rows = given[1]
    x_NT = rows.x_NT.double()
    # Weights of multi-valued fields and missing numbers are among them; other numbers take any value.
    assert (x_NT == 0).any()
    weights_N = torch.from_numpy(np.random.default_rng(5).gamma(0.5, 2.0, 50)) if request.param else None
    return ExpandedRows(rows.rows_NT[:50], x_NT[:50], rows.labels_N[:50].double(), weights_N)


@pytest.mark.parametrize("own", [slice(0, 50), slice(17, 40)], ids=["alone", "a part"])
@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("hidden", [(9, 5), (4,), (6, 8, 5)], ids=str)
def test_it_is_autograds(
    given: Given, one_batch: ExpandedRows, batch_norm: bool, dropout: float, own: slice, hidden: tuple[int, ...]
) -> None:
    model, other = (small(given[0], batch_norm, dropout, hidden).double().train() for _ in range(2))
    loss, result = by_hand(model, given[0], one_batch, own)
    expected_loss, expected = plainly(other, one_batch, own)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert result.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(result[name], gradient, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
    state = other.state_dict()
    for name, tensor in model.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(tensor, state[name], rtol=1e-12, atol=1e-12)
    learned = ("table_RE", "bias", *(["deep.first.linear.weight"] if dropout < 1 else []))
    assert all(float(expected[name].abs().max()) > 0 for name in learned)


def test_extreme_logits_give_finite_losses(given: Given, one_batch: ExpandedRows) -> None:
    for bias in (-800.0, 800.0):
        model = small(given[0], False, 0.0).double().train()
        with torch.no_grad():
            model.bias.fill_(bias)
        loss, result = by_hand(model, given[0], one_batch, slice(0, 50))
        assert loss == pytest.approx(plainly(model, one_batch, slice(0, 50))[0], rel=1e-9)
        assert all(bool(gradient.isfinite().all()) for gradient in result.values())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_training_by_it_is_training_by_autograd(given: Given, batch_norm: bool, weighted: bool) -> None:
    """The same weights after 30 steps, up to what float32 makes of it; dropout draws the same numbers."""
    preprocessing, rows = given
    if weighted:
        rows = rows._replace(
            weights_N=torch.from_numpy(np.random.default_rng(5).gamma(2.0, 0.5, len(rows.labels_N))).float()
        )
    train_steps = []
    for hand_written in (True, False):
        model = small(preprocessing, batch_norm, 0.2)
        train_step = TrainStep(
            model, preprocessing, RowWiseRmspropConfig(1e-3, 1e-4, 0.9), seed=3, hand_written=hand_written
        )
        assert (train_step.deepfm_gradient is not None) == hand_written
        generator = np.random.default_rng(0)
        losses = []
        for _ in range(30):
            chosen_B = torch.from_numpy(generator.choice(len(rows.labels_N), 32, replace=False))
            losses.append(float(train_step.step(*rows.take(chosen_B)[:4])))
        train_step.averaged_model()
        train_steps.append((train_step, losses))
        train_step.close()
    (first, losses), (second, expected) = train_steps
    np.testing.assert_allclose(losses, expected, rtol=2e-3)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    before = small(preprocessing, batch_norm, 0.2).state_dict()
    state = second.average.state_dict()
    for name, tensor in first.average.state_dict().items():
        if not tensor.numel() or (batch_norm and name.endswith("linear.bias")):
            continue  # a batch norm takes it out again: its gradient is rounding, which Adam makes steps of
        moved = float((state[name] - before[name]).abs().max())
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=max(0.05 * moved, 1e-6))


@pytest.mark.parametrize(
    "options", [{"element_wise": True}, {"crosses": (("user_id", "item_id"),)}, {"dims": {"gender": 2}}], ids=str
)
def test_other_forms_go_by_autograd(given: Given, options: dict[str, object]) -> None:
    train_step = TrainStep(build("deepfm", given[0], **options), given[0], RowWiseRmspropConfig(1e-3, 0.0, 0.0))
    assert train_step.deepfm_gradient is None
    train_step.close()
