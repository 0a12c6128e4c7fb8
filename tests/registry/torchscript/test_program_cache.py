"""A program copied from a known one is the one that its file holds; an archive that is not understood is loaded."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
import torch

from app.models import MODELS
from app.models.serving_form import serving_form
from app.registry.artifact.load import ArtifactLoader
from app.registry.artifact.self_check import replay_golden_requests
from app.registry.store.model_store import ModelStore
from app.registry.torchscript import program_cache
from app.registry.torchscript.loader import load_incrementally
from app.registry.torchscript.program_cache import ProgramCache
from app.registry.torchscript.scripting import script
from tests.factories import publish_tiny, tiny_model

CPU = torch.device("cpu")


class CountingLoader:
    """Calls `load_incrementally` and counts the calls."""

    def __init__(self) -> None:
        self.loads = 0

    def __call__(self, archive: bytes, device: torch.device) -> Any:
        self.loads += 1
        return load_incrementally(archive, device)


@pytest.fixture
def loader() -> CountingLoader:
    return CountingLoader()


def archive(seed: int, architecture: str = "deepfm") -> bytes:
    return script(serving_form(tiny_model(seed, architecture)))


def weights(program: Any) -> dict[str, torch.Tensor]:
    return dict([*program.named_parameters(), *program.named_buffers()])


@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_of_two_versions_the_second_is_not_loaded_and_has_its_own_weights(
    loader: CountingLoader, architecture: str
) -> None:
    cache = ProgramCache(loader)
    first, second = archive(0, architecture), archive(1, architecture)
    loaded = [cache.load(first, CPU), cache.load(second, CPU), cache.load(first, CPU)]
    assert loader.loads == 1
    differ = 0
    for raw, program in zip((first, second, first), loaded, strict=True):
        expected = weights(torch.jit.load(io.BytesIO(raw)))
        actual = weights(program)
        assert list(actual) == list(expected)
        for name, tensor in expected.items():
            assert torch.equal(actual[name], tensor), name
            assert actual[name].dtype == tensor.dtype
        differ += any(not torch.equal(actual[name], loaded[1].state_dict()[name]) for name in actual)
    assert differ == 2
    shared = {t.data_ptr() for t in weights(loaded[0]).values() if t.numel()}
    assert not shared & {t.data_ptr() for t in weights(loaded[2]).values() if t.numel()}


def test_another_architecture_is_loaded_and_the_oldest_is_forgotten(loader: CountingLoader) -> None:
    cache = ProgramCache(loader)
    names = sorted(MODELS)[: program_cache.CAPACITY + 1]
    for name in names:
        cache.load(archive(0, name), CPU)
    cache.load(archive(1, names[-1]), CPU)
    assert loader.loads == len(names)
    cache.load(archive(1, names[0]), CPU)
    assert loader.loads == len(names) + 1


def edited(raw: bytes, part: str, change: Any) -> bytes:
    """The archive with one of its files changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info, change(content) if info.filename.endswith(part) else content)
    assert out.getvalue() != raw
    return out.getvalue()


def test_a_program_with_other_code_is_never_made_of_the_known_one(loader: CountingLoader) -> None:
    cache, raw = ProgramCache(loader), archive(0)
    cache.load(raw, CPU)
    with zipfile.ZipFile(io.BytesIO(raw)) as files:  # its name depends on what this process scripted before
        [code] = [n for n in files.namelist() if n.endswith(".py") and b"class ServedDeepFM(" in files.read(n)]
    cache.load(edited(raw, code, lambda content: content + b"\n"), CPU)
    assert loader.loads == 2


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"PK" + raw[2:100]])
def test_what_is_no_archive_is_the_loaders_to_refuse(loader: CountingLoader, damage: Any) -> None:
    with pytest.raises(RuntimeError):
        ProgramCache(loader).load(damage(archive(0)), CPU)
    assert loader.loads == 1


def test_a_pickle_that_names_something_else_is_not_followed(loader: CountingLoader) -> None:
    cache, raw = ProgramCache(loader), archive(0)
    called = b"cbuiltins\nexec\n(X\x0c\x00\x00\x00raise OSErrort"
    with pytest.raises(RuntimeError):
        cache.load(edited(raw, "data.pkl", lambda content: content[:2] + called + b"R."), CPU)
    assert loader.loads == 1


def test_versions_that_share_code_score_as_they_were_published(store: ModelStore) -> None:
    loader = ArtifactLoader()
    loaded = [loader.load(store.path(publish_tiny(store, seed))) for seed in range(3)]
    for artifact in loaded:  # after the others were made
        replay_golden_requests(artifact)
