"""A candidate beside the live version: the same schema, the same newest rows, and whether it may take its place."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from app.errors import ConfigError
from app.features.schema import FeatureSchema
from app.features.slots import Slots
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.manifest import Manifest
from app.training.data.dataset import Dataset
from app.training.data.split import PARTS
from app.training.evaluation.metrics import evaluate
from app.training.job import JobConfig
from app.training.preprocessing.encode import EncodedRows
from app.training.publish import CHECK_ROWS

Metric = Literal["log_loss", "auc"]
Floats = npt.NDArray[np.float64]


def config_of(manifest: Manifest) -> JobConfig:
    """The choices the live version was trained with. Raises ConfigError where it does not say."""
    try:
        if manifest.config["model"]["name"] != manifest.architecture:
            raise ValueError(f"it names another architecture than {manifest.architecture}")
        config = dict(manifest.config)
        if not torch.cuda.is_available():  # where it was trained is no choice to keep
            config["trainer"] = {k: v for k, v in config["trainer"].items() if k not in ("device", "precision")}
        return msgspec.convert(config, JobConfig)
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"version {manifest.version} of {manifest.name} does not say how it was trained ({error}); "
            "publish one with `ctr train --publish` first"
        ) from error


def same_schema(schema: FeatureSchema, live: Artifact) -> None:
    """Raises ConfigError, naming what differs, where rows are not encoded as the live version's were."""
    if schema.hash == live.schema_hash:
        return
    ours, theirs = ({f.name: f for f in s.fields} for s in (schema, live.schema))
    parts = {
        "new": ours.keys() - theirs.keys(),
        "gone": theirs.keys() - ours.keys(),
        "changed": {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]},
    }
    said = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in parts.items() if names)
    raise ConfigError(
        f"the schema is not that of the live version {live.version} ({said or 'their order or crosses differ'}): leave "
        "out --features to go on with the live one, or train anew with `ctr train --publish`"
    )


def probabilities(artifact: Artifact, examples: EncodedRows) -> Floats:
    """What a version would answer for these rows, [N]."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(examples.labels_N), CHECK_ROWS):
            chunk = slice(start, start + CHECK_ROWS)
            sides = [Slots(side.keys[chunk], side.values[chunk]) for side in (examples.user, examples.item)]
            parts.append(artifact.score_pairs(*sides).cpu().numpy())
    return np.concatenate(parts).astype(np.float64)


def compare(
    metric: Metric,
    labels_N: npt.NDArray[np.float32],
    new_N: Floats,
    live_N: Floats,
    groups_N: npt.NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Metrics of both, the gain, and how far the gain in log loss could be chance: its standard error, row by row."""
    new, old = (evaluate(labels_N, p_N, groups_N) for p_N in (new_N, live_N))
    sign = -1.0 if metric == "log_loss" else 1.0
    losses = [-np.log(np.where(labels_N == 1, p_N, 1 - p_N).clip(1e-12)) for p_N in (live_N, new_N)]
    return {
        "metric": metric,
        "rows": len(labels_N),
        "candidate": new,
        "live": old,
        "gain": sign * (new[metric] - old[metric]),
        "log_loss_gain_error": float((losses[0] - losses[1]).std() / np.sqrt(len(labels_N))),
    }


def shortfall(evaluation: dict[str, Any], live: int) -> str:
    """Why the candidate is not good enough; empty where it is."""
    gain, least, metric = (evaluation[key] for key in ("gain", "min_gain", "metric"))
    if gain >= least:  # not for NaN
        return ""
    figures = [f"{evaluation[who][metric]:.5f}" for who in ("candidate", "live")]
    name = {"auc": "AUC", "log_loss": "log loss"}[metric]
    return (
        f"not published: on the newest {evaluation['rows']:,} rows its {name} is {figures[0]}, that of version {live} "
        f"{figures[1]}: a gain of {gain:+.5f}, less than the {least:+.5f} of --min-gain"
    )


def newest_of(manifest: Manifest, part: str | None = None) -> float | None:
    """Time of the newest row a version was trained on (`train`), or had at all; None where it does not say."""
    known = [manifest.data.get(name) for name in ([part] if part else PARTS)]
    ends = [_number(one["to"]) for one in known if isinstance(one, dict) and "to" in one]
    return max((end for end in ends if end is not None), default=None)


def seen_share(manifest: Manifest, test: Dataset) -> float:
    """Share of the test rows that are no newer than the newest the live version was trained on."""
    newest = newest_of(manifest, "train")
    if newest is None or test.timestamps_N is None:
        return 0.0
    return float((test.timestamps_N <= newest).mean())


def _number(at: Any) -> float | None:
    try:
        return float(at) if isinstance(at, int | float) else datetime.fromisoformat(at).timestamp()
    except (TypeError, ValueError):
        return None
