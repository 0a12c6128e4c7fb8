"""Who trains in the benchmark, each as a function that trains an epoch and says how many rows it took."""

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


def ours(given: Columns, batch: int, *, regularised: bool) -> Contender:
    """DeepFM; with the network that deepctr-torch has by default, or with batch norm and dropout as by our default."""
    preprocessing, rows = as_rows(given)
    extra: dict[str, Any] = {} if regularised else {"dropout": 0.0, "batch_norm": False}
    return epochs_of(preprocessing, rows, batch, **extra)


def epochs_of(preprocessing: Preprocessing, rows: ExpandedRows, batch: int, **options: Any) -> Contender:
    config = TrainerConfig(batch_size=batch)
    model = build("deepfm", preprocessing, dim=DIM, hidden=HIDDEN, **options)
    table = RowWiseRmspropConfig(config.learning_rate, config.table_l2, config.averaging)
    loop = EpochLoop(config, TrainStep(model, preprocessing, table), preprocessing, rows, None, None)

    def epoch() -> int:
        loop.state.batch = 0
        loop.train_epoch()
        return len(rows.labels_N)

    return epoch


def deepctr(given: Columns, batch: int) -> Contender:
    """deepctr-torch's DeepFM, without metrics and without progress, which is the fastest it goes."""
    # Its import asks a package index for newer versions, in a thread that prints what it finds.
    quiet = types.ModuleType("deepctr_torch.utils")
    quiet.check_version = lambda version: None  # type: ignore[attr-defined]
    sys.modules.setdefault("deepctr_torch.utils", quiet)
    inputs = importlib.import_module("deepctr_torch.inputs")
    models = importlib.import_module("deepctr_torch.models")
    features = [inputs.SparseFeat(name, count, embedding_dim=DIM) for name, count in given.distinct.items()]
    features += [inputs.DenseFeat(name, 1) for name in given.numbers]
    model = models.DeepFM(features, features, dnn_hidden_units=HIDDEN, task="binary")
    model.compile("adam", "binary_crossentropy", metrics=[])
    columns = {**given.categories, **given.numbers}

    def epoch() -> int:
        with contextlib.redirect_stdout(io.StringIO()):
            model.fit(dict(columns), given.labels, batch_size=batch, epochs=1, verbose=0)
        return len(given)

    return epoch


def sklearn_mlp(given: Columns, batch: int) -> Contender:
    """scikit-learn's MLPClassifier over one-hot categories: the same layers, without a factorisation machine."""
    from scipy import sparse
    from sklearn.neural_network import MLPClassifier

    rows = min(SKLEARN_ROWS, len(given))
    offsets = np.cumsum([0, *given.distinct.values()])
    codes = np.stack([codes[:rows] for codes in given.categories.values()], 1) + offsets[:-1]
    ones = sparse.csr_matrix(
        (np.ones(codes.size, np.float32), codes.reshape(-1), np.arange(rows + 1) * codes.shape[1]),
        shape=(rows, int(offsets[-1])),
    )
    x = sparse.hstack([ones, np.stack([column[:rows] for column in given.numbers.values()], 1)]).tocsr()
    model = MLPClassifier(HIDDEN, batch_size=batch, learning_rate_init=1e-3)
    labels = given.labels[:rows]

    def epoch() -> int:
        model.partial_fit(x, labels, classes=np.array([0.0, 1.0]))
        return rows

    return epoch
