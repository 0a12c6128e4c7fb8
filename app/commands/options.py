"""Options that the training commands share, read as people write them, and the job that they make."""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.errors import ConfigError

if TYPE_CHECKING:
    from app.training.data.weight_columns import WeightColumns
    from app.training.job_config import JobConfig

Positive = Annotated[
    str | None,
    typer.Option(
        help="Label that is a click, or a threshold: 2, sold, '>=4'.", show_default="1, and true, yes and the like"
    ),
]
QuoteEscape = Annotated[
    str | None,
    typer.Option(
        "--escape",
        metavar="LETTER",
        help="What escapes a quote in a quoted cell: '\\' as Spark and Hive write it, or '\"'.",
        show_default="a quote; a file with backslashes before quotes is refused",
    ),
]
Weight = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="Column of a table that says how much a row counts.", show_default="all the same"
    ),
]
NegativeRate = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE|COLUMN",
        help="Share of the rows without a click that the data has, say 0.1, or a table's column of it.",
        show_default="1, all of them",
    ),
]
Impressions = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Table column that counts the impressions of a row, with --clicks.",
        show_default="none",
    ),
]
Clicks = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column that counts those of them with a click; there is no label.",
        show_default="none",
    ),
]
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
TUNING = "Model and training (the defaults are chosen to win without tuning)"
MODEL_FIELDS = {"dim": "dim", "hidden": "hidden", "dropout": "dropout"}
TRAINER_FIELDS = {
    "batch_size": "batch_size",
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "l2": "table_l2",
    "id_dropout": "id_dropout",
    "averaging": "averaging",
    "device": "device",
    "precision": "precision",
}
"""Map an option to the field of the configuration that it sets."""
JOB_FIELDS = ("calibration", "refit", "linear_share")
PREPARATION_FIELDS = ("min_count", "target_statistics")
ADAPTED_FIELDS = (*PREPARATION_FIELDS, "linear_share")
"""Options beside those of the model and the trainer that follow the data unless they are given."""


def job_config(model: str, seed: int, split: Literal["auto", "time", "random"] = "auto", **given: Any) -> JobConfig:
    """Make a job from the defaults with the given options on top; an option that is None was not given.

    Raises:
        ConfigError: the model has no such option, or a value does not fit.
    """
    from app.models import model_class
    from app.training.architectures import ModelConfig
    from app.training.data.split import SplitConfig
    from app.training.job_config import JobConfig
    from app.training.loop.trainer_config import TrainerConfig
    from app.training.preprocessing.preprocessing_fit import PreprocessingFit

    given = {option: value for option, value in given.items() if value is not None}
    shape = {field: given[option] for option, field in MODEL_FIELDS.items() if option in given}
    if isinstance(shape.get("hidden"), str):
        shape["hidden"] = widths(shape["hidden"])
    takes = model_class(model).options()
    for option in shape:
        if option not in takes:
            raise ConfigError(f"--{option}: {model} has none; leave it out")
    if given.get("linear_share") and not model_class(model).has_first_order:
        raise ConfigError(f"--linear-share: {model} has no first-order part to add a regression to; leave it out")
    own = dict(map(name_and_value, given.get("option", ())))
    architecture = ModelConfig(name=model, seed=seed, own=own, **shape)
    chosen = {field: given[option] for option, field in TRAINER_FIELDS.items() if option in given}
    training = {"table_l2": architecture.table_l2(), "learning_rate": architecture.family.learning_rate} | chosen
    return JobConfig(
        model=architecture,
        trainer=TrainerConfig(seed=seed, **training),
        split=SplitConfig(kind=split, seed=seed),
        preparation=PreprocessingFit(**{option: given[option] for option in PREPARATION_FIELDS if option in given}),
        effort=given.get("effort"),
        given=tuple(sorted({*shape, *chosen, *(given.keys() & {*ADAPTED_FIELDS}), *(["own"] if own else [])})),
        **{option: given[option] for option in JOB_FIELDS if option in given},
    )


def name_and_value(text: str) -> tuple[str, Any]:
    """Read `--option NAME=VALUE`; the value is JSON, or else text. Raises ConfigError without a name."""
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise ConfigError(f"--option {text}: expected NAME=VALUE, such as heads=4")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def weight_columns(
    weight: str | None, negative_rate: str | None, impressions: str | None, clicks: str | None
) -> WeightColumns:
    """Make what the options say of how much rows count. Raises ConfigError if they do not fit."""
    from app.training.data.weight_columns import WeightColumns

    rate: float | str | None = negative_rate
    if negative_rate is not None:
        with contextlib.suppress(ValueError):  # the name of a column
            rate = float(negative_rate)
    return WeightColumns(weight, rate, impressions, clicks)


def widths(text: str, example: str = "128,64") -> tuple[int, ...]:
    """Read `--hidden`, comma-separated widths. Raises ConfigError, with the example, for anything else."""
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise ConfigError(f"--hidden {text}: expected widths such as {example}") from None


def interval_seconds(text: str, option: str = "--every") -> float:
    """Read a time such as `90s`, `30m`, `6h` or `1d`, in seconds. Raises typer.BadParameter for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not match or float(match[1]) == 0:
        raise typer.BadParameter(f"{text!r}: expected a time such as 90s, 30m, 6h or 1d", param_hint=option)
    return float(match[1]) * UNIT_SECONDS[match[2]]


def quiet_threads(count: int) -> None:
    """Give torch and numpy this many threads, which wait without spinning. Call it before either is imported."""
    # Measured on two busy cores: two threads that spin while they wait train 1,500 rows/s, one thread 40,000; and a
    # product of a matrix and a vector by OpenBLAS, which spins whatever it is told, takes eight times the processor
    # time by two threads. Both libraries read their variable when they are loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(count))
    import torch

    torch.set_num_threads(count)
