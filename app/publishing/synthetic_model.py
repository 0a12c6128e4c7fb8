"""An untrained model of any size for a synthetic catalogue, for benchmarks and load tests: same seed, same weights.

As with the catalogue, every weight is a hash of the seed and its index, made a number by what IEEE 754 fixes.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.errors import ConfigError
from app.features.categorical_encoder import CategoricalEncoder
from app.features.encoder import Encoder
from app.features.fields import Categorical
from app.features.loading.synthetic import SyntheticCatalogue, splitmix64
from app.models.deepfm import DeepFM
from app.models.preprocessing import Preprocessing
from app.publishing.publish import publish_staged
from app.publishing.reporter import SILENT, Reporter
from app.registry.artifact.export import write
from app.registry.artifact.manifest import GoldenRequest
from app.registry.store.model_store import ModelStore

FIRST_ORDER, CROSSES, DEEP = 0.5, 1.25, 2.0
"""Deviations of the three parts of the logit: together about 1.8, so that probabilities fill (0.01, 0.99)."""
BIAS_STEP = 0.25
BIAS_PAIRS = 512
CHUNK_SIZE = 1 << 16
"""Weights filled at a time."""
GOLDEN_USERS, GOLDEN_ITEMS = 4, 20


def publish_untrained(
    store: ModelStore,
    catalogue: SyntheticCatalogue,
    dim: int,
    hidden: tuple[int, ...],
    reporter: Reporter = SILENT,
) -> int:
    """Publish an untrained model and make it stable, without the gate; return its number. Raises ArtifactError."""
    model = _build_reported(catalogue, dim, hidden, reporter)
    with store.staging() as staged:
        with reporter.busy("writing the version"):
            _write(staged, model, catalogue, dim, hidden, store.name)
        return publish_staged(store, staged, gate=lambda _: None)


def write_untrained(
    folder: Path,
    catalogue: SyntheticCatalogue,
    dim: int,
    hidden: tuple[int, ...],
    name: str,
    reporter: Reporter = SILENT,
) -> None:
    """Write an untrained model as a version into an existing folder."""
    _write(folder, _build_reported(catalogue, dim, hidden, reporter), catalogue, dim, hidden, name)


def build_model(catalogue: SyntheticCatalogue, dim: int = 16, hidden: tuple[int, ...] = (256, 128, 64)) -> DeepFM:
    """Build an untrained DeepFM in evaluation mode whose probabilities spread over (0.01, 0.99).

    Raises:
        ConfigError: a size is below 1.
    """
    if dim < 1 or not hidden or min(hidden) < 1:
        raise ConfigError("--dim and every width of --hidden must be at least 1")
    model = DeepFM(preprocessing_of(catalogue), dim, hidden, dropout=0.0, batch_norm=False)
    model.eval().requires_grad_(False)
    seed, fields = catalogue.seed, len(catalogue.schema.fields)
    pairs = max(fields * (fields - 1) / 2, 1.0)
    # F(F-1)/2 products of k terms then have deviation CROSSES. Square roots round alike everywhere, powers do not.
    embedding = math.sqrt(CROSSES / math.sqrt(pairs * dim))
    _fill(model.table_RE, embedding, seed, "table_RE")
    model.table_RE[:, 0] *= FIRST_ORDER / math.sqrt(fields) / embedding
    gain = 1 / embedding
    for name, tensor in model.deep.named_parameters():
        if tensor.dim() == 2:
            is_output = tensor.shape[0] == 1 and name.startswith("output")
            # He et al. 2015, eq. 10, keeps the second moment from layer to layer.
            _fill(tensor, (DEEP if is_output else math.sqrt(2) * gain) / math.sqrt(tensor.shape[1]), seed, name)
            gain = 1.0
        else:
            _fill(tensor, 0.1, seed, name)
    _centre(model, catalogue)
    return model


def preprocessing_of(catalogue: SyntheticCatalogue) -> Preprocessing:
    """Return a preprocessing whose vocabulary knows every value of every field."""
    encoders = [CategoricalEncoder(field) for field in catalogue.schema.fields if isinstance(field, Categorical)]
    texts = [str(value) for value in range(catalogue.cardinality)]
    keys = np.empty((len(encoders), catalogue.cardinality), np.int64)
    for row, encoder in enumerate(encoders):
        keys[row] = np.fromiter(map(encoder.key, texts), np.int64, catalogue.cardinality)
    return Preprocessing(catalogue.schema, torch.from_numpy(np.unique(keys)), {})


def golden_requests_of(catalogue: SyntheticCatalogue) -> list[GoldenRequest]:
    """Return requests without scores for the first users and items."""
    users = catalogue.raw("user", 0, min(GOLDEN_USERS, catalogue.users))
    items = catalogue.raw("item", 0, min(GOLDEN_ITEMS, catalogue.items))
    item_ids = [str(number) for number in range(len(items))]
    return [GoldenRequest(str(number), raw, item_ids, items, []) for number, raw in enumerate(users)]


def _build_reported(catalogue: SyntheticCatalogue, dim: int, hidden: tuple[int, ...], reporter: Reporter) -> DeepFM:
    with reporter.busy("building the model"):
        return build_model(catalogue, dim, hidden)


def _write(
    folder: Path, model: DeepFM, catalogue: SyntheticCatalogue, dim: int, hidden: tuple[int, ...], name: str
) -> None:
    config = {"synthetic": True, "dim": dim, "hidden": list(hidden), "seed": catalogue.seed}
    write(folder, model, catalogue.schema, name=name, golden=golden_requests_of(catalogue), config=config)


def _fill(tensor: Tensor, deviation: float, seed: int, stream: str) -> None:
    """Fill a contiguous float32 tensor in place, uniform around 0 with this standard deviation."""
    flat = tensor.detach().view(-1).numpy()
    reach = np.float32(deviation * math.sqrt(3))
    for start in range(0, len(flat), CHUNK_SIZE):
        stop = min(start + CHUNK_SIZE, len(flat))
        # 24 bits make a float32 in [-1, 1) without rounding, and one product rounds the same everywhere.
        bits = (splitmix64(seed, stream, start, stop) >> np.uint64(40)).astype(np.float32)
        flat[start:stop] = (bits * np.float32(2**-23) - np.float32(1)) * reach


def _centre(model: DeepFM, catalogue: SyntheticCatalogue) -> None:
    """Move the mean logit near 0, in coarse steps that rounding cannot upset: a random ReLU net is far from it."""
    users = catalogue.raw("user", 0, min(BIAS_PAIRS, catalogue.users))
    items = catalogue.raw("item", 0, min(BIAS_PAIRS, catalogue.items))
    user = Encoder(catalogue.schema, "user").encode_many(users, [None] * len(users))
    item = Encoder(catalogue.schema, "item").encode_many(items, [None] * len(items))
    n_B = np.arange(BIAS_PAIRS)
    slots = [array[n_B % len(array)] for array in (*user, *item)]
    mean = float(model(*map(torch.from_numpy, slots)).double().mean())
    model.bias.fill_(-round(mean / BIAS_STEP) * BIAS_STEP)
