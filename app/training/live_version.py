"""Read from a version what training again needs: its options, its schema and the time of its newest rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import torch

from app.errors import ArtifactError, ConfigError
from app.features.schema import FeatureSchema
from app.features.times import seconds_of_number
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.manifest import Manifest
from app.registry.store.model_store import ModelStore
from app.training.data.dataset import Dataset
from app.training.data.schema_differences import schema_differences
from app.training.data.split import PARTS
from app.training.data.weight_columns import WeightColumns
from app.training.evaluation.comparison import compare, is_better, probabilities
from app.training.job_config import JobConfig
from app.training.job_results import JobResult


def config_of(manifest: Manifest) -> JobConfig:
    """Return the options that a version was trained with. Raises ConfigError if its manifest does not hold them."""
    try:
        if manifest.config["model"]["name"] != manifest.architecture:
            raise ValueError(f"it names another architecture than {manifest.architecture}")
        config = dict(manifest.config)
        if not torch.cuda.is_available():  # the device it was trained on is not kept
            config["trainer"] = {k: v for k, v in config["trainer"].items() if k not in ("device", "precision")}
        return msgspec.convert(config, JobConfig)
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"version {manifest.version} of {manifest.name} does not say how it was trained ({error}); "
            "publish one with `ctr train --publish` first"
        ) from error


def repeat_choice(config: JobConfig, manifest: Manifest) -> JobConfig:
    """Return a job with the options that a version was trained with, but for those that the user gave.

    Seed, device, calibration and whether to refit are the job's own. Nothing is searched for.

    Raises:
        ConfigError: the version is of another architecture, or does not say how it was trained.
    """
    chosen = config_of(manifest)
    if chosen.model.name != config.model.name:
        raise ConfigError(f"--recipe: that version is a {chosen.model.name}; add --model {chosen.model.name}")

    def own(options: object) -> dict[str, Any]:
        return {name: value for name, value in vars(options).items() if name in kept}

    kept = {*config.given, "seed", "device", "precision"}
    split = replace(config.split, validation=chosen.split.validation)
    return replace(
        config,
        model=replace(chosen.model, **own(config.model)),
        trainer=replace(chosen.trainer, **own(config.trainer)),
        preparation=replace(chosen.preparation, **own(config.preparation)),
        linear_share=config.linear_share if "linear_share" in kept else chosen.linear_share,
        split=split,
        effort=None,
    )


def check_same_schema(schema: FeatureSchema, live: Artifact) -> None:
    """Raise ConfigError, naming what differs, if rows are not encoded as the live version's were."""
    if schema.hash == live.schema_hash:
        return
    raise ConfigError(
        f"the schema is not that of the live version {live.version} ({schema_differences(schema, live.schema)}"
        "): leave out --features to go on with the live one, or train anew with `ctr train --publish`"
    )


def check_same_weighting(manifest: Manifest, weighting: WeightColumns) -> None:
    """Raise ConfigError where the live version's rows lacked negatives, and nothing is said of these rows."""
    rate = manifest.data.get("negative_rate")
    if rate is not None and weighting.negative_rate is None:
        raise ConfigError(
            f"version {manifest.version} was trained on {rate:g} of the rows without a click: say --negative-rate "
            f"{rate:g} of these rows too, or --negative-rate 1 if they are all"
        )


def newest_time(manifest: Manifest, part: str | None = None) -> float | None:
    """Return the time of the newest row of one part of the data, or of all parts; None if the manifest has none."""
    parts = [manifest.data.get(name) for name in ([part] if part else PARTS)]
    ends = [_as_number(summary["to"]) for summary in parts if isinstance(summary, dict) and "to" in summary]
    return max((end for end in ends if end is not None), default=None)


def seen_share(manifest: Manifest, test: Dataset) -> float:
    """Return the share of the test rows that are no newer than the newest that the live version was trained on.

    One that was fitted again has seen all rows, but for those of a test file.
    """
    newest = newest_time(manifest, None if manifest.config.get("refitted") else "train")
    if newest is None or test.timestamps_N is None:
        return 0.0
    return float((test.timestamps_N <= newest).mean())


def _as_number(time: Any) -> float | None:
    try:
        # Versions of before times were read as seconds have them in the unit of their file.
        return seconds_of_number(time) if isinstance(time, int | float) else datetime.fromisoformat(time).timestamp()
    except (TypeError, ValueError):
        return None


def is_better_than_live(store: ModelStore, schema: FeatureSchema, result: JobResult) -> bool:
    """Tell whether a trained model is better than the live version on the same test rows, beyond chance.

    A live version of another schema, or one that cannot be loaded, is not compared with. Where it was fitted again on
    these rows it looks better than it is, which only makes the comparison harder for the new one.
    """
    try:
        stable = store.pointer().stable
        live = None if stable is None else store.load(stable)
    except ArtifactError:
        return False
    if live is None or live.schema_hash != schema.hash:
        return False
    live_N = probabilities(live, result.test)
    new_N = result.test_probabilities_N.astype(np.float64)
    return is_better(compare("log_loss", result.test.labels_N, new_N, live_N, weighting=result.test.weighting))
