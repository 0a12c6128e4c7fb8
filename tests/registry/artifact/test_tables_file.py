"""Loaded tables stay as they were verified, whatever is done to their file; processes share one copy."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from app.errors import ArtifactError
from app.registry.artifact.load import load
from app.registry.artifact.manifest import PROGRAM, TABLES, FileProof
from app.registry.artifact.tables_file import load_tables
from app.registry.artifact.version_file import verified_slices
from app.runtime.thread_pacer import SLICE_BYTES
from tests.registry.lifecycle.lifecycles import score

ROOT = Path(__file__).parents[3]
PRIVATE, SHARED = 1 << 40, 0
LOAD = """
import fcntl, os, resource, sys
from pathlib import Path
from app.registry.artifact.manifest import FileProof
from app.registry.artifact.tables_file import load_tables
from app.observability.logs import configure_logging
configure_logging("error")
path, sha256, size, may_write = sys.argv[1:]
if may_write == "no":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
tables = load_tables(Path(path), FileProof(sha256, int(size)), 0)
links = {number: f"/proc/self/fd/{number}" for number in map(int, os.listdir("/proc/self/fd"))}
named = [number for number, link in links.items() if os.path.islink(link) and sha256 in os.readlink(link)]
# Memory that could not be filled is not sealed against writing; a thread may be about to close it.
print({os.fstat(number).st_ino for number in named if fcntl.fcntl(number, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE},
      float(tables["table_RE"].double().sum()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tables_file(tmp_path: Path) -> Path:
    """Tables like no others: what another test still holds in this process would be shared."""
    path = tmp_path / TABLES
    seed = int.from_bytes(os.urandom(4))
    save_file({"table_RE": torch.rand(20_000, 16, generator=torch.Generator().manual_seed(seed))}, path)
    return path


def proof_of(path: Path) -> FileProof:
    return FileProof(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


def truncate(path: Path) -> None:
    os.truncate(path, 4096)


def copy_over(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


@pytest.mark.parametrize("shared_from_bytes", [PRIVATE, SHARED])
@pytest.mark.parametrize("damage", [truncate, copy_over, os.remove])
def test_what_is_loaded_does_not_change(tables_file: Path, damage: object, shared_from_bytes: int) -> None:
    tables = load_tables(tables_file, proof_of(tables_file), shared_from_bytes)
    expected = tables["table_RE"].clone()
    damage(tables_file)  # type: ignore[operator]
    assert torch.equal(tables["table_RE"], expected)


def test_a_version_scores_on_when_all_its_files_are_cut_short(pristine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "version"))
    artifact = load(folder)
    expected = score(artifact)
    for file in (PROGRAM, TABLES):
        os.truncate(folder / file, 0)
    assert score(artifact) == expected


def test_a_file_that_is_cut_short_or_changed_while_it_is_read_is_refused(tables_file: Path) -> None:
    proof = proof_of(tables_file)
    assert proof.size > SLICE_BYTES
    for damage in (truncate, copy_over):
        good = tables_file.read_bytes()
        with tables_file.open("rb") as file:
            slices = verified_slices(file.fileno(), TABLES, proof)
            next(slices)
            damage(tables_file)
            with pytest.raises(ArtifactError) as refused:
                list(slices)
        assert refused.value.reason == "hash"
        tables_file.write_bytes(good)


class LoadingProcess:
    """A process that loads the tables, answers with the memory that it shares and their sum, and keeps them."""

    def __init__(self, stack: contextlib.ExitStack, path: Path, *, may_write: bool = True) -> None:
        proof = proof_of(path)
        command = [sys.executable, "-c", LOAD, str(path), proof.sha256, str(proof.size), "yes" if may_write else "no"]
        pipe = subprocess.PIPE
        self._process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True))
        stack.callback(self._process.kill)

    def answer(self) -> tuple[str, float]:
        assert self._process.stdout is not None
        inodes, total = self._process.stdout.readline().rsplit(maxsplit=1)
        return inodes, float(total)


def test_processes_share_one_copy_and_one_that_may_not_write_makes_its_own(tables_file: Path) -> None:
    expected = float(load_tables(tables_file, proof_of(tables_file), PRIVATE)["table_RE"].double().sum())
    with contextlib.ExitStack() as stack:
        alone = LoadingProcess(stack, tables_file, may_write=False)
        assert alone.answer() == ("set()", expected), "as in the gate's process"
        together = [LoadingProcess(stack, tables_file) for _ in range(2)]
        answers = {process.answer() for process in together}
        late = LoadingProcess(stack, tables_file, may_write=False)
        answers.add(late.answer())
    ((inodes, total),) = answers
    assert total == expected
    assert inodes != "set()"
    assert "," not in inodes
