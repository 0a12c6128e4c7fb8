"""The one way to a program: what it promises, when the accelerators are used, and whether they are still worth it."""

from __future__ import annotations

import io
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import app
from app.models import MODELS
from app.models.base import CtrModel
from app.models.serving_form import serving_form
from app.registry.torchscript import incremental_import, loader
from app.registry.torchscript.incremental_import import import_parts
from app.registry.torchscript.loader import TESTED_TORCH, ProgramLoader, load_whole
from app.registry.torchscript.program_cache import ProgramCache
from app.registry.torchscript.scripting import script
from app.registry.torchscript.served_program import ServedProgram, attach_tables
from tests.factories import tiny_model

CPU = torch.device("cpu")
UNTESTED = "9.9.9"


@pytest.fixture(scope="module")
def archive() -> bytes:
    return script(serving_form(tiny_model()))


def test_only_this_room_names_torchscript() -> None:
    """A model may say what is not compiled, `torch.jit.unused` and `is_scripting`; nothing else is said elsewhere."""
    package = Path(app.__file__).parent
    for file in package.rglob("*.py"):
        if file.is_relative_to(package / "registry/torchscript"):
            continue
        source = re.sub(r"torch\.jit\.(unused|is_scripting)\b", "", file.read_text())
        assert not re.search(r"torch\.jit|torch\._C|from torch import .*\bjit\b", source), file


@pytest.mark.parametrize("version", [*TESTED_TORCH, UNTESTED])
@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_a_program_has_all_that_is_served(architecture: str, version: str) -> None:
    model = serving_form(tiny_model(0, architecture))
    program = ProgramLoader(version).load(script(model), CPU)
    promised = {name for name in vars(ServedProgram) if not name.startswith("_")}
    assert {name for name in promised if not hasattr(program, name)} == set()
    assert set(CtrModel.required) <= promised
    assert not any(tensor.requires_grad for _, tensor in program.named_parameters())
    attach_tables(program, {name: getattr(model, name) for name in model.tables})
    assert program.table_RE.data_ptr() == model.table_RE.data_ptr()


def test_what_a_program_lacks_is_named(archive: bytes) -> None:
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), out)
    with pytest.raises(ValueError, match=r"it has no \['encode_user', 'encode_items'"):
        ProgramLoader().load(out.getvalue(), CPU)
    with pytest.raises(ValueError, match="it has no \\['other'\\]"):
        attach_tables(ProgramLoader().load(archive, CPU), {"other": torch.zeros(1)})


def test_with_an_untested_torch_the_plain_way_is_taken(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> Iterator[object]:
        raise AssertionError("a function that is not public was called")

    monkeypatch.setattr(incremental_import, "import_parts", unavailable)
    monkeypatch.setattr(ProgramCache, "load", unavailable)
    monkeypatch.setattr(torch._C, "_jit_set_profiling_mode", unavailable)
    untested = ProgramLoader(UNTESTED)
    assert not untested.accelerated
    assert untested.load(archive, CPU).calibration_2.tolist() == pytest.approx([0.7, -0.4])
    with pytest.raises(AssertionError, match="not public"):
        ProgramLoader().load(archive, CPU)


def test_this_torch_is_a_tested_one() -> None:
    """Once this fails, run the tests below with the new version, and add it to TESTED_TORCH or delete what it broke."""
    assert ProgramLoader().accelerated, f"add {torch.__version__} to TESTED_TORCH in {loader.__file__}"


def least_cpu_s(call: Callable[[], object], turns: int = 7) -> float:
    """Processor time of the fastest turn, which other processes on the machine hardly change."""
    best = float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for _ in range(turns):
            began = time.thread_time()
            call()
            best = min(best, time.thread_time() - began)
    return best


def longest_part_s(archive: bytes) -> float:
    parts, longest = import_parts(archive, CPU), 0.0
    while True:
        began = time.thread_time()
        if next(parts, None) is None:
            return longest
        longest = max(longest, time.thread_time() - began)


def test_the_accelerators_still_pay(archive: bytes) -> None:
    """Measured: 24 ms in one go, 8 ms for the longest class, 2 to 4 ms for a copy of a known program."""
    whole_s = least_cpu_s(lambda: load_whole(archive, CPU))
    part_s = min(longest_part_s(archive) for _ in range(7))
    assert part_s < 0.6 * whole_s, f"{part_s * 1e3:.1f} of {whole_s * 1e3:.1f} ms: delete incremental_import"
    cache = ProgramCache(load_whole)
    cache.load(archive, CPU)
    copy_s = least_cpu_s(lambda: cache.load(archive, CPU))
    assert copy_s < 0.6 * whole_s, f"{copy_s * 1e3:.1f} of {whole_s * 1e3:.1f} ms: delete program_cache"
    print(f"{whole_s * 1e3:.1f} ms in one go, {part_s * 1e3:.1f} the longest part, {copy_s * 1e3:.1f} a copy")
