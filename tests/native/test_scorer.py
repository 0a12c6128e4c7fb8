"""The compiled scorer against the same sums in float64, for every instruction set that this processor has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.native.layout import Isa
from app.native.scorer import SUPPORTED_ISAS, StateLayout, TopMlpScorer

float32_isas = st.sampled_from(sorted(set(SUPPORTED_ISAS) - {Isa.BFLOAT16}))
sizes = st.integers(1, 70)
layer_widths = st.lists(sizes, max_size=3)


def random(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.normal(size=shape).astype(np.float32) * np.float32(0.3)


def reference(
    user_D: np.ndarray,
    items_ND: np.ndarray,
    state_layout: StateLayout,
    layers: list[tuple[np.ndarray, np.ndarray]],
    output: tuple[np.ndarray, float] | None,
    calibration: tuple[float, float],
) -> np.ndarray:
    """Compute probabilities [N] by the formula."""
    user_D, items_ND = user_D.astype(np.float64), items_ND.astype(np.float64)
    cross = slice(state_layout.hidden, state_layout.hidden + state_layout.cross)
    logit_N = user_D[-1] + items_ND[:, -1] + items_ND[:, cross] @ user_D[cross]
    hidden_NH = np.maximum(items_ND[:, : state_layout.hidden] + user_D[: state_layout.hidden], 0)
    for weight, bias in layers:
        hidden_NH = np.maximum(hidden_NH @ weight.T.astype(np.float64) + bias, 0)
    if output is not None:
        logit_N += hidden_NH @ output[0].astype(np.float64) + output[1]
    return 1 / (1 + np.exp(-(calibration[0] * logit_N + calibration[1])))


@given(float32_isas, sizes, st.integers(0, 20), layer_widths, st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_it_is_the_formula(isa: Isa, hidden: int, cross: int, widths: list[int], candidates: int, seed: int) -> None:
    """Widths and numbers of candidates need not be multiples of a register or a tile."""
    draw, state_layout = np.random.default_rng(seed), StateLayout(hidden, cross)
    depths = [hidden, *widths]
    layers = [(random(draw, width, depth), random(draw, width)) for depth, width in zip(depths, widths, strict=False)]
    output = random(draw, depths[-1]), 0.25
    states_CD, user_D = random(draw, 100, state_layout.item_width), random(draw, state_layout.item_width)
    rows_N = draw.integers(0, 100, candidates)
    scorer = TopMlpScorer(state_layout, layers, output, (1.5, -0.5), isa)
    score_N, position_N = scorer.ranked(torch.from_numpy(user_D), torch.from_numpy(states_CD), rows_N)
    expected_N = reference(user_D, states_CD[rows_N], state_layout, layers, output, (1.5, -0.5))
    assert sorted(position_N.tolist()) == list(range(candidates))
    assert np.abs(score_N - expected_N[position_N]).max() < 1e-5
    assert (np.diff(score_N) <= 0).all()


@given(float32_isas, st.integers(0, 20), st.integers(1, 60))
def test_without_a_deep_part_it_is_a_factorisation_machine(isa: Isa, cross: int, candidates: int) -> None:
    draw, state_layout = np.random.default_rng(cross), StateLayout(0, cross)
    states_CD, user_D = random(draw, candidates, state_layout.item_width), random(draw, state_layout.item_width)
    score_N, position_N = TopMlpScorer(state_layout, [], None, (1.0, 0.0), isa).ranked(
        torch.from_numpy(user_D), torch.from_numpy(states_CD), np.arange(candidates)
    )
    expected_N = reference(user_D, states_CD, state_layout, [], None, (1.0, 0.0))
    assert np.abs(score_N - expected_N[position_N]).max() < 1e-6


@given(float32_isas, st.integers(0, 40), st.integers(0, 9), st.integers(0, 1), st.integers(0, 1))
def test_either_side_may_lack_its_bias(isa: Isa, hidden: int, cross: int, user_bias: int, item_bias: int) -> None:
    draw, state_layout = np.random.default_rng(hidden), StateLayout(hidden, cross, user_bias, item_bias)
    states_CD, user_D = random(draw, 30, state_layout.item_width), random(draw, state_layout.user_width)
    output = (random(draw, hidden), 0.5) if hidden else None
    score_N, position_N = TopMlpScorer(state_layout, [], output, (1.0, 0.0), isa).ranked(
        torch.from_numpy(user_D), torch.from_numpy(states_CD), np.arange(30)
    )
    full_D = np.append(user_D, [] if user_bias else [0.0])
    full_ND = np.hstack([states_CD, np.zeros((30, 1 - item_bias))])
    expected_N = reference(full_D, full_ND, state_layout, [], output, (1.0, 0.0))
    assert np.abs(score_N - expected_N[position_N]).max() < 1e-5


logits_with_specials = st.floats(-30, 30, width=32) | st.sampled_from(
    [float("nan"), 0.0, -0.0, float("inf"), float("-inf")]
)


@given(st.lists(logits_with_specials, min_size=1, max_size=300))
def test_the_order_is_that_of_a_stable_sort_and_nan_is_first(logits: list[float]) -> None:
    states_C1 = torch.tensor(logits).unsqueeze(1)
    scorer = TopMlpScorer(StateLayout(0, 0), [], None, (1.0, 0.0))
    score_N, position_N = scorer.ranked(torch.zeros(1), states_C1, np.arange(len(logits)))
    p_N = torch.from_numpy(score_N)[torch.from_numpy(position_N).argsort()]
    assert torch.allclose(p_N, torch.sigmoid(states_C1[:, 0]), atol=1e-6, equal_nan=True)
    expected_N, order_N = torch.sort(p_N, stable=True, descending=True)
    assert position_N.tolist() == order_N.tolist()
    assert torch.equal(torch.nan_to_num(expected_N, -1.0), torch.nan_to_num(torch.from_numpy(score_N), -1.0))


@given(float32_isas, st.integers(0, 40))
def test_nan_comes_through_every_layer(isa: Isa, column: int) -> None:
    """A ReLU that turned it into 0 would hide a broken model."""
    state_layout = StateLayout(41, 0)
    states_CD = torch.zeros(20, 42)
    states_CD[7, column] = float("nan")
    layer = np.ones((33, 41), np.float32), np.zeros(33, np.float32)
    scorer = TopMlpScorer(state_layout, [layer], (np.ones(33, np.float32), 0.0), (1.0, 0.0), isa)
    score_N, position_N = scorer.ranked(torch.zeros(42), states_CD, np.arange(20))
    assert position_N[0] == 7
    assert np.isnan(score_N).tolist() == [True] + [False] * 19


def test_layers_that_are_too_wide_or_do_not_fit_together_are_refused() -> None:
    layer, wide = ((np.zeros((width, 4), np.float32), np.zeros(width, np.float32)) for width in (8, 2000))
    for layers in ([layer], [layer, layer], [wide]):
        with pytest.raises(ValueError, match="layers"):
            TopMlpScorer(StateLayout(4, 0), layers, (np.zeros(4, np.float32), 0.0), (1.0, 0.0))


@pytest.mark.skipif(Isa.BFLOAT16 not in SUPPORTED_ISAS, reason="this processor does not multiply bfloat16")
@given(sizes, st.integers(0, 20), layer_widths, st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_bfloat16_rounds_states_weights_and_what_is_between_layers_and_nothing_else(
    hidden: int, cross: int, widths: list[int], candidates: int, seed: int
) -> None:
    draw, state_layout = np.random.default_rng(seed), StateLayout(hidden, cross)
    depths = [hidden, *widths]
    layers = [(random(draw, width, depth), random(draw, width)) for depth, width in zip(depths, widths, strict=False)]
    output = random(draw, depths[-1]), 0.25
    states_CD = torch.from_numpy(random(draw, 100, state_layout.item_width)).to(torch.bfloat16)
    user_D = random(draw, state_layout.user_width)
    row_N = draw.integers(0, 100, candidates)
    scorer = TopMlpScorer(state_layout, layers, output, (1.5, -0.5), Isa.BFLOAT16)
    score_N, position_N = scorer.ranked(torch.from_numpy(user_D), states_CD, row_N)

    def rounded(x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16).double()

    items_ND, user = states_CD[row_N].double(), torch.from_numpy(user_D).double()
    logit_N = user[-1] + items_ND[:, -1] + items_ND[:, hidden : hidden + cross] @ user[hidden : hidden + cross]
    hidden_NH = (items_ND[:, :hidden] + user[:hidden]).relu()
    for weight, bias in layers:
        hidden_NH = (rounded(hidden_NH) @ rounded(torch.from_numpy(weight)).T + torch.from_numpy(bias)).relu()
    logit_N += hidden_NH @ torch.from_numpy(output[0]).double() + output[1]
    expected_N = torch.sigmoid(1.5 * logit_N - 0.5).numpy()
    # A sum that lies between two bfloat16 may be rounded to either of them when it is added up in another order.
    assert np.abs(score_N - expected_N[position_N]).max() < (2e-3 if len(widths) > 1 else 1e-5)
    assert (np.diff(score_N) <= 0).all()
