"""`python -m tests.training.training_process FOLDER [--resume] [--pause S]`: trains alone or under torchrun.

Writes the losses and the weights it ends with to FOLDER/result-<rank>.pt.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from app.training.architectures import ModelConfig
from app.training.distributed import join_process_group
from app.training.evaluation.predict import predict
from app.training.loop.checkpoint import Checkpoint
from app.training.loop.epochs import ProgressUpdate
from app.training.loop.trainer import Trainer
from app.training.loop.trainer_config import TrainerConfig
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.preprocessing.test_preprocessing_fit import some_data

ROWS = 3000


def main(folder: Path, *, resume: bool, pause: float) -> None:
    torch.set_num_threads(1)
    preprocessing, train, validation = made_up()

    def report(step: ProgressUpdate) -> None:
        time.sleep(pause)

    with join_process_group() as group:
        config = TrainerConfig(batch_size=64, seed=1, epochs=6, patience=6)
        model = ModelConfig("deepfm", seed=1).build(preprocessing)
        checkpoint = Checkpoint(folder / "checkpoint.pt", every_seconds=0.05, resume=resume)
        fitted = Trainer(config, model, preprocessing).fit(
            train, validation, report, checkpoint=checkpoint, group=group
        )
        losses = [(epoch.train_loss, epoch.validation_loss) for epoch in fitted.epochs]
        ended = {"losses": losses, "weights": model.state_dict(), "logits": predict(model, validation)}
        torch.save({**ended, "labels": validation.labels_N}, folder / f"result-{group.rank}.pt")


def made_up() -> tuple[object, ExpandedRows, ExpandedRows]:
    data = some_data(ROWS)
    hour, noise = data.user["hour"].to_numpy(), np.random.default_rng(0).random(ROWS)
    data.labels_N[:] = (hour < 12) ^ (noise < 0.25)
    train, validation = data.take(np.arange(2400)), data.take(np.arange(2400, ROWS))
    encoded = encode(train)
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    return preprocessing, expand(preprocessing, encoded), expand(preprocessing, encode(validation))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        Path(arguments[0]),
        resume="--resume" in arguments,
        pause=float(arguments[arguments.index("--pause") + 1]) if "--pause" in arguments else 0.0,
    )
