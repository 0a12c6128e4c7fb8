"""Build a model from its architecture and hyper-parameters."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from app.errors import ConfigError
from app.models import MODELS, build
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing

TABLE_L2 = 9e-3
"""Weight of the sum of squares of the table in the loss, chosen on the validation part of SparrowRecSys' samples."""
TABLE_L2_OF = {"lr": 1e-4, "fm": 1e-3, "hofm": 1e-3, "neural_cf_towers": 1.4e-2}
"""The weights of models for which another was better, chosen likewise. Models without a network have little to over-fit
with: under `deepfm`'s weight `fm` and `hofm` fall behind `lr`, and `lr` loses 0.007 AUC (docs/models.md)."""


@dataclass(frozen=True)
class ModelConfig:
    """Says which model to build. An option that is None takes the default, or stays None if the model lacks it."""

    name: str = "deepfm"
    dim: int | None = None
    hidden: tuple[int, ...] | None = None
    dropout: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown model or an option out of range."""
        if self.name not in MODELS:
            raise ConfigError(f"--model {self.name}: unknown; choose one of {', '.join(MODELS)}")
        for option, default in MODELS[self.name].options().items():
            if option in asdict(self) and getattr(self, option) is None:
                object.__setattr__(self, option, default)
        if self.dim is not None and self.dim < 1:
            raise ConfigError("--dim must be 1 or more")
        if self.hidden is not None and (not self.hidden or min(self.hidden) < 1):
            raise ConfigError("every width of --hidden must be 1 or more")

    @property
    def table_l2(self) -> float:
        """Return the weight of the L2 term that suits this architecture."""
        return TABLE_L2_OF.get(self.name, TABLE_L2)

    def build(self, preprocessing: Preprocessing) -> CtrModel:
        """Build the model with fresh weights, which are the same for the same seed."""
        torch.manual_seed(self.seed)
        options = {key: value for key, value in asdict(self).items() if key in MODELS[self.name].options()}
        return build(self.name, preprocessing, **options)
