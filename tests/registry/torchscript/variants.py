"""Versions whose programs misbehave. The usual code writes them, so that nothing else is wrong with them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from app.models.base import CtrModel
from app.models.deepfm import DeepFM
from app.models.native_weights import TopMlpWeights
from app.registry.artifact.export import write
from app.registry.store.model_store import ModelStore
from tests.factories import MODEL_NAME, files_left, fitted, golden, publish_files, small_schema, tiny_model


class Endless(DeepFM):
    """`forward` never returns; the methods that serve are those of DeepFM."""

    def forward(
        self, user_keys_BS: Tensor, user_values_BS: Tensor, item_keys_BS: Tensor, item_values_BS: Tensor
    ) -> Tensor:
        total = user_values_BS.sum(1)
        while bool(total.shape[0] > 0):
            total = total + 1
        return total


class Greedy(DeepFM):
    """`forward` allocates more memory than any machine has."""

    def forward(
        self, user_keys_BS: Tensor, user_values_BS: Tensor, item_keys_BS: Tensor, item_values_BS: Tensor
    ) -> Tensor:
        return torch.zeros(68719476736)[: user_keys_BS.shape[0]]


class SlowScore(DeepFM):
    """`score`, which no request runs, computes the same scores sixty times."""

    plain = DeepFM.score

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        logits_N = self.plain(user_D, items_ND)
        for _ in range(30):
            logits_N = 0.5 * (logits_N + self.plain(user_D, items_ND))
        return logits_N


class Slow(SlowScore):
    """`score_rows`, which requests run, is as slow: no compiled scorer stands in for it."""

    def score_rows(self, user_D: Tensor, states_CD: Tensor, rows_N: Tensor) -> Tensor:
        return self.score(user_D, states_CD.index_select(0, rows_N).to(user_D.dtype))

    def top_mlp(self) -> TopMlpWeights | None:
        return None


def retrained_model(kind: type[CtrModel] = DeepFM, seed: int = 0) -> CtrModel:
    """Build a model of this kind with the weights of `tiny_model(0)`, changed a little by a seed above 0."""
    weights = tiny_model(0).state_dict()
    generator = torch.Generator().manual_seed(seed)
    model = kind(fitted())
    for tensor in weights.values():
        if seed and tensor.is_floating_point() and bool(torch.isfinite(tensor).all()):
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.02)
    model.load_state_dict(weights)
    return model.eval()


_written: dict[tuple[type[CtrModel], str], dict[str, bytes]] = {}


def written(model: CtrModel) -> dict[str, bytes]:
    """Return the files of a version, written once: many tests publish the same few models."""
    state = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values()))
    key = type(model), state.hexdigest()
    if key not in _written:
        _written[key] = files_left(
            lambda folder: write(folder, model, small_schema(), name=MODEL_NAME, golden=golden(4, 20))
        )
    return _written[key]


def publish_model(store: ModelStore, model: CtrModel, *, live: bool = False) -> int:
    version = publish_files(store, written(model))
    if live:
        store.promote(version)
    return version


def modified_model(change: Callable[[CtrModel], object]) -> CtrModel:
    model = retrained_model(seed=1)
    with torch.no_grad():
        change(model)
    return model
