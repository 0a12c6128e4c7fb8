"""Every setting, in one frozen table, whose parts are in `app.setting_groups`.

The command line comes first, then the environment (`CTR_*`), then `.env`, then the default given there. Blanks and line
ends around a value do not belong to it, and an empty value stands for the default.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import ConfigError
from app.setting_groups.access import AccessSettings
from app.setting_groups.connections import ConnectionSettings
from app.setting_groups.events import EventSettings
from app.setting_groups.exploration import ExplorationSettings
from app.setting_groups.feature_store import FeatureStoreSettings
from app.setting_groups.gate import GateSettings
from app.setting_groups.model_store import ModelStoreSettings
from app.setting_groups.processes import ProcessSettings
from app.setting_groups.requests import RequestSettings
from app.setting_groups.scoring import ScoringSettings
from app.setting_groups.trials import TrialSettings
from app.setting_types import FOR_PUBLISHING


class Settings(
    FeatureStoreSettings,
    ModelStoreSettings,
    GateSettings,
    TrialSettings,
    AccessSettings,
    ProcessSettings,
    ScoringSettings,
    RequestSettings,
    ConnectionSettings,
    EventSettings,
    ExplorationSettings,
    BaseSettings,
):
    """The settings of a process, read once at its start. `load_settings` builds it and explains what is wrong."""

    model_config = SettingsConfigDict(env_prefix="CTR_", env_file=".env", frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _trim(cls, raw: dict[str, Any]) -> dict[str, Any]:
        trimmed = {name: value.strip() if isinstance(value, str) else value for name, value in raw.items()}
        return {name: value for name, value in trimmed.items() if value != ""}


def publishing_settings() -> list[str]:
    """Return the names of the settings that are marked FOR_PUBLISHING."""
    return [name for name, field in Settings.model_fields.items() if field.json_schema_extra == FOR_PUBLISHING]


def load_settings(**overrides: Any) -> Settings:
    """Read the settings, with the command line's values on top; None and "" stand for a value that was not given.

    Raises ConfigError with one line per bad setting, which names the environment variable to change.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None and value != ""})
    except ValidationError as error:
        lines = [
            f"CTR_{'_'.join(str(part) for part in problem['loc'][:1]).upper()}: "
            + problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigError("\n".join(lines)) from error
