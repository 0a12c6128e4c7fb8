"""A program loaded class by class is the one that `torch.jit.load` loads in one go."""

from __future__ import annotations

import io
import re
import zipfile
from enum import Enum
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from app.models import MODELS
from app.models.serving_form import serving_form
from app.registry.torchscript.archive import UnsupportedArchive
from app.registry.torchscript.incremental_import import import_program, split_archive
from app.registry.torchscript.loader import load_incrementally
from app.registry.torchscript.scripting import script
from tests.factories import tiny_model

CPU = torch.device("cpu")


def archive(architecture: str) -> bytes:
    return script(serving_form(tiny_model(0, architecture)))


def saved(program: Any) -> bytes:
    out = io.BytesIO()
    torch.jit.save(program, out)
    return out.getvalue()


def whole(raw: bytes) -> Any:
    return torch.jit.load(io.BytesIO(raw))  # type: ignore[no-untyped-call]


def graphs(program: Any) -> dict[str, str]:
    """Return the graph of each method of each module, without the places in source files."""
    return {
        f"{path}.{name}": re.sub(r" # .*", "", str(module._c._get_method(name).graph))
        for path, module in program.named_modules()
        for name in module._c._method_names()
    }


@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_every_model_is_what_it_is_in_one_go(architecture: str) -> None:
    raw = archive(architecture)
    imported, expected = import_program(raw, CPU), whole(raw)
    assert graphs(imported) == graphs(expected)
    assert [name for name, _ in imported.named_modules()] == [name for name, _ in expected.named_modules()]
    tensors = dict(imported.state_dict())
    assert list(tensors) == list(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensors[name], tensor), name
        assert tensors[name].dtype == tensor.dtype
    assert imported.training == expected.training


@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_no_two_classes_are_compiled_at_a_stretch(architecture: str) -> None:
    classes = []
    for piece in split_archive(archive(architecture)):
        with zipfile.ZipFile(io.BytesIO(piece)) as files:
            code = b"".join(files.read(name) for name in files.namelist() if name.startswith("archive/code/"))
        classes.append(len(re.findall(rb"^class ", code, re.MULTILINE)) - 1)  # without the root
    assert classes == [1] * (len(classes) - 1) + [0]
    assert len(classes) > 2


def deepest(x: Tensor) -> Tensor:
    return x * 2


def shared(x: Tensor) -> Tensor:
    return deepest(x) + 1


class One(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return shared(x)


class Other(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return deepest(shared(x))


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.other, self.one = Other(), One()

    def forward(self, x: Tensor) -> Tensor:
        return shared(self.other(self.one(x)))


def test_functions_that_several_classes_call_are_compiled_once() -> None:
    raw = saved(torch.jit.script(Both()))
    assert graphs(import_program(raw, CPU)) == graphs(whole(raw))
    assert import_program(raw, CPU)(torch.ones(2)).tolist() == Both()(torch.ones(2)).tolist()


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(3)


def test_constants_of_the_code_are_there() -> None:
    raw = saved(torch.jit.freeze(torch.jit.script(Constant().eval())))
    traced = saved(torch.jit.trace(Constant(), torch.ones(3)))  # type: ignore[no-untyped-call]
    for each in (raw, traced):
        assert import_program(each, CPU)(torch.ones(3)).tolist() == [1, 2, 3]


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class Tupled(nn.Module):
    def forward(self, x: Tensor) -> Pair:
        return Pair(x, x)


def test_named_tuples_keep_their_names() -> None:
    raw = saved(torch.jit.script(Tupled()))
    assert graphs(import_program(raw, CPU)) == graphs(whole(raw))
    assert import_program(raw, CPU)(torch.ones(1)).right.tolist() == [1]


class Sign(Enum):
    PLUS = 1
    MINUS = -1


class Enumerated(nn.Module):
    def forward(self, x: Tensor) -> Sign:
        return Sign.PLUS if bool(x.sum() > 0) else Sign.MINUS


def test_what_is_not_understood_is_loaded_in_one_go() -> None:
    raw = saved(torch.jit.script(Enumerated()))
    with pytest.raises(UnsupportedArchive, match="more than modules"):
        import_program(raw, CPU)
    assert load_incrementally(raw, CPU)(torch.ones(1)).name == "PLUS"


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"PK" + raw[2:100]])
def test_what_is_no_archive_is_refused_by_torch(damage: Any) -> None:
    with pytest.raises(RuntimeError):
        load_incrementally(damage(archive("fm")), CPU)
