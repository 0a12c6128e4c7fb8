"""Hyper-parameters of a model, and the model they make."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass

import torch

from app.errors import ConfigError
from app.models import MODELS
from app.models.contract import CtrModel
from app.models.inputs import Preprocessing


@dataclass(frozen=True)
class ModelConfig:
    name: str = "deepfm"
    dim: int = 8
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if self.name not in MODELS:
            raise ConfigError(f"--model {self.name}: unknown; choose one of {', '.join(MODELS)}")
        if self.dim < 1 or not self.hidden or min(self.hidden) < 1:
            raise ConfigError("--dim and every width of --hidden must be 1 or more")

    def build(self, preprocessing: Preprocessing) -> CtrModel:
        """A model with fresh weights, the same for the same seed. A model is given the options it has."""
        torch.manual_seed(self.seed)
        architecture = MODELS[self.name]
        known = inspect.signature(architecture).parameters
        return architecture(preprocessing, **{key: value for key, value in asdict(self).items() if key in known})
