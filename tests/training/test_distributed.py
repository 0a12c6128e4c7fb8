"""Two processes under torchrun train the model that one process trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score

from app.training.distributed import ProcessGroup, join_process_group

ROOT = Path(__file__).parents[2]


def train(folder: Path, processes: int) -> list[dict[str, Any]]:
    folder.mkdir()
    run = [sys.executable, "-m"]
    if processes > 1:
        run += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [*run, "tests.training.training_process", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(processes)]


@pytest.mark.faults
def test_two_processes_are_one(tmp_path: Path) -> None:
    """AUC differs by at most 0.002 from one process's, and both processes end with the same weights."""
    alone = train(tmp_path / "one", 1)[0]
    first, second = train(tmp_path / "two", 2)
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
    assert first["losses"] == second["losses"]
    one, two = (roc_auc_score(result["labels"], result["logits"]) for result in (alone, first))
    assert one > 0.7
    assert two == pytest.approx(one, abs=0.002)
    assert len(first["losses"]) == len(alone["losses"])


@pytest.mark.parametrize(("count", "size"), [(10, 2), (11, 2), (3, 4), (0, 2), (512, 3)])
def test_parts_are_the_whole(count: int, size: int) -> None:
    parts = [ProcessGroup(rank, size).own_slice(count) for rank in range(size)]
    assert [n for part in parts for n in range(count)[part]] == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with join_process_group() as group:
        assert (group.rank, group.size, group.is_first) == (0, 1, True)
        tensor = torch.ones(3)
        group.sum_in_place(tensor)
        group.barrier()
        assert tensor.tolist() == [1, 1, 1]
        assert group.all_gather(tensor) == [tensor]
