"""Measure which pairs of fields a factorisation machine relies on: the mean |<v_i x_i, v_j x_j>| of each pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from app.models.base import CtrModel
from app.models.deepfm import DeepFM
from app.models.deepfm_sparrow import DeepFMSparrow
from app.models.fm import FM
from app.models.hofm import HOFM
from app.models.pairwise import ChosenPairs
from app.models.preprocessing import Preprocessing
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.sampling import sample

MAX_ROWS = 4096
CHUNK_ROWS = 256
WITH_PAIRS = (FM, DeepFM, HOFM, DeepFMSparrow)
"""The inner products of pairs of field embeddings are terms of their logit. DeepFMSparrow weighs each pair."""
REASONS = {
    "lr": "it has no crosses",
    "nfm": "its crosses go through a network, and no inner product of two fields is a term of its logit",
    "neural_cf": "it crosses fields by a network alone",
    "embedding_mlp": "it crosses fields by a network alone",
    "wide_deep": "its crosses are hashed pairs of values and a network, not products of embeddings",
    "fusion": "its crosses belong to four models joined at one neuron",
}
"""Says why a model has no such terms, by its name."""
OTHER_REASON = "no inner product of two fields' embeddings is a term of its logit"


@dataclass(frozen=True)
class Interactions:
    """Holds how strongly a model crosses each pair of fields."""

    fields: list[str]
    """Names the field vectors that are crossed; `<name>:bucket` is the bucket of a number."""
    strength_FF: npt.NDArray[np.float64]
    """Holds the mean absolute terms of the logit: symmetric, 0 on the diagonal and for pairs that are not crossed."""


def measure_interactions(
    model: CtrModel, preprocessing: Preprocessing, rows: ExpandedRows, *, seed: int = 0, max_rows: int = MAX_ROWS
) -> Interactions | str:
    """Measure the pairwise terms on a sample of the rows, or return why the model has none to show."""
    if not isinstance(model, WITH_PAIRS):
        return REASONS.get(model.name, OTHER_REASON)
    rows = sample(rows, seed, max_rows)
    names = list(preprocessing.vectors)
    total_FF = torch.zeros(len(names), len(names), dtype=torch.float64)
    with torch.inference_mode():
        weight_FF = _pair_weights(model, len(names)).double()
        for chunk in zip(*(torch.split(tensor, CHUNK_ROWS) for tensor in rows[:2]), strict=True):
            e_BFK = model.fields(*chunk)[:, :, 1:]
            total_FF += torch.bmm(e_BFK, e_BFK.transpose(1, 2)).abs().sum(0).double()
    mean_FF = (total_FF * weight_FF / len(rows.labels_N)).numpy()
    crossed = np.flatnonzero(weight_FF.numpy().any(1))
    return Interactions([names[field] for field in crossed], mean_FF[np.ix_(crossed, crossed)])


def _pair_weights(model: CtrModel, fields: int) -> torch.Tensor:
    """Return |a_fg| of every pair [F, F], symmetric; 1 where all pairs are crossed alike."""
    pairs = getattr(model, "crosses", None)
    if isinstance(pairs, ChosenPairs):
        upper_FF = pairs.weights().abs()
        return upper_FF + upper_FF.t()
    return 1.0 - torch.eye(fields)
