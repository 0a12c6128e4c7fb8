"""Every registered model: its formula, its split, its rows' independence, its exported program."""

from __future__ import annotations

import copy
import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from app.features.encoder import Encoder
from app.features.slots import Slots
from app.models import MODELS
from app.models.base import CtrModel
from app.models.layers import Block
from app.models.preprocessing import Preprocessing
from app.models.serving_form import serving_form
from app.registry.artifact.export import write
from app.registry.artifact.load import load
from tests.factories import fitted, golden, raw_context, raw_item, raw_user, small_schema, tiny_model, with_statistics
from tests.models.reference import FORMULAS, first_order, logit, weights_of

PREPROCESSING = fitted()
USERS, ITEMS = 12, 30
# Past the factories' 40 users and 60 items, so some ids and values are unseen; 3 and 10 have no age.
USER_NUMBERS = [0, 1, 2, 3, 10, 17, 39, 40, 77, 500, 501, 502]
ITEM_NUMBERS = [*range(20), 57, 58, 59, 60, 61, 62, 700, 701, 702, 703]
# A model over the ids alone, say, has no use for an age.
READS_EVERY_SLOT = [name for name in MODELS if first_order in FORMULAS.get(name, [])]


@pytest.fixture(params=list(MODELS))
def architecture(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["plain", "statistics"])
def preprocessing(request: pytest.FixtureRequest) -> Preprocessing:
    return with_statistics() if request.param == "statistics" else PREPROCESSING


@pytest.fixture
def model(architecture: str, preprocessing: Preprocessing) -> CtrModel:
    return tiny_model(5, architecture, preprocessing)


@functools.cache
def users() -> Slots:
    raws = [raw_user(n) | raw_context(n) for n in USER_NUMBERS]
    return Encoder(small_schema(), "user").encode_many(raws, [str(n) for n in USER_NUMBERS])


@functools.cache
def items() -> Slots:
    encoder = Encoder(small_schema(), "item")
    return encoder.encode_many([raw_item(n) for n in ITEM_NUMBERS], [str(n) for n in ITEM_NUMBERS])


def tensors(slots: Slots, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(slots.keys), torch.from_numpy(slots.values).to(dtype)


def row(slots: Slots, index: int) -> Slots:
    return Slots(slots.keys[index], slots.values[index])


def forward_all(model: CtrModel, dtype: torch.dtype = torch.float32) -> Tensor:
    """Compute logits [users, items] by `forward`."""
    (user_keys, user_values), (item_keys, item_values) = tensors(users(), dtype), tensors(items(), dtype)
    u = torch.arange(USERS).repeat_interleave(ITEMS)
    i = torch.arange(ITEMS).repeat(USERS)
    with torch.inference_mode():
        logits_B: Tensor = model(user_keys[u], user_values[u], item_keys[i], item_values[i])
    return logits_B.reshape(USERS, ITEMS)


def split_all(model: CtrModel, dtype: torch.dtype = torch.float32) -> Tensor:
    """Compute logits [users, items] by the split."""
    with torch.inference_mode():
        states_UD = model.encode_user(*tensors(users(), dtype))
        states_ND = model.encode_items(*tensors(items(), dtype))
        return torch.stack([model.score(state_D, states_ND) for state_D in states_UD])


def fused(model: CtrModel, dtype: torch.dtype) -> CtrModel:
    served = copy.deepcopy(model).to(dtype)
    for module in served.modules():
        if isinstance(module, Block):
            module.fuse()
    return served


def test_every_model_has_its_formula_here() -> None:
    assert set(MODELS) <= set(FORMULAS), "write what is missing, plainly, in tests/models/reference.py"
    assert all(name == model.name for name, model in MODELS.items())


@pytest.mark.parametrize("architecture", [name for name in FORMULAS if name in MODELS], indirect=True)
def test_forward_is_the_formula(model: CtrModel, preprocessing: Preprocessing) -> None:
    actual_UN = forward_all(copy.deepcopy(model).double(), torch.float64)
    u, i, weights = users(), items(), weights_of(model)
    for user in range(USERS):
        for item in range(0, ITEMS, 3):
            expected = logit(model, preprocessing, row(u, user), row(i, item), weights)
            assert float(actual_UN[user, item]) == pytest.approx(expected, abs=1e-10)
    assert float(actual_UN.std()) > 0.05, "a test on equal logits would see nothing"
    assert float((forward_all(model) - actual_UN).abs().max()) < 1e-4


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_split_agrees_with_forward(model: CtrModel, dtype: torch.dtype, tolerance: float) -> None:
    """Probabilities agree too, with batch norms folded as they are when served."""
    served = fused(model, dtype)
    plain_UN, split_UN = forward_all(served, dtype), split_all(served, dtype)
    assert float((served.probability(split_UN) - served.probability(plain_UN)).abs().max()) <= tolerance
    if dtype == torch.float64:
        assert float((split_UN - plain_UN).abs().max()) <= tolerance
        assert float((plain_UN - forward_all(copy.deepcopy(model).double(), dtype)).abs().max()) <= tolerance
    else:
        assert float((split_UN - plain_UN).abs().max()) <= tolerance * max(1.0, float(plain_UN.abs().max()))


def test_a_row_does_not_depend_on_its_batch_mates(model: CtrModel) -> None:
    model = model.double()
    together_UN = forward_all(model, torch.float64)
    user_keys, user_values = tensors(users(), torch.float64)
    item_keys, item_values = tensors(items(), torch.float64)
    with torch.inference_mode():
        for user in range(0, USERS, 4):
            for item in range(0, ITEMS, 7):
                alone = model(
                    user_keys[user : user + 1], user_values[user : user + 1],
                    item_keys[item : item + 1], item_values[item : item + 1],
                )  # fmt: skip
                assert float(alone) == pytest.approx(float(together_UN[user, item]), abs=1e-12)
        served = fused(model, torch.float64)
        state_D = served.encode_user(*tensors(users(), torch.float64))[0]
        whole_N = served.score(state_D, served.encode_items(item_keys, item_values))
        backwards = torch.arange(ITEMS - 1, -1, -1)
        halves_N = served.score(state_D, served.encode_items(item_keys[backwards], item_values[backwards]))[backwards]
        assert float((whole_N - halves_N).abs().max()) < 1e-12


@pytest.mark.parametrize("architecture", READS_EVERY_SLOT, indirect=True)
def test_numbers_take_part(model: CtrModel) -> None:
    """Another age moves the score; in a factorisation machine it moves it by another amount for another item."""
    encoder = Encoder(small_schema(), "user")
    raw = raw_user(1) | raw_context(1)
    # 30 and 31 share their bucket; the category that reads the same raw field is unseen for both.
    ages = encoder.encode_many([raw | {"age": 30.25}, raw | {"age": 31.5}], ["1", "1"])
    served, parts = fused(model, torch.float64), [part.__name__ for part in FORMULAS.get(model.name, [])]
    if "pairs" in parts and "deep" in parts:  # so that what moves is the factorisation machine's
        with torch.no_grad():
            served.get_parameter("deep.output.weight").zero_()
    with torch.inference_mode():
        states_2D = served.encode_user(*tensors(ages, torch.float64))
        states_ND = served.encode_items(*tensors(items(), torch.float64))
        moved_N = served.score(states_2D[1], states_ND) - served.score(states_2D[0], states_ND)
    assert float(moved_N.abs().max()) > 1e-3
    if parts == ["first_order"]:
        assert float(moved_N.std()) < 1e-12
    else:
        assert float(moved_N.std()) > 1e-5


def test_unseen_keys_share_their_fields_row(model: CtrModel) -> None:
    encoder = Encoder(small_schema(), "item")
    raw = raw_item(1)
    strangers = encoder.encode_many([raw] * 3, ["never seen", "neither", "1"])
    with torch.inference_mode():
        states_ND = fused(model, torch.float32).encode_items(*tensors(strangers))
    assert torch.allclose(states_ND[0], states_ND[1], atol=1e-6)
    assert not torch.allclose(states_ND[0], states_ND[2], atol=1e-2)
    rows_BT, _ = model.item.expand(model.vocabulary_V, *tensors(strangers))
    assert rows_BT[0, 0] == PREPROCESSING.oov_row("item_id")
    assert len({PREPROCESSING.oov_row(name) for name in ("item_id", "genres", "tags", "gender")}) == 4


def test_missing_and_extreme_numbers_give_finite_scores(model: CtrModel) -> None:
    encoder = Encoder(small_schema(), "item")
    numbers = [None, 0, -0.0, 1e-45, -1, 3e38, -3e38, 14_616, "nan"]
    raws = [{"year": x, "popularity": x, "rating": x if x not in (3e38, -3e38) else 5} for x in numbers]
    slots = encoder.encode_many(raws, ["1"] * len(raws))
    served = fused(model, torch.float32)
    with torch.inference_mode():
        states_ND = served.encode_items(*tensors(slots))
        logits_N = served.score(served.encode_user(*tensors(users()))[0], states_ND)
    assert bool(torch.isfinite(states_ND).all())
    assert bool(torch.isfinite(logits_N).all())
    assert torch.allclose(states_ND[0], states_ND[8], atol=1e-6), "NaN is missing"


@pytest.mark.parametrize(
    "preprocessing", ["plain", pytest.param("statistics", marks=pytest.mark.faults)], indirect=True
)
def test_the_program_is_the_eager_model(tmp_path: Path, model: CtrModel) -> None:
    write(tmp_path, model, small_schema(), name="tiny", golden=golden())
    program = load(tmp_path).program
    served = serving_form(model)
    with torch.inference_mode():
        user_UD, item_ND = served.encode_user(*tensors(users())), served.encode_items(*tensors(items()))
        assert torch.allclose(program.encode_user(*tensors(users())), user_UD, atol=1e-6)
        assert torch.allclose(program.encode_items(*tensors(items())), item_ND, atol=1e-6)
        assert torch.allclose(program.score(user_UD[0], item_ND), served.score(user_UD[0], item_ND), atol=1e-6)
        pair = (*tensors(row_of(users())), *tensors(row_of(items())))
        assert torch.allclose(program(*pair), served(*pair), atol=1e-6)
        together_P = served.score_users(user_UD[:2], item_ND[:5].clone(), [2, 3])
        assert torch.allclose(program.score_users(user_UD[:2], item_ND[:5].clone(), [2, 3]), together_P, atol=1e-6)
        logits_N = torch.linspace(-8, 8, 50)
        expected_N = 1 / (1 + np.exp(-(0.7 * logits_N.numpy() - 0.4)))
        assert np.allclose(program.probability(logits_N).numpy(), expected_N, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_requests_at_once_score_as_each_alone(model: CtrModel, dtype: torch.dtype) -> None:
    served = fused(model, torch.float32)
    with torch.inference_mode():
        users_UD, states_ND = served.encode_user(*tensors(users())), served.encode_items(*tensors(items())).to(dtype)
        counts = [3, 0, 1, 5]
        starts = [0, 3, 3, 4]
        rows = [torch.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
        together_P = served.score_users(users_UD[:4], states_ND[:9].clone(), counts)
        alone_P = torch.cat([served.score_rows(users_UD[u], states_ND, rows[u]) for u in range(4)])
    assert torch.allclose(together_P, alone_P, atol=1e-6 if dtype == torch.float32 else 2e-2)


def row_of(slots: Slots) -> Slots:
    return Slots(slots.keys[:5], slots.values[:5])


@pytest.mark.parametrize("architecture", READS_EVERY_SLOT, indirect=True)
def test_gradients_reach_every_weight_that_was_used(model: CtrModel) -> None:
    model.train()
    (user_keys, user_values), (item_keys, item_values) = tensors(users()), tensors(items())
    model(user_keys, user_values, item_keys[:USERS], item_values[:USERS]).sum().backward()
    table = model.get_parameter("table_RE").grad
    assert table is not None
    used_BT, x_BT = model.user.expand(model.vocabulary_V, user_keys, user_values)
    rows = torch.unique(used_BT[x_BT != 0])
    assert bool((table[rows] != 0).any(1).all())
    assert math.isfinite(float(table.abs().sum()))


def test_the_empty_key_of_padding_adds_nothing(model: CtrModel) -> None:
    """Padding has x = 0, so whatever row it falls on is multiplied away."""
    encoder = Encoder(small_schema(), "item")
    slots = encoder.encode_many([{"genres": ["Drama"], "tags": {"tag1": 1.0}}], ["1"])
    padded = slots.values[0] == 0
    assert padded.sum() == 4
    other = Slots(slots.keys.copy(), slots.values)
    other.keys[0, padded] = slots.keys[0, 1]
    with torch.inference_mode():
        served = fused(model, torch.float32)
        user_D = served.encode_user(*tensors(users()))[0]
        logits = [served.score(user_D, served.encode_items(*tensors(padding))) for padding in (slots, other)]
    assert torch.allclose(logits[0], logits[1], atol=1e-6)


def test_preprocessing_lays_rows_out_without_overlap() -> None:
    preprocessing: Preprocessing = PREPROCESSING
    assert preprocessing.oov_rows == 8
    assert preprocessing.bucket_row("age") == 8 + len(preprocessing.vocabulary_V)
    assert preprocessing.bucket_row("year") == preprocessing.bucket_row("age") + 4 + 1, "4 buckets and missing"
    assert preprocessing.rows == preprocessing.bucket_row("year") + 3 + 1
    assert tiny_model().table_RE.shape == (preprocessing.rows, 9)
