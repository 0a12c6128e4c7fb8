"""Runs in an MLflow server as well: options, metrics, loss by epoch, and the report."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from app.errors import ConfigError

MISSING = "tracking needs `pip install ctr-serving[mlflow]`"
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Unless the environment says otherwise; by its own defaults a server that is gone is asked for minutes."""
MAX_VALUE = 500
"""Characters of a parameter that servers accept."""


class Tracking:
    """One run in an MLflow experiment, opened before training: a server that is not there costs no training."""

    def __init__(self, uri: str, experiment: str) -> None:
        """
        Args:
            uri: of the tracking server or store, `http://host:5000` or `sqlite:///runs/mlflow.db`.

        Raises:
            ConfigError: mlflow is not installed, or the server does not answer.
        """
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow
        except ImportError as error:
            raise ConfigError(f"--mlflow, CTR_MLFLOW_URI: {MISSING}") from error
        self._mlflow = mlflow
        try:
            # It prints where to look at runs; standard output is for a command's one document.
            with contextlib.redirect_stdout(sys.stderr):
                mlflow.set_tracking_uri(uri)
                mlflow.set_experiment(experiment)
        except Exception as error:
            raise ConfigError(f"--mlflow, CTR_MLFLOW_URI: {without_password(uri)}: {_line(error)}") from error

    def log(
        self,
        name: str,
        *,
        config: Mapping[str, Any],
        metrics: Mapping[str, Mapping[str, float]],
        epochs: list[dict[str, float]],
        tags: Mapping[str, str],
        files: list[Path],
    ) -> str:
        """Write the run; returns its id. Whatever the server raises, for the version is safe already."""
        mlflow = self._mlflow
        with contextlib.redirect_stdout(sys.stderr), mlflow.start_run(run_name=name) as run:
            mlflow.set_tags(dict(tags))
            mlflow.log_params({key: str(value)[:MAX_VALUE] for key, value in _flat(config)})
            for step, epoch in enumerate(epochs, start=1):
                mlflow.log_metrics(epoch, step=step)
            mlflow.log_metrics({f"{part}_{m}": v for part, of in metrics.items() for m, v in of.items() if v == v})
            for file in files:
                mlflow.log_artifact(str(file))
            return str(run.info.run_id)


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return found


def without_password(url: str) -> str:
    """A URL fit to be shown and written down."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{parts.hostname}{port}"))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0][:200]
