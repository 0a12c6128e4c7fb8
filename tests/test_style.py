"""Checks that the code keeps to its own rules: one name for one thing, and fences around private machinery."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(ROOT.glob("app/**/*.py"))}
MAX_IGNORES = 17
"""`type: ignore` comments in app/; there were 35 before the rooms were drawn."""


def public_classes() -> Iterator[tuple[str, str]]:
    for path, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, path


def test_no_two_public_classes_share_a_name() -> None:
    places = defaultdict(list)
    for name, path in public_classes():
        places[name].append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_torchscript_is_named_in_its_room_alone() -> None:
    """Models may say which of their branches a program leaves out; all else of torch.jit is fenced."""
    for path, source in SOURCES.items():
        if path.startswith("app/registry/torchscript/"):
            continue
        code = "\n".join(ast.unparse(node) for node in ast.parse(source).body)
        code = re.sub(r'""".*?"""', "", code, flags=re.DOTALL)
        named = set(re.findall(r"\btorch\.(?:_C|jit)\b(?:\.\w+)?", code))
        allowed = {"torch.jit.unused", "torch.jit.is_scripting"} if path.startswith("app/models/") else set()
        assert named <= allowed, (path, named - allowed)


def test_types_are_ignored_seldom() -> None:
    ignored = [path for path, source in SOURCES.items() for _ in re.findall(r"#\s*type:\s*ignore", source)]
    assert len(ignored) <= MAX_IGNORES, ignored


def test_nothing_is_patched_into_an_object() -> None:
    """Attributes are set by name nowhere but where tables are attached to a program."""
    for path, source in SOURCES.items():
        if path.startswith("app/registry/torchscript/"):
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "setattr", f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and node.attr == "__dict__":
                raise AssertionError(f"{path}:{node.lineno}")
