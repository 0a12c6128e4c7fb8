"""The Job that trains the first version, run as Kubernetes runs it: a read-only folder and a user whom nobody knows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml

from app.registry.store.model_store import ModelStore

ROOT = Path(__file__).parents[1]
JOB = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "first-version.yaml").read_text())
SCHEMA = """\
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: item_id, entity: item, type: categorical, id: true}
"""
UNKNOWN = "54321"
TIMEOUT_S = 600


@pytest.fixture
def mounts() -> Iterator[dict[str, Path]]:
    """Make the folders that the Job mounts, and a working folder in which nobody may write."""
    root = Path(tempfile.mkdtemp())  # pytest's folders are its own user's alone
    root.chmod(0o755)
    folders = {name: root / name for name in ("srv/data", "srv/model_store", "tmp", "work")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        folder.chmod(0o777)
    rows = pl.DataFrame({"user_id": [f"u{n % 17}" for n in range(600)], "item_id": [f"i{n % 23}" for n in range(600)]})
    rows = rows.with_columns(clicked=pl.Series([n * n // 7 % 2 for n in range(600)]), at=pl.int_range(600))
    rows.write_parquet(folders["srv/data"] / "clicks.parquet")
    (folders["srv/data"] / "features.yaml").write_text(SCHEMA)
    folders["work"].chmod(0o555)
    yield folders
    folders["work"].chmod(0o755)
    shutil.rmtree(root)


def as_nobody_known() -> list[str]:
    """Return the words that run a program as a user without a name, who may read all and write only where he is let."""
    if os.geteuid() or not shutil.which("setpriv"):
        return []  # whoever runs the tests cannot become another user, but is none of root's powers
    capability = "+dac_read_search"  # the interpreter may lie in root's home
    limits = [f"--{name}-caps={capability}" for name in ("inh", "ambient")]
    return [
        "setpriv",
        f"--reuid={UNKNOWN}",
        f"--regid={UNKNOWN}",
        "--clear-groups",
        *limits,
        f"--bounding-set={capability}",
    ]


@pytest.mark.faults
def test_it_publishes_with_nothing_writable_but_its_mounts(mounts: dict[str, Path]) -> None:
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    places = {"srv": mounts["srv/data"].parent, "tmp": mounts["tmp"]}
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(mounts["tmp"]),
        "MPLCONFIGDIR": str(mounts["tmp"] / "matplotlib"),
        "CTR_MODEL_STORE": str(mounts["srv/model_store"]),
        "CTR_DATA_DIR": str(mounts["tmp"] / "ctr"),
        "CTR_MODEL": "deepfm",
        "OMP_NUM_THREADS": "1",
    }
    # Kubernetes puts variables of the container where an argument names them.
    words = [re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], word) for word in container["args"]]
    arguments = [re.sub("=/(srv|tmp)/", lambda found: f"={places[found[1]]}/", word) for word in words]
    program = [*as_nobody_known(), sys.executable, "-c", "from app.cli import main; main()"]

    def run(*more: str) -> str:
        ended = subprocess.run(
            [*program, *arguments, *more], cwd=mounts["work"], env=environment, text=True, timeout=TIMEOUT_S,
            check=False, capture_output=True,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""
        return ended.stderr

    said = run("--effort=quick", "--epochs=1", "--no-refit")
    assert "Published as stable" in said
    store = ModelStore(mounts["srv/model_store"], "deepfm")
    assert store.pointer().stable == 1
    assert list(mounts["work"].iterdir()) == []
    if os.geteuid() or as_nobody_known():
        assert "cannot be written to: what this run keeps goes to" in said
    assert "version 1 of deepfm is live: nothing to do" in run(), "it may be applied again"
    assert store.versions() == [1]
