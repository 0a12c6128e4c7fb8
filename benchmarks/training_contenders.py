"""The contenders of the training benchmark, each a function that trains an epoch and returns its number of rows."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from app.models import build
from app.models.preprocessing import Preprocessing
from app.training.loop.epochs import EpochLoop
from app.training.loop.train_step import TrainStep
from app.training.loop.trainer_config import TrainerConfig
from app.training.optim.rowwise_rmsprop import RowWiseRmspropConfig
from app.training.preprocessing.expand import ExpandedRows
from benchmarks.training_data import Columns, as_rows

DIM, HIDDEN = 10, (128, 128)
Contender = Callable[[], int]
SKLEARN_ROWS = 4096


def ours(data: Columns, batch: int, *, regularised: bool) -> Contender:
    """Return DeepFM with batch norm and dropout, our default, or with the default network of deepctr-torch."""
    preprocessing, rows = as_rows(data)
    extra: dict[str, Any] = {} if regularised else {"dropout": 0.0, "batch_norm": False}
    return epochs_of(preprocessing, rows, batch, **extra)


def epochs_of(preprocessing: Preprocessing, rows: ExpandedRows, batch: int, **options: Any) -> Contender:
    """Return DeepFM with default settings on these rows; `options` are the model's."""
    config = TrainerConfig(batch_size=batch)
    model = build("deepfm", preprocessing, dim=DIM, hidden=HIDDEN, **options)
    table = RowWiseRmspropConfig(config.learning_rate, config.table_l2, config.averaging)
    loop = EpochLoop(config, TrainStep(model, preprocessing, table), preprocessing, rows, None, None)

    def epoch() -> int:
        loop.state.batch = 0
        loop.train_epoch()
        return len(rows.labels_N)

    return epoch


def deepctr(data: Columns, batch: int) -> Contender:
    """Return deepctr-torch's DeepFM without metrics and without progress, its fastest form."""
    # Its import asks a package index for newer versions, in a thread that prints what it finds.
    quiet = types.ModuleType("deepctr_torch.utils")
    quiet.check_version = lambda version: None  # type: ignore[attr-defined]
    sys.modules.setdefault("deepctr_torch.utils", quiet)
    inputs = importlib.import_module("deepctr_torch.inputs")
    models = importlib.import_module("deepctr_torch.models")
    features = [inputs.SparseFeat(name, count, embedding_dim=DIM) for name, count in data.distinct.items()]
    features += [inputs.DenseFeat(name, 1) for name in data.numbers]
    model = models.DeepFM(features, features, dnn_hidden_units=HIDDEN, task="binary")
    model.compile("adam", "binary_crossentropy", metrics=[])
    columns = {**data.categories, **data.numbers}

    def epoch() -> int:
        with contextlib.redirect_stdout(io.StringIO()):
            model.fit(dict(columns), data.labels, batch_size=batch, epochs=1, verbose=0)
        return len(data)

    return epoch


def sklearn_mlp(data: Columns, batch: int) -> Contender:
    """Return scikit-learn's MLPClassifier over one-hot categories: the same layers, no factorisation machine."""
    from scipy import sparse
    from sklearn.neural_network import MLPClassifier

    rows = min(SKLEARN_ROWS, len(data))
    offsets = np.cumsum([0, *data.distinct.values()])
    codes = np.stack([codes[:rows] for codes in data.categories.values()], 1) + offsets[:-1]
    ones = sparse.csr_matrix(
        (np.ones(codes.size, np.float32), codes.reshape(-1), np.arange(rows + 1) * codes.shape[1]),
        shape=(rows, int(offsets[-1])),
    )
    x = sparse.hstack([ones, np.stack([column[:rows] for column in data.numbers.values()], 1)]).tocsr()
    model = MLPClassifier(HIDDEN, batch_size=batch, learning_rate_init=1e-3)
    labels = data.labels[:rows]

    def epoch() -> int:
        model.partial_fit(x, labels, classes=np.array([0.0, 1.0]))
        return rows

    return epoch
