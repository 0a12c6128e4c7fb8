"""Build a model from its architecture and hyper-parameters."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from app.errors import ConfigError
from app.models import MODELS, build
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing

NOMINAL_ROWS = 44_000
"""Number of training rows that defaults are for where the data is not known yet."""
MAX_TABLE_L2 = 0.05
"""A larger penalty does not help the smallest sets (docs/adr/0014)."""


@dataclass(frozen=True)
class Family:
    """Holds what the optimiser needs to know of models of a kind."""

    learning_rate: float
    prior_strength: float
    """L2 factor of the table, times the number of training rows: the inverse of twice a Gaussian prior's variance. For
    logistic regression it is 1 / (2 C)."""


DEEP = Family(2e-3, 400.0)
"""Networks with batch norm."""
FAMILIES = {
    "lr": Family(3e-2, 1.7),
    "fm": Family(1e-2, 5.0),
    "hofm": Family(1e-2, 5.0),
    "neural_cf_towers": Family(2e-3, 600.0),
}
"""Models whose weights are the log odds themselves, and have to get as far as those in a few hundred steps; and one
that over-fits sooner. Chosen on validation parts of eleven sets (docs/adr/0014)."""


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
    def family(self) -> Family:
        """Return what the optimiser needs to know of this architecture."""
        return FAMILIES.get(self.name, DEEP)

    def table_l2(self, rows: int = NOMINAL_ROWS) -> float:
        """Return the L2 factor of the table that suits this architecture on so many training rows.

        The loss is a mean over rows, so the factor of a prior that stays what it is falls with their number.
        """
        return min(self.family.prior_strength / max(rows, 1), MAX_TABLE_L2)

    def build(self, preprocessing: Preprocessing) -> CtrModel:
        """Build the model with fresh weights, which are the same for the same seed."""
        torch.manual_seed(self.seed)
        options = {key: value for key, value in asdict(self).items() if key in MODELS[self.name].options()}
        return build(self.name, preprocessing, **options)
