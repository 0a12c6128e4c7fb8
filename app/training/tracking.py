"""Write runs to an MLflow server: options, metrics, loss by epoch, and the report."""

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
CLIENT_DEFAULTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Set unless the environment says otherwise: by MLflow's defaults it retries a server that is gone for minutes."""
MAX_VALUE = 500
"""Servers accept this many characters of a parameter."""


class Tracking:
    """Writes runs to an MLflow experiment, opened before training so that a missing server is noticed at once."""

    def __init__(self, uri: str, experiment: str) -> None:
        """Open the experiment.

        Args:
            uri: the tracking server or store, such as `http://host:5000` or `sqlite:///runs/mlflow.db`.

        Raises:
            ConfigError: mlflow is not installed, or the server does not answer.
        """
        for name, value in CLIENT_DEFAULTS.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow
        except ImportError as error:
            raise ConfigError(f"--mlflow, CTR_MLFLOW_URI: {MISSING}") from error
        self._mlflow = mlflow
        try:
            # MLflow prints where to look at runs; standard output is for a command's one document.
            with contextlib.redirect_stdout(sys.stderr):
                mlflow.set_tracking_uri(uri)
                mlflow.set_experiment(experiment)
        except Exception as error:
            raise ConfigError(f"--mlflow, CTR_MLFLOW_URI: {without_password(uri)}: {_first_line(error)}") from error

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
        """Write the run and return its id. Raises whatever the server raises; the version is safe already."""
        mlflow = self._mlflow
        with contextlib.redirect_stdout(sys.stderr), mlflow.start_run(run_name=name) as run:
            mlflow.set_tags(dict(tags))
            mlflow.log_params({key: str(value)[:MAX_VALUE] for key, value in _flatten(config)})
            for step, epoch in enumerate(epochs, start=1):
                mlflow.log_metrics(epoch, step=step)
            mlflow.log_metrics(
                {f"{part}_{m}": v for part, values in metrics.items() for m, v in values.items() if v == v}
            )
            for file in files:
                mlflow.log_artifact(str(file))
            return str(run.info.run_id)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """List a nested mapping's entries with keys joined by dots."""
    entries: list[tuple[str, Any]] = []
    for key, value in config.items():
        entries += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return entries


def without_password(url: str) -> str:
    """Mask the password of a URL, so that it can be shown and written down."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{parts.hostname}{port}"))


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [repr(error)])[0][:200]
