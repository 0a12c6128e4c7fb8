"""What a shell proposes behind an option, where it can be said without importing what trains or serves."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

DATASETS = ("movielens", "sparrow", "criteo", "avazu", "libsvm", "libffm", "table", "served")
"""Those of `app.training.data.catalogue`, which takes seconds to import."""
ARCHITECTURES = (
    *("deepfm", "lr", "fm", "hofm", "embedding_mlp", "wide_deep", "neural_cf", "neural_cf_towers"),
    *("deepfm_sparrow", "deepfm_sparrow_v2", "nfm", "dcn", "finalmlp", "fusion"),
)
"""Those of `app.models`, which takes seconds to import."""
DEFAULTS = {"CTR_MODEL_STORE": "model_store", "CTR_MODEL": "deepfm"}
_assignment = re.compile(r"\s*(?:export\s+)?(CTR_\w+)\s*=\s*(.*?)\s*", re.IGNORECASE)


def datasets(incomplete: str) -> list[str]:
    """Return the formats of `--dataset` that begin so."""
    return [name for name in DATASETS if name.startswith(incomplete)]


def architectures(incomplete: str) -> list[str]:
    """Return the models of `ctr train --model` that begin so."""
    return [name for name in ARCHITECTURES if name.startswith(incomplete)]


def published_models(incomplete: str) -> list[str]:
    """Return the models in the model store that begin so."""
    return [name for name in _folders(Path(_setting("CTR_MODEL_STORE"))) if name.startswith(incomplete)]


def versions(incomplete: str) -> list[str]:
    """Return the versions of the model of the settings that begin so, the newest first."""
    folder = Path(_setting("CTR_MODEL_STORE")) / _setting("CTR_MODEL")
    numbers = sorted((int(name) for name in _folders(folder) if name.isdecimal()), reverse=True)
    return [str(number) for number in numbers if str(number).startswith(incomplete)]


def labels_and_versions(incomplete: str) -> list[str]:
    """Return the labels and the versions that begin so."""
    labels = [label for label in ("stable", "canary", "shadow") if label.startswith(incomplete)]
    return [*labels, *versions(incomplete)]


def _folders(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    return []


def _setting(name: str) -> str:
    """Return a setting of the environment or of `.env`, or its default."""
    if os.environ.get(name, "").strip():
        return os.environ[name].strip()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in Path(".env").read_text(encoding="utf-8").splitlines():
            match = _assignment.fullmatch(line)
            if match and match[1].upper() == name and match[2].strip("'\""):
                return match[2].strip("'\"")
    return DEFAULTS[name]
