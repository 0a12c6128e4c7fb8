"""Export a trained model as a version: golden requests out of validation rows, the artifact, and a check of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ArtifactError
from app.features.fields import SIDES
from app.models.base import CtrModel
from app.registry.artifact.export import write
from app.registry.artifact.load import load
from app.registry.artifact.manifest import GoldenRequest
from app.training.data.dataset import Dataset, without_nan
from app.training.data.state_files import raw_features
from app.training.evaluation.comparison import probabilities
from app.training.evaluation.reliability import Floats
from app.training.preprocessing.encode import EncodedRows

GOLDEN_USERS, GOLDEN_ITEMS = 8, 20
MAX_DIFFERENCE = 1e-4
"""Largest difference of a probability between the model that was trained and the version that was read back."""


def golden_requests(data: Dataset, seed: int = 0) -> list[GoldenRequest]:
    """Draw up to GOLDEN_USERS real users with up to GOLDEN_ITEMS real items each: raw, without scores."""
    data = data.examples()
    rng = np.random.default_rng(seed)
    schema = data.schema
    user_id, item_id = (schema.layout(side).id_field for side in SIDES)
    users, items = without_nan(data.user), without_nan(data.item)
    positions = {field.raw_name for field in schema.fields if field.is_position}
    named = [name for name in users.columns if name not in positions]
    requests = []
    for number, row in enumerate(rng.choice(len(data), min(GOLDEN_USERS, len(data)), replace=False)):
        raw_user = users.row(int(row), named=True)
        chosen = items[rng.choice(len(data), min(GOLDEN_ITEMS, len(data)), replace=False)].to_dicts()
        requests.append(
            GoldenRequest(
                user_id=str(raw_user[user_id.raw_name]) if user_id else str(number),
                user=raw_features({name: raw_user[name] for name in named}, schema.side("user")),
                item_ids=[str(raw[item_id.raw_name]) if item_id else str(n) for n, raw in enumerate(chosen)],
                items=[raw_features(raw, schema.side("item")) for raw in chosen],
                scores=[],
            )
        )
    return requests


def export_version(folder: Path, model: CtrModel, validation: Dataset, *, name: str, **details: Any) -> None:
    """Write a version into an existing folder.

    Args:
        details: the manifest's `metrics`, `data`, `config` and `histograms`, and `extra_files`: names of further files
            in the folder that the manifest proves as well.
    """
    write(folder, model, validation.schema, name=name, golden=golden_requests(validation), **details)


def verify_export(folder: Path, test: EncodedRows, expected_N: Floats) -> None:
    """Read the version back and check that it gives each row the probability that was measured.

    Scores and not metrics are compared: where many rows have equal scores, as in a small catalogue, the last bit of a
    score decides an order and with it AUC or PR-AUC, by more than any bound worth having.

    Args:
        expected_N: calibrated probabilities of the trained model.

    Raises:
        ArtifactError: the version cannot be loaded, or a probability differs by more than `MAX_DIFFERENCE`.
    """
    loaded_N = probabilities(load(folder), test)
    differences_N = np.abs(loaded_N - expected_N)
    differences_N[np.isnan(differences_N)] = np.inf
    worst = int(differences_N.argmax())
    if differences_N[worst] > MAX_DIFFERENCE:
        raise ArtifactError(
            "scores",
            f"the exported model gives row {worst + 1} of the test part {loaded_N[worst]:.6f}, the trained one "
            f"{expected_N[worst]:.6f}",
        )
