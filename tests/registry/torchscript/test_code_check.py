"""What a program may do is checked before any of it runs: all models pass, what reaches outside does not."""

from __future__ import annotations

import ast
import io
import pickle
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.models import MODELS
from app.models.serving_form import serving_form
from app.registry.torchscript import code_check
from app.registry.torchscript.archive import Archive
from app.registry.torchscript.code_check import CodeCheck
from app.registry.torchscript.loader import ProgramLoader
from app.registry.torchscript.scripting import script
from tests.factories import tiny_model, with_statistics

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    """The members of a program's archive."""
    archive = Archive(script(serving_form(tiny_model())))
    return {name: archive.read(name) for name in archive.names()}


def code_file(members: dict[str, bytes]) -> str:
    """Return the name of a file of classes; torch adds a number where this process has scripted the class before."""
    return next(name for name in members if name.endswith(".py") and "side_input" in name)


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as new:
        for name, content in members.items():
            new.writestr(f"archive/{name}", content)
    return out.getvalue()


@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_every_model_passes(architecture: str) -> None:
    for preprocessing in (None, with_statistics()):
        CodeCheck()(Archive(script(serving_form(tiny_model(0, architecture, preprocessing)))))


def test_no_part_of_the_code_is_passed_over() -> None:
    for source in (Path(__file__), Path(ast.__file__), Path(torch.__file__)):
        tree = ast.parse(source.read_text())
        assert Counter(map(id, code_check._nodes(tree))) == Counter(map(id, ast.walk(tree)))


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        weighed: Tensor = nn.functional.scaled_dot_product_attention(x, x, x)
        return weighed * torch.softmax(x, 1) + nn.functional.normalize(x, dim=1)


PARTS = (
    *(nn.Linear(4, 4), nn.Bilinear(4, 4, 2), nn.Conv1d(4, 4, 1), nn.Embedding(5, 4), nn.Dropout(0.1), Attention()),
    *(nn.LayerNorm(4), nn.RMSNorm(4), nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.PReLU(), nn.LeakyReLU(), nn.GELU()),
    *(nn.SiLU(), nn.Mish(), nn.ELU(), nn.Hardswish(), nn.Softplus(), nn.GLU(), nn.AvgPool1d(2), nn.MaxPool1d(2)),
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_what_models_of_one_s_own_are_made_of_passes(part: nn.Module) -> None:
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(part.eval()), out)
    CodeCheck()(Archive(out.getvalue()))


class Writes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "stolen")
        return x


class Prints(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("here")
        return x


class Draws(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class RunsWhileLoaded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.training = False

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return 1, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        self.training = state[1]

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("module", "complaint"),
    [(Prints, "it may call print"), (Draws, "rand_like"), (RunsWhileLoaded, "runs while it is loaded")],
)
def test_a_program_that_does_more_is_refused(module: type[nn.Module], complaint: str) -> None:
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(module()), out)
    with pytest.raises(ValueError, match=complaint):
        ProgramLoader().load(out.getvalue(), CPU)


@pytest.mark.parametrize(
    "line",
    [
        'torch.save(x, "stolen")',
        'ops.aten.save(x, "stolen")',
        'x.save("stolen")',
        "_9 = x.save",
        '_9 = getattr(x, "save")',
        "_9 = torch",
        "_9 = ops",
        "_9 = torch.from_file",
        '_9 = torch.from_file("passwords")',
        'print("here")',
        '_9 = (x.sum)("here")("there")',
        '_9 = [x.add][0]("here")',
        "torch.manual_seed(3)",
        "import os",
        'with x: print("here")',
        "ops.image.read_file('passwords')",
        "ops.prim.Print('here')",
        'sys.exit("here")',
        'open("passwords")',
        '_9 = "caf\u00e9"',
        "_9 = ((",
    ],
)
def test_a_line_that_does_more_is_refused_before_it_runs(members: dict[str, bytes], line: str, tmp_path: Path) -> None:
    file = code_file(members)
    source = members[file].decode()
    head = next(text for text in source.splitlines() if text.strip().startswith("def "))
    injected = source.replace(head, f"  def score_all(self, x: Tensor) -> Tensor:\n    {line}\n    return x\n{head}", 1)
    with pytest.raises(ValueError, match=r"it (may|uses|calls|holds)|cannot be parsed|is not ASCII"):
        CodeCheck()(Archive(packed(members | {file: injected.encode()})))


def test_a_method_of_its_own_opens_no_operator(members: dict[str, bytes]) -> None:
    file = code_file(members)
    source = members[file].decode()
    head = next(text for text in source.splitlines() if text.strip().startswith("def "))
    own = f"  def save(self, x: Tensor) -> Tensor:\n    return x\n{head}"
    with pytest.raises(ValueError, match="defines save, the name of an operator"):
        CodeCheck()(Archive(packed(members | {file: source.replace(head, own, 1).encode()})))


def test_code_in_an_odd_place_is_refused(members: dict[str, bytes]) -> None:
    for name in ("code/__torch__/a b.py", "code/__torch__/a.txt"):
        with pytest.raises(ValueError, match="has a file"):
            CodeCheck()(Archive(packed(members | {name: b"def f():\n  return 1\n"})))


def test_what_would_unpack_to_much_more_is_refused_at_once(members: dict[str, bytes]) -> None:
    bomb = packed(members | {"data/99": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="would unpack to"):
        Archive(bomb)
    with pytest.raises(ValueError, match="code is larger than 4 MB"):
        CodeCheck()(Archive(packed(members | {"code/__torch__/a.py": b"#" * (5 << 20)})))


def test_members_of_one_name_are_refused(members: dict[str, bytes]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for name, content in members.items():
            new.writestr(f"archive/{name}", content)
        new.writestr(f"other/{code_file(members)}", b"def f():\n  return 1\n")
    with pytest.raises(ValueError, match="in it twice"):
        Archive(out.getvalue())


def test_what_is_not_an_archive_is_said(members: dict[str, bytes]) -> None:
    for raw in (b"", b"PK", pickle.dumps({}), packed(members)[:-30]):
        with pytest.raises(ValueError, match="no archive"):
            ProgramLoader().load(raw, CPU)


def test_code_that_passed_is_not_parsed_again(members: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    check, archive = CodeCheck(), Archive(packed(members))
    check(archive)
    monkeypatch.setattr("ast.parse", lambda source: pytest.fail("parsed again"))
    check(archive)
