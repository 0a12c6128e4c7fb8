"""From a trained model to a version: golden requests out of validation rows, the artifact, the model store."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.errors import ArtifactError, ConfigError
from app.features.fields import SIDES
from app.models.base import CtrModel
from app.publishing.publish import publish_staged
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.export import write
from app.registry.artifact.load import load
from app.registry.artifact.manifest import GoldenRequest
from app.registry.store.model_store import ModelStore
from app.training.data.dataset import Dataset, without_nan
from app.training.data.state_files import raw_features
from app.training.evaluation.reliability import Floats
from app.training.preprocessing.encode import EncodedRows

GOLDEN_USERS, GOLDEN_ITEMS = 8, 20
AGREEMENT = 1e-4
"""Largest difference of a probability between the model that was trained and the version that was read back."""
CHECK_ROWS = 8192
MAX_RUNS_A_SECOND = 100


@dataclass
class Destination:
    """Where a version is written, and once it is in a store its place and number there."""

    folder: Path
    version: int = 0


def golden_requests(data: Dataset, seed: int = 0) -> list[GoldenRequest]:
    """Up to 8 real users with up to 20 real items each, raw, without scores."""
    data = data.examples()
    rng = np.random.default_rng(seed)
    schema = data.schema
    user_id, item_id = (schema.layout(side).id_field for side in SIDES)
    users, items = without_nan(data.user), without_nan(data.item)
    requests = []
    for number, row in enumerate(rng.choice(len(data), min(GOLDEN_USERS, len(data)), replace=False)):
        raw_user = users.row(int(row), named=True)
        chosen = items[rng.choice(len(data), min(GOLDEN_ITEMS, len(data)), replace=False)].to_dicts()
        requests.append(
            GoldenRequest(
                user_id=str(raw_user[user_id.raw_name]) if user_id else str(number),
                user=raw_features(raw_user, schema.side("user")),
                item_ids=[str(raw[item_id.raw_name]) if item_id else str(n) for n, raw in enumerate(chosen)],
                items=[raw_features(raw, schema.side("item")) for raw in chosen],
                scores=[],
            )
        )
    return requests


def export(folder: Path, model: CtrModel, validation: Dataset, *, name: str, **details: Any) -> None:
    """Write a version into an existing folder. `details` are the manifest's metrics, data and config, and the names of
    files `beside` it in the folder that the manifest is to prove as well."""
    write(folder, model, validation.schema, name=name, golden=golden_requests(validation), **details)


def verify(folder: Path, test: EncodedRows, expected_N: Floats) -> None:
    """Read the version back and check that it gives each row the probability that was measured.

    Scores and not metrics are compared: where many rows have equal scores, as in a small catalogue, the last bit of a
    score decides an order and with it AUC or PR-AUC, by more than any bound worth having.

    Args:
        expected_N: calibrated probabilities of the trained model.

    Raises:
        ArtifactError: it cannot be loaded, or a probability differs by more than `AGREEMENT`.
    """
    found_N = _probabilities(load(folder), test)
    differences_N = np.abs(found_N - expected_N)
    differences_N[np.isnan(differences_N)] = np.inf
    worst = int(differences_N.argmax())
    if differences_N[worst] > AGREEMENT:
        raise ArtifactError(
            "scores",
            f"the exported model gives row {worst + 1} of the test part {found_N[worst]:.6f}, the trained one "
            f"{expected_N[worst]:.6f}",
        )


@contextlib.contextmanager
def published(store: ModelStore, admit: Callable[[int], object]) -> Iterator[Destination]:
    """A staging folder that becomes the store's stable version if the block succeeds.

    Args:
        admit: called with its number before it goes live; what it raises leaves the version without a label.
    """
    with store.staging() as staged:
        destination = Destination(staged)
        yield destination

        def gate(version: int) -> None:
            destination.version = version
            admit(version)

        publish_staged(store, staged, gate)
    destination.folder = store.path(destination.version)


@contextlib.contextmanager
def kept_aside(root: Path, model: str) -> Iterator[Destination]:
    """A new folder `<model>-<timestamp>` for a version that is not published; gone if the block fails."""
    folder = _run_folder(root, model)
    try:
        yield Destination(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _run_folder(root: Path, model: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for attempt in range(MAX_RUNS_A_SECOND):
        folder = root / (f"{model}-{stamp}" + (f"-{attempt}" if attempt else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from error
        return folder
    raise ConfigError(f"{root}: has {MAX_RUNS_A_SECOND} runs of this second")


def _probabilities(loaded: Artifact, examples: EncodedRows) -> np.ndarray[Any, np.dtype[np.float32]]:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(examples.labels_N), CHECK_ROWS):
            rows = slice(start, start + CHECK_ROWS)
            # Copied, because the slots of a large file are mapped and read-only, which torch does not know.
            chunk = [torch.from_numpy(np.array(part[rows])) for part in (*examples.user, *examples.item)]
            parts.append(loaded.program.probability(loaded.program(*chunk)))
    return torch.cat(parts).numpy()
