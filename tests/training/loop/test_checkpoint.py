"""A killed run goes on where it was and ends as one that was left alone; what is not its own checkpoint is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from app.errors import DataError
from app.training.loop.checkpoint import Checkpoint

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "tests.training.training_process"]


def train(folder: Path, *options: str) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    subprocess.run([*COMMAND, str(folder), *options], cwd=ROOT, check=True, timeout=900)
    result: dict[str, Any] = torch.load(folder / "result-0.pt", weights_only=True)
    return result


@pytest.mark.faults
def test_a_killed_run_ends_with_the_same_metrics(tmp_path: Path) -> None:
    alone = train(tmp_path / "alone")
    folder = tmp_path / "killed"
    folder.mkdir()
    kills = 0
    for written in (2, 3):  # killed twice, the second time after it went on
        command = [*COMMAND, str(folder), "--resume", "--pause", "0.06"]
        process = subprocess.Popen(command, cwd=ROOT)
        write_times: set[int] = set()
        deadline = time.monotonic() + 600
        while len(write_times) <= written and process.poll() is None and time.monotonic() < deadline:
            if (folder / "checkpoint.pt").exists():
                write_times.add((folder / "checkpoint.pt").stat().st_mtime_ns)
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 2
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "result-0.pt").exists()
    resumed = train(folder, "--resume")
    for (train_loss, validation_loss), (alone_train, alone_validation) in zip(
        resumed["losses"], alone["losses"], strict=True
    ):
        assert validation_loss == alone_validation
        assert train_loss == pytest.approx(alone_train, abs=1e-5)  # summed in other pieces
    assert all(torch.equal(resumed["weights"][name], tensor) for name, tensor in alone["weights"].items())


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a.pt"
    Checkpoint(path).write({"seed": 1, "rows": 10}, {"position": 3, "weights": torch.ones(2)})
    assert Checkpoint(path).read({"seed": 2}) is None  # nobody asked to go on
    state = Checkpoint(path, resume=True).read({"seed": 1, "rows": 10})
    assert state is not None
    assert state["position"] == 3
    with pytest.raises(DataError, match="of another run \\(seed differ\\)"):
        Checkpoint(path, resume=True).read({"seed": 2, "rows": 10})
    assert Checkpoint(tmp_path / "none.pt", resume=True).read({}) is None


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.pt"
    Checkpoint(path).write({}, {"weights": torch.ones(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match="not a whole checkpoint"):
        Checkpoint(path, resume=True).read({})


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        Checkpoint(tmp_path / "file" / "a.pt").write({}, {})
    Checkpoint(tmp_path / "a.pt").write({}, {})
    assert [path.name for path in tmp_path.iterdir() if path.name != "file"] == ["a.pt"]
