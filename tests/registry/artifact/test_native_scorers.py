"""Which models are served compiled, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.features.slots import Slots
from app.models import MODELS
from app.models.base import CtrModel
from app.models.deepfm import DeepFM
from app.models.fm import FM
from app.models.nfm import NFM
from app.models.serving_form import ServedDeepFM, serving_form
from app.native.layout import Isa
from app.native.scorer import SUPPORTED_ISAS
from app.registry.artifact import native_scorers
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.export import write
from app.registry.artifact.load import load
from tests.factories import fitted, golden, raw_context, raw_item, raw_user, small_schema, tiny_model, write_tiny

WITH_SCORER = {"lr", "fm", "deepfm", "embedding_mlp", "neural_cf", "neural_cf_towers", "deepfm_sparrow"}


@pytest.mark.parametrize("architecture", MODELS)
def test_a_compiled_version_ranks_as_its_program_does(tmp_path: Path, architecture: str) -> None:
    write_tiny(tmp_path, 3, architecture)
    version = load(tmp_path)
    assert_native_scores_are_the_programs(version, architecture in WITH_SCORER, architecture == "deepfm")


def assert_native_scores_are_the_programs(version: Artifact, with_scorer: bool, with_user_encoder: bool) -> None:
    scorers = native_scorers.scorers(version.program)
    user_encoder = native_scorers.user_encoder(version.program)
    assert bool(scorers) == with_scorer
    assert (user_encoder is not None) == with_user_encoder
    if not scorers:
        return
    assert (torch.bfloat16 in scorers) == (Isa.BFLOAT16 in SUPPORTED_ISAS)
    user = version.user_encoder.encode(raw_user(4) | raw_context(4), "4")
    items = [version.item_encoder.encode(raw_item(number), str(number)) for number in range(50)]
    keys_1S, values_1S = torch.from_numpy(user.keys[None]), torch.from_numpy(user.values[None])
    user_D = version.program.encode_user(keys_1S, values_1S)[0]
    if user_encoder is not None:
        assert torch.allclose(user_encoder(*user), user_D, atol=1e-5)
    states_CD = version.encode_items(Slots(np.stack([s.keys for s in items]), np.stack([s.values for s in items])))
    row_N = np.random.default_rng(0).permutation(50)
    program_score_N, program_position_N = version.program.ranked(user_D, states_CD, torch.from_numpy(row_N))
    assert program_score_N.max() - program_score_N.min() > 1e-3
    for dtype, scorer in scorers.items():
        score_N, position_N = scorer.ranked(user_D, states_CD.to(dtype), row_N)
        by_position_N = np.empty_like(score_N)
        by_position_N[position_N] = score_N
        expected_N = np.empty_like(score_N)
        expected_N[program_position_N.numpy()] = program_score_N.numpy()
        assert np.abs(by_position_N - expected_N).max() < (1e-5 if dtype == torch.float32 else 2e-2)


def test_a_model_wider_than_what_is_compiled_goes_by_its_program(tmp_path: Path) -> None:
    model = DeepFM(fitted(), dim=600, hidden=(1100,))
    write(tmp_path, model, small_schema(), name="deepfm", golden=golden())
    program = load(tmp_path).program
    assert native_scorers.scorers(program) == {}
    assert native_scorers.user_encoder(program) is None


class Positional(CtrModel):
    """A model as it was published before the weights of the compiled scorers had names."""

    exported = (*CtrModel.required, "tail", "user_map")
    top_mlp = user_affine = None  # type: ignore[assignment]


class PositionalDeepFM(Positional, ServedDeepFM):
    """Its user encoder and its scorer are compiled."""

    def tail(self) -> list[Tensor]:
        tensors = [torch.tensor([self.deep.hidden, self.dim, 1, 1])]
        for block in self.deep.rest:
            linear: nn.Linear = block.linear  # type: ignore[assignment]
            tensors.extend([linear.weight, linear.bias])
        tensors.extend([self.deep.output.weight, self.deep.output.bias])
        return tensors

    def user_map(self) -> list[Tensor]:
        return [self.user_weight_DI, self.user_bias_D, torch.tensor([self.deep.hidden, self.dim])]


class PositionalFM(Positional, FM):
    """It has no network, and its user states are computed by the program."""

    def tail(self) -> list[Tensor]:
        return [torch.tensor([0, self.crosses.cross_width, 1, 1])]

    def user_map(self) -> list[Tensor]:
        return []


class PositionalNFM(Positional, NFM):
    """The program must be called."""

    def tail(self) -> list[Tensor]:
        return []

    def user_map(self) -> list[Tensor]:
        return []


@pytest.mark.parametrize("architecture", ["deepfm", "fm", "nfm"])
def test_a_version_with_positional_weights_is_compiled_alike(tmp_path: Path, architecture: str) -> None:
    model: CtrModel = serving_form(tiny_model(3, architecture))
    if isinstance(model, ServedDeepFM):
        model = PositionalDeepFM(model)
    else:
        model = {"fm": PositionalFM, "nfm": PositionalNFM}[architecture](fitted())
        model.load_state_dict(tiny_model(3, architecture).state_dict())
    write(tmp_path, model, small_schema(), name=architecture, golden=golden())
    version = load(tmp_path)
    assert hasattr(version.program, "tail")
    assert not hasattr(version.program, "top_mlp")
    assert_native_scores_are_the_programs(version, architecture != "nfm", architecture == "deepfm")
