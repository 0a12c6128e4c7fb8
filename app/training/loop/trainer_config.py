"""Hold the settings of training that all models share.

The defaults are for sets of some ten thousand rows; `app.training.recipe` adapts them to the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from app.errors import ConfigError
from app.training.architectures import DEEP, NOMINAL_ROWS


@dataclass(frozen=True)
class TrainerConfig:
    """Says how a model is trained."""

    batch_size: int = 512
    """Number of rows of a step, summed over all processes."""
    epochs: int = 30
    """The largest number of epochs; early stopping usually ends training before."""
    learning_rate: float = DEEP.learning_rate
    patience: int = 3
    """Number of epochs without a better validation log loss after which training ends."""
    patience_steps: int = 100
    """Number of steps that must have passed as well: epochs of few rows have few steps."""
    table_l2: float = DEEP.prior_strength / NOMINAL_ROWS
    """Factor of the sum of squares of the whole table, in a loss that is a mean over the batch's rows."""
    id_dropout: float = 0.2
    """Share of rows whose user id is replaced by out-of-vocabulary, so that the model learns to score new users."""
    averaging: float = 0.99
    """Decay of the moving average of weights, which is evaluated and kept; with 0 the weights themselves are."""
    seed: int = 0
    device: str = "cpu"
    """Device by torch's name: `cpu`, `cuda` or `cuda:1`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward and backward pass; bfloat16 pays off on a GPU. Weights are always float32."""

    def __post_init__(self) -> None:
        """Raise ConfigError if torch finds no such device."""
        if self.device != "cpu" and not (self.device.split(":")[0] == "cuda" and torch.cuda.is_available()):
            raise ConfigError(f"device {self.device}: torch finds no such GPU here; train on the cpu")
