"""The settings of a training run, whatever the model: their defaults win on the sparrow splits (docs/models.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from app.errors import ConfigError
from app.training.architectures import TABLE_L2


@dataclass(frozen=True)
class TrainerConfig:
    batch_size: int = 512
    """Rows a step, of all processes together."""
    epochs: int = 30
    """At most; early stopping usually ends it before."""
    learning_rate: float = 2e-3
    patience: int = 3
    """Epochs without a better validation log loss before it stops."""
    table_l2: float = TABLE_L2
    """Factor of the sum of squares of the whole table, in a loss that is a mean over the batch's rows."""
    id_dropout: float = 0.2
    """Share of rows whose user id is replaced by out-of-vocabulary, so that the model learns what to do without."""
    averaging: float = 0.99
    """Decay of the moving average of weights, which is what gets evaluated and kept; 0 keeps the last weights."""
    seed: int = 0
    device: str = "cpu"
    """Or cuda, cuda:1."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; bfloat16 pays off on a GPU. Weights are float32."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if self.device != "cpu" and not (self.device.split(":")[0] == "cuda" and torch.cuda.is_available()):
            raise ConfigError(f"device {self.device}: torch finds no such GPU here; train on the cpu")
