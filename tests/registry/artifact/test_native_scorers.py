"""Which models are served compiled, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from app.features.slots import Slots
from app.models import MODELS
from app.models.deepfm import DeepFM
from app.native.layout import Isa
from app.native.scorer import SUPPORTED_ISAS
from app.registry.artifact import native_scorers as compiled
from app.registry.artifact.export import write
from app.registry.artifact.load import load
from tests.factories import fitted, golden, raw_context, raw_item, raw_user, small_schema, write_tiny

TAILS = {"lr", "fm", "deepfm", "embedding_mlp", "neural_cf", "neural_cf_towers", "deepfm_sparrow"}


@pytest.mark.parametrize("architecture", MODELS)
def test_a_compiled_version_ranks_as_its_program_does(tmp_path: Path, architecture: str) -> None:
    write_tiny(tmp_path, 3, architecture)
    version = load(tmp_path)
    tails, user_state = compiled.tails(version.program), compiled.user_state(version.program)
    assert bool(tails) == (architecture in TAILS)
    assert (user_state is not None) == (architecture == "deepfm")
    if not tails:
        return
    assert (torch.bfloat16 in tails) == (Isa.BFLOAT16 in SUPPORTED_ISAS)
    user = version.user_encoder.encode(raw_user(4) | raw_context(4), "4")
    items = [version.item_encoder.encode(raw_item(number), str(number)) for number in range(50)]
    keys_1S, values_1S = torch.from_numpy(user.keys[None]), torch.from_numpy(user.values[None])
    user_D = version.program.encode_user(keys_1S, values_1S)[0]
    if user_state is not None:
        assert torch.allclose(user_state(*user), user_D, atol=1e-5)
    states_CD = version.encode_items(Slots(np.stack([s.keys for s in items]), np.stack([s.values for s in items])))
    row_N = np.random.default_rng(0).permutation(50)
    wanted_N, order_N = version.program.ranked(user_D, states_CD, torch.from_numpy(row_N))
    assert wanted_N.max() - wanted_N.min() > 1e-3
    for dtype, tail in tails.items():
        score_N, place_N = tail.ranked(user_D, states_CD.to(dtype), row_N)
        by_place_N = np.empty_like(score_N)
        by_place_N[place_N] = score_N
        wanted = np.empty_like(score_N)
        wanted[order_N.numpy()] = wanted_N.numpy()
        assert np.abs(by_place_N - wanted).max() < (1e-5 if dtype == torch.float32 else 2e-2)


def test_a_model_wider_than_what_is_compiled_goes_by_its_program(tmp_path: Path) -> None:
    model = DeepFM(fitted(), dim=600, hidden=(1100,))
    write(tmp_path, model, small_schema(), name="deepfm", golden=golden())
    program = load(tmp_path).program
    assert compiled.tails(program) == {}
    assert compiled.user_state(program) is None
