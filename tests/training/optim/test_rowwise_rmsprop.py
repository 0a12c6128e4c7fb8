"""Row-wise steps with what they put off are the steps of the whole table; their cost is the batch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from app.models.preprocessing import Preprocessing
from app.models.side_input import SideInput
from app.training.numba.table_kernels import NumbaRowWiseRmsprop
from app.training.optim.embedding_lookup import EmbeddingLookup
from app.training.optim.rowwise_rmsprop import RowWiseRmsprop, RowWiseRmspropConfig
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.optim.dense_reference import DenseTable
from tests.training.preprocessing.test_preprocessing_fit import some_data

CPU = torch.device("cpu")
Examples = tuple[Preprocessing, Tensor, Tensor]
Sides = tuple[SideInput, SideInput]


@pytest.fixture(scope="module")
def examples() -> Examples:
    data = some_data(400)
    encoded = encode(data)
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    rows = expand(preprocessing, encoded)
    return preprocessing, rows.rows_NT, rows.x_NT


def sides_of(preprocessing: Preprocessing) -> Sides:
    return SideInput(preprocessing, "user"), SideInput(preprocessing, "item")


def plainly_pooled(sides: Sides, table_RE: Tensor, rows_BT: Tensor, x_BT: Tensor) -> Tensor:
    user, item = sides
    slots_BTE = table_RE[rows_BT] * x_BT.unsqueeze(-1)
    return torch.cat([user.pool(slots_BTE[:, : user.width]), item.pool(slots_BTE[:, user.width :])], 1)


@pytest.mark.parametrize("steps", [RowWiseRmsprop, NumbaRowWiseRmsprop])
@pytest.mark.parametrize("averaging", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("l2", [0.0, 9e-3, 0.5])
@pytest.mark.parametrize("offsets", [0, 5], ids=["no offsets", "offsets"])
def test_it_is_the_dense_reference(
    examples: Examples, averaging: float, l2: float, steps: type[RowWiseRmsprop], offsets: int
) -> None:
    """To 1e-4 of the table's largest number (float32 against float64), after 200 steps of 4 rows each."""
    preprocessing, rows_NT, x_NT = examples
    generator = torch.Generator().manual_seed(3)
    table_RE = torch.randn(preprocessing.rows, 5, generator=generator) * 0.1
    config = RowWiseRmspropConfig(2e-3, l2, averaging)
    offset_rows = rows_NT[:8].unique()[:offsets]
    dense, lazy_RE = DenseTable(table_RE, config, offset_rows.tolist()), table_RE.clone()
    user, item = sides_of(preprocessing)
    sides_64 = (user.double(), item.double())
    lookup = EmbeddingLookup(preprocessing, len(table_RE), CPU)
    lazy = steps(lazy_RE, lookup, config, offset_rows if offsets else None)
    for step in range(200):
        # A few rows in the first half, so that most are put off for long.
        chosen_B = torch.randint(0, 8 if step % 50 else 400, (4,), generator=generator)
        rows_BT, x_BT = rows_NT[chosen_B], x_NT[chosen_B]
        fields_BFE = lazy.fields(rows_BT, x_BT)
        direction_BFE = torch.randn(fields_BFE.shape, generator=generator) * 10 ** (-step % 4 - 1)
        lazy.update(lazy.gradient(direction_BFE + fields_BFE.detach()))

        weights_RE = dense.weights_RE.clone().requires_grad_()
        plain_BFE = plainly_pooled(sides_64, weights_RE, rows_BT, x_BT.double())
        torch.testing.assert_close(fields_BFE.detach().double(), plain_BFE.detach(), rtol=1e-3, atol=1e-4)
        (plain_BFE * (direction_BFE.double() + plain_BFE.detach())).sum().backward()
        assert weights_RE.grad is not None
        dense.update(rows_BT.unique(), weights_RE.grad)
        if step in (0, 1, 57, 199):
            lazy.write_back()
            tolerance = 1e-4 * float(dense.table().abs().max())
            torch.testing.assert_close(lazy_RE.double(), dense.table(), rtol=0, atol=tolerance)
    assert not torch.allclose(lazy_RE, table_RE, atol=1e-3)


@pytest.mark.parametrize("passed", [1, 2, 1000, 10_000_000])
@pytest.mark.parametrize("decay", ["0", "1e-12", "the average's", "beside it", "3", "4000"])
def test_catching_up_is_finite_and_in_bounds_for_any_gap(examples: Examples, passed: int, decay: str) -> None:
    """The closed form divides by how much the decay and the average differ, and has powers that underflow."""
    preprocessing = examples[0]
    table_RE = torch.ones(preprocessing.rows, 2)
    steps = RowWiseRmsprop(
        table_RE, EmbeddingLookup(preprocessing, len(table_RE), CPU), RowWiseRmspropConfig(1e-3, 1e-3, 0.99)
    )
    exponent = {"the average's": -math.log(0.99), "beside it": -math.log(0.99) * (1 + 1e-6)}.get(decay)
    exponent = float(decay) if exponent is None else exponent
    steps.block_RC[:, 6] = exponent
    steps.step = passed
    steps.write_back()
    p, a, k = math.exp(-float(torch.tensor(exponent))), 0.99, passed
    terms = min(k, 20_000)  # of a sum over j of (1 - a) a^j p^(k - j): later ones are below 1e-80
    expected = math.fsum((1 - a) * a**j * p ** (k - j) for j in range(terms)) / (1 - a**k)
    assert float(table_RE[0, 0]) == pytest.approx(expected, rel=2e-4, abs=1e-12)


def test_both_ways_of_finding_rows_agree(examples: Examples) -> None:
    """The CPU's way and the GPU's agree with each other and with autograd."""
    preprocessing, rows_NT, x_NT = examples
    plain, by_torch = (
        EmbeddingLookup(preprocessing, preprocessing.rows, CPU),
        EmbeddingLookup(preprocessing, preprocessing.rows, CPU, numpy_on_cpu=False),
    )
    table_RE, sides = torch.randn(preprocessing.rows, 5), sides_of(preprocessing)
    for rows_BT, x_BT in ((rows_NT[:64], x_NT[:64]), (rows_NT[100:103], x_NT[100:103])):
        expected_BFE = plainly_pooled(sides, table_RE, rows_BT, x_BT)
        gradients = []
        for lookup in (plain, by_torch):
            batch = lookup.find_unique(rows_BT, x_BT)
            assert batch.unique_U.unique().tolist() == sorted(batch.unique_U.tolist()) == rows_BT.unique().tolist()
            fields_BFE = lookup.pool(table_RE[batch.unique_U], batch)
            torch.testing.assert_close(fields_BFE, expected_BFE)
            whole_RE = torch.zeros_like(table_RE)
            whole_RE[batch.unique_U] = lookup.scatter(expected_BFE, batch)
            gradients.append(whole_RE)
        leaf_RE = table_RE.clone().requires_grad_()
        (plainly_pooled(sides, leaf_RE, rows_BT, x_BT) * expected_BFE).sum().backward()
        for gradient_RE in gradients:
            torch.testing.assert_close(gradient_RE, leaf_RE.grad, rtol=1e-4, atol=1e-4)
