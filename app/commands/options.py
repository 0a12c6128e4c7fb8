"""What `ctr train` and `ctr tune` take of a model's and a training's options, and the job that they make."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Literal

import typer

from app.errors import ConfigError

if TYPE_CHECKING:
    from app.training.job import JobConfig

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
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


def widths(text: str, example: str = "128,64") -> tuple[int, ...]:
    """Read `--hidden`, comma-separated widths. Raises ConfigError, with the example, for anything else."""
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise ConfigError(f"--hidden {text}: expected widths such as {example}") from None


def interval_seconds(text: str) -> float:
    """Read `--every`: `90s`, `30m`, `6h` or `1d`, in seconds. Raises typer.BadParameter for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not match or float(match[1]) == 0:
        raise typer.BadParameter(f"{text!r}: expected a time such as 90s, 30m, 6h or 1d", param_hint="--every")
    return float(match[1]) * UNIT_SECONDS[match[2]]


def quiet_threads(count: int) -> None:
    """Before the first import of torch."""
    # Measured on two busy cores: two threads that spin while they wait train 1,500 rows/s, one thread 40,000. OpenMP
    # reads its policy when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    torch.set_num_threads(count)
