"""`ctr train` under torchrun: processes encode a shard each and train one model; an error is reported once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.features.loading.valkey_server import free_port
from tests.training.data.formats.test_tables import FEATURES

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--dataset", "table", "--features", "features.yaml", "--label", "clicked", "--split", "random", "--epochs", "3",
    "--batch-size", "256", "--calibration", "none", "--json",
    # Without batch norm and dropout, which see a process's part alone, nothing but rounding is left.
    "--model", "fm", "--id-dropout", "0",
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write features.yaml and `data`, three files of clicks with a bad row in the last; return their folder."""
    rng = np.random.default_rng(0)
    (tmp_path / "features.yaml").write_text(FEATURES)
    (tmp_path / "data").mkdir()
    for number in range(3):
        user, item, price = rng.integers(0, 40, 3000), rng.integers(0, 60, 3000), rng.integers(1, 100, 3000)
        clicked = rng.random(3000) < 1 / (1 + np.exp(-((user % 5) - 2 + (item % 3) - 1)))
        rows = [
            f"u{u},{u % 7},{i},{p},a|b{i % 4},{int(c)}" for u, i, p, c in zip(user, item, price, clicked, strict=True)
        ]
        bad = ["u1,1"] * (number == 2)
        text = "\n".join(["user,city,item,price,tags,clicked", *rows[:2000], *bad, *rows[2000:]])
        (tmp_path / "data" / f"{number}.csv").write_text(text)
    return tmp_path


def start(folder: Path, *torchrun: str, data: str = "data") -> subprocess.Popen[str]:
    command = [sys.executable, "-m"]
    if torchrun:
        command += ["torch.distributed.run", *torchrun, "-m"]
    folder.mkdir(exist_ok=True)
    for name in ("features.yaml", "data"):
        if not (folder / name).exists():
            (folder / name).symlink_to(folder.parent / name)
    return subprocess.Popen(
        [*command, "tests.training.train_large", "train", "--data", data, *OPTIONS],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "500"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.faults
def test_processes_and_machines_train_what_one_process_trains(data: Path) -> None:
    port = ("--master-addr", "127.0.0.1", "--master-port", str(free_port()), "--nproc-per-node", "1", "--nnodes", "2")
    runs = {
        "one": [start(data / "one")],
        "two": [start(data / "two", "--standalone", "--nproc-per-node", "2")],
        # Each has runs/encoded of its own, as machines without a shared folder have.
        "machines": [start(data / f"machine{rank}", *port, "--node-rank", str(rank)) for rank in (0, 1)],
    }
    aucs: dict[str, float] = {}
    for name, processes in runs.items():
        outputs = [process.communicate(timeout=900) for process in processes]
        for process, (_, err) in zip(processes, outputs, strict=True):
            assert process.returncode == 0, err[-3000:]
        aucs[name] = json.loads(outputs[0][0])["metrics"]["test"]["auc"]
        assert "1 bad rows left out (have not 6 columns; rows 8001)" in outputs[0][1]
        assert all(out == "" for out, _ in outputs[1:])
    assert aucs["one"] > 0.7
    assert aucs["two"] == pytest.approx(aucs["one"], abs=1e-4)
    assert aucs["machines"] == pytest.approx(aucs["one"], abs=1e-4)
    folders = [data / where / "runs" / "encoded" for where in ("one", "two", "machine0", "machine1")]
    arrays = [
        {file.name: file.read_bytes() for inside in folder.iterdir() for file in inside.glob("*.bin")}
        for folder in folders
    ]
    assert len(arrays[0]) == 6
    assert all(other == arrays[0] for other in arrays[1:])


@pytest.mark.faults
def test_an_error_in_one_shard_is_reported_once(data: Path) -> None:
    path = data / "data" / "2.csv"
    path.write_text(path.read_text() + "\nx" * 500)
    process = start(data / "two", "--standalone", "--nproc-per-node", "2")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert out == ""
    assert err.count("error:") == 1
    assert "bad rows left out (have not 6 columns; rows 8001, 9002, 9003" in err
    assert not [inside for inside in (data / "two" / "runs" / "encoded").iterdir() if inside.is_dir()]
