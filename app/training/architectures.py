"""Build a model from its architecture and hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from app.errors import ConfigError
from app.models import build, model_class
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.models.user_class import is_user_class

NOMINAL_ROWS = 44_000
"""Number of training rows that defaults are for where the data is not known yet."""
MAX_TABLE_L2 = 0.05
"""A larger penalty does not help the smallest sets (docs/adr/0014)."""

SHAPE = ("dim", "hidden", "dropout")
"""Options that `ctr train` has an option of its own for."""


@dataclass(frozen=True)
class Family:
    """Holds what the optimiser needs to know of models of a kind."""

    learning_rate: float
    prior_strength: float
    """L2 factor of the table, times the number of training rows: the inverse of twice a Gaussian prior's variance. For
    logistic regression it is 1 / (2 C)."""
    tries_statistics: bool = True
    """Whether a search tries target statistics. Towers over-fit to them: they gain in the first epoch, by which they
    are judged, and end behind (lastfm42k, validation log loss of two seeds: 0.503, 0.512; without 0.485, 0.497)."""


DEEP = Family(2e-3, 400.0)
"""Networks with batch norm."""
FAMILIES = {
    "lr": Family(3e-2, 1.7),
    "fm": Family(1e-2, 5.0),
    "hofm": Family(1e-2, 5.0),
    "neural_cf_towers": Family(2e-3, 600.0, tries_statistics=False),
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
    own: dict[str, Any] = field(default_factory=dict)
    """Further options of a class of the user's own, by name."""

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown model or an option out of range."""
        for option, default in self.takes.items():
            if option in SHAPE and getattr(self, option) is None:
                object.__setattr__(self, option, default)
        object.__setattr__(self, "own", {name: self._own_option(name, value) for name, value in self.own.items()})
        if self.dim is not None and self.dim < 1:
            raise ConfigError("--dim must be 1 or more")
        if self.hidden is not None and (not self.hidden or min(self.hidden) < 1):
            raise ConfigError("every width of --hidden must be 1 or more")

    @property
    def takes(self) -> dict[str, Any]:
        """Return the options that the model takes, by name, with their defaults."""
        return model_class(self.name).options()

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
        options = {option: getattr(self, option) for option in SHAPE if option in self.takes}
        return build(self.name, preprocessing, **options, **self.own)

    def _own_option(self, name: str, value: Any) -> Any:
        """Return the value of an option of the user's class in the type of its default. Raises ConfigError."""
        options = {option: default for option, default in self.takes.items() if option not in SHAPE}
        if not is_user_class(self.name):
            raise ConfigError(f"--option {name}: it is for a class of your own, and {self.name} is none")
        if name not in options:
            shape = [f"--{option}" for option in SHAPE if option in self.takes]
            takes = [f"--option {option}={default}" for option, default in options.items()]
            raise ConfigError(f"--option {name}: {self.name} takes {', '.join([*shape, *takes]) or 'no options'}")
        default = options[name]
        if isinstance(default, float) and type(value) is int:
            return float(value)
        if isinstance(default, tuple) and isinstance(value, list | tuple):
            return tuple(value)
        if default is None or type(value) is type(default):
            return value
        kind = {tuple: "a list"}.get(type(default), f"a {type(default).__name__}")
        raise ConfigError(f"--option {name}={value}: expected {kind}, such as {default!r}")
