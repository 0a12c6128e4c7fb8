"""The library and Python agree on every structure they share, and a difference is noticed before anything is called."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import app
from app.native import bindings, layout
from app.native.layout import CONSTANTS, STRUCTURES, check_layout, declared_layout

COMPILED = bindings.compiled_layout(bindings.library)


def fields_of(structure: type[ctypes.Structure]) -> list[tuple[str, type]]:
    return [(name, kind) for name, kind, *_ in structure._fields_]


def changed(structure: type[ctypes.Structure], fields: list[tuple[str, type]]) -> dict[str, int]:
    """The declared layout with other fields in one structure."""
    other = type(structure.__name__, (ctypes.Structure,), {"_fields_": fields})
    return declared_layout([other if each is structure else each for each in STRUCTURES])


def test_both_sides_declare_the_same() -> None:
    assert declared_layout() == COMPILED
    check_layout(COMPILED, declared_layout())
    assert {f"sizeof({structure.__name__})" for structure in STRUCTURES} <= COMPILED.keys()
    assert COMPILED["offsetof(TopMlp, output_weight)"] % ctypes.sizeof(ctypes.c_void_p) == 0
    assert COMPILED["sizeof(IndexEntry)"] == 16, "two int64, as app.features.item_index allocates them"


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.__name__)
def test_a_changed_field_is_caught(structure: type[ctypes.Structure]) -> None:
    fields = fields_of(structure)
    renamed = [("other", fields[0][1]), *fields[1:]]
    swapped = [fields[-1], *fields[1:-1], fields[0]]
    narrower = [(fields[0][0], ctypes.c_int8), *fields[1:]]
    longer = [*fields, ("other", ctypes.c_int64)]
    for other in (renamed, swapped, narrower, longer, fields[:-1]):
        with pytest.raises(ImportError, match=rf"{structure.__name__}.*build it again: `make setup`"):
            check_layout(COMPILED, changed(structure, other))


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_changed_constant_is_caught(name: str) -> None:
    with pytest.raises(ImportError, match=f"{name} is 77 in Python and {CONSTANTS[name]} in the library"):
        check_layout(COMPILED, declared_layout(constants={**CONSTANTS, name: 77}))


def test_every_enum_member_is_compared() -> None:
    names = {f"ISA_{isa.name}" for isa in layout.Isa} | {f"TRANSFORM_{each.name}" for each in layout.Transform}
    assert names <= COMPILED.keys()


@pytest.mark.parametrize(("library", "message"), [(None, "is missing"), (b"\x7fELF", "is missing or is another")])
def test_without_a_library_the_import_says_how_to_build_it(tmp_path: Path, library: bytes | None, message: str) -> None:
    package = tmp_path / "app"
    shutil.copytree(Path(app.__file__).parent / "native", package / "native", ignore=shutil.ignore_patterns("*.so"))
    (package / "__init__.py").touch()
    if library is not None:
        (package / "native/library.so").write_bytes(library)
    command = [sys.executable, "-c", "import app.native.bindings"]
    failed = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert "setup.py -q build_ext --inplace" in failed.stderr
