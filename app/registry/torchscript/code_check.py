"""Refuse a program before anything of it runs, if it is not made of operators that only compute.

TorchScript can write files, print and call whatever libraries register. Its stored source has Python's syntax, so it is
parsed, never executed, and every name that it uses has to be an operator of `operators`, or a class, function, method
or attribute of the program's own. What TorchScript might read otherwise than Python is refused, as is code that would
run while it is loaded.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator

import torch

from app.registry.torchscript.archive import Archive
from app.registry.torchscript.operators import BUILTINS, OPERATORS, PRIMITIVES
from app.runtime.thread_pacer import throttle

MAX_CODE_BYTES = 4 << 20
"""The largest of the fourteen models has 57 thousand."""
REMEMBERED = 64
"""Codes that passed and are not parsed again: those of the latest versions, which mostly share theirs."""
_definition = re.compile(r"^(?=class |def )", re.MULTILINE)
_file = re.compile(r"code/[\w./]+\.py")


class CodeCheck:
    """Checks the code of archives, and remembers what passed. Any thread may call it."""

    def __init__(self) -> None:
        self._passed: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, archive: Archive) -> None:
        """Check the code of an archive. Raises ValueError, which names what it may not do."""
        sources = _sources(archive)
        digest = hashlib.sha256("\0".join(f"{name}\0{source}" for name, source in sources.items()).encode()).digest()
        if digest not in self._passed:
            _check(sources)
            with self._lock:
                self._passed[digest] = None
                if len(self._passed) > REMEMBERED:
                    self._passed.popitem(last=False)


def _sources(archive: Archive) -> dict[str, str]:
    names = [name for name in archive.names() if name.startswith("code/") and not name.endswith(".debug_pkl")]
    if sum(archive.size(name) for name in names) > MAX_CODE_BYTES:
        raise ValueError(f"its code is larger than {MAX_CODE_BYTES >> 20} MB")
    if unknown := [name for name in names if not _file.fullmatch(name)]:
        raise ValueError(f"its code has a file {unknown[0][:100]!r}")
    try:
        return {name: archive.read(name).decode("ascii") for name in names}
    except UnicodeDecodeError as error:
        raise ValueError("its code is not ASCII") from error


def _check(sources: dict[str, str]) -> None:
    parts = [_nodes(part) for part in _parse(sources)]
    defined = {node.name for nodes in parts for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for name in defined:
        if name in ("__setstate__", "__getstate__"):
            raise ValueError(f"it defines {name}, which runs while it is loaded")
        # A method of a tensor is an operator, so one of this name would open a way to it.
        if _is_other_operator(name):
            raise ValueError(f"it defines {name}, the name of an operator")
    for nodes in parts:
        _check_names(nodes, defined)
        throttle()


def _parse(sources: dict[str, str]) -> Iterator[ast.Module]:
    """Parse a class or function at a time, so that no thread waits for the interpreter for long."""
    for file, source in sources.items():
        for definition in filter(str.strip, _definition.split(source)):
            try:
                yield ast.parse(definition)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                raise ValueError(f"{file} cannot be parsed: {error}") from error
            throttle()


def _nodes(part: ast.Module) -> list[ast.AST]:
    """Return what `ast.walk` yields, in half its time."""
    nodes: list[ast.AST] = [part]
    for node in nodes:  # which grows
        for value in vars(node).values():
            if isinstance(value, list):
                nodes.extend(item for item in value if isinstance(item, ast.AST))
            elif isinstance(value, ast.AST):
                nodes.append(value)
    return nodes


def _check_names(nodes: list[ast.AST], defined: set[str]) -> None:
    namespaces = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if isinstance(node, _FOREIGN):
            raise ValueError(f"it holds a statement that no model has: {type(node).__name__}")
        if isinstance(node, ast.Attribute):
            _check_attribute(node)
        elif isinstance(node, ast.Name) and node.id in ("torch", "ops") and id(node) not in namespaces:
            raise ValueError(f"it uses {node.id} as a value")
        elif isinstance(node, ast.Call):
            _check_call(node, defined)


_FOREIGN = (ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.With, ast.Try, ast.Lambda, ast.Await, ast.Yield)


def _check_attribute(attribute: ast.Attribute) -> None:
    """Refuse an operator that is not listed, whether it is called here or kept under another name."""
    name, space = attribute.attr, attribute.value
    if isinstance(space, ast.Name) and space.id == "torch" and name not in OPERATORS:
        raise ValueError(f"it may call torch.{name}")
    if isinstance(space, ast.Name) and space.id == "ops" and name != "prim":
        raise ValueError(f"it may call ops.{name}")
    is_primitive = isinstance(space, ast.Attribute) and isinstance(space.value, ast.Name) and space.value.id == "ops"
    if is_primitive and name not in PRIMITIVES:
        raise ValueError(f"it may call ops.prim.{name}")
    if not is_primitive and _is_other_operator(name):
        raise ValueError(f"it may call a tensor's {name}")


def _check_call(call: ast.Call, defined: set[str]) -> None:
    """Refuse a call by a name that is neither listed nor the program's own."""
    called = call.func
    if isinstance(called, ast.Name):
        # Locals such as `_0` stand for a submodule's method or for a function of the program.
        if called.id not in BUILTINS and not re.fullmatch(r"_\d+", called.id):
            raise ValueError(f"it may call {called.id}")
        if called.id == "getattr":
            name = call.args[1] if len(call.args) > 1 else None
            if not isinstance(name, ast.Constant) or _is_other_operator(str(name.value)):
                raise ValueError("it may get an operator by getattr")
    elif isinstance(called, ast.Attribute):
        if called.attr not in OPERATORS | PRIMITIVES | defined:
            raise ValueError(f"it may call a method {called.attr}")
    else:
        raise ValueError("it calls something that has no name")


@functools.lru_cache(4096)
def _is_other_operator(name: str) -> bool:
    """Tell whether TorchScript has an operator of this name that is not listed. All of a tensor's methods are some."""
    return name not in OPERATORS and bool(torch._C._jit_get_schemas_for_operator(f"aten::{name}"))
