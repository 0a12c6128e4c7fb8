"""Writing a version leaves the model alone, and what cannot be served is not written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from app.errors import ArtifactError
from app.registry.artifact.export import write
from app.registry.artifact.manifest import (
    PROGRAM,
    TABLES,
)
from app.registry.artifact.manifest_file import read_manifest
from tests.factories import golden, small_schema, tiny_model, write_tiny


def test_writing_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = tiny_model(1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write(tmp_path, model, small_schema(), name="deepfm", golden=golden())
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_golden_scores_are_those_of_the_loaded_program(pristine: Path) -> None:
    manifest = read_manifest(pristine)
    assert len(manifest.golden) == 3
    for request in manifest.golden:
        assert len(request.scores) == len(request.item_ids)
        assert all(0 < score < 1 for score in request.scores)


def test_the_program_is_small_and_the_tables_beside_it(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    rows = tiny_model().table_RE.numel()
    assert (tmp_path / TABLES).stat().st_size > rows * 4
    program = torch.jit.load(str(tmp_path / PROGRAM))  # type: ignore[no-untyped-call]
    assert [len(program.table_RE), len(program.vocabulary_V)] == [1, 1]


def test_a_nan_model_is_not_even_written(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.table_RE[5, 2] = float("nan")
    with pytest.raises(ArtifactError) as refused:
        write(tmp_path, model, small_schema(), name="deepfm", golden=golden())
    assert refused.value.reason == "finite"
