"""What `ctr train` and `ctr tune` take of a model's and a training's options, and the job that they make."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from app.errors import ConfigError

if TYPE_CHECKING:
    from app.training.job import JobConfig

TUNING = "Model and training (the defaults are chosen to win without tuning)"
OF_MODEL = {"dim": "dim", "hidden": "hidden", "dropout": "dropout"}
OF_TRAINER = {
    "batch_size": "batch_size",
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "l2": "table_l2",
    "id_dropout": "id_dropout",
    "device": "device",
    "precision": "precision",
}
"""Option to the field of the configuration."""


def job_config(model: str, seed: int, split: Literal["auto", "time", "random"] = "auto", **given: Any) -> JobConfig:
    """Defaults with what was said on top; None means that nothing was. Raises ConfigError."""
    from app.models import MODELS
    from app.training.architectures import ModelConfig
    from app.training.data.split import SplitConfig
    from app.training.job import JobConfig
    from app.training.loop.trainer_config import TrainerConfig
    from app.training.preprocessing.preprocessing_fit import PreprocessingFit

    said = {option: value for option, value in given.items() if value is not None}
    shape = {field: said[option] for option, field in OF_MODEL.items() if option in said}
    if isinstance(shape.get("hidden"), str):
        shape["hidden"] = widths(shape["hidden"])
    for option in shape if model in MODELS else ():
        if option not in MODELS[model].options():
            raise ConfigError(f"--{option}: {model} has none; leave it out")
    rest = {"calibration": said["calibration"]} if "calibration" in said else {}
    architecture = ModelConfig(name=model, seed=seed, **shape)
    training = {"table_l2": architecture.table_l2} | {field: said[o] for o, field in OF_TRAINER.items() if o in said}
    return JobConfig(
        model=architecture,
        trainer=TrainerConfig(seed=seed, **training),
        split=SplitConfig(kind=split, seed=seed),
        preparation=PreprocessingFit(**({"min_count": said["min_count"]} if "min_count" in said else {})),
        **rest,
    )


def widths(text: str) -> tuple[int, ...]:
    """`128,64` as numbers. Raises ConfigError."""
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise ConfigError(f"--hidden {text}: expected widths such as 128,64") from None


def quiet_threads(count: int) -> None:
    """Before the first import of torch."""
    # Measured on two busy cores: two threads that spin while they wait train 1,500 rows/s, one thread 40,000. OpenMP
    # reads its policy when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    torch.set_num_threads(count)
