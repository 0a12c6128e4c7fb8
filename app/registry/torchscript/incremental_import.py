"""A program loaded class by class, so that nobody waits for the interpreter longer than for one of them.

`torch.jit.load` holds it from the first line that it parses to the last that it compiles, 20 ms and more. Its importer
keeps what it compiled in a compilation unit, and asks an archive only for what is not there yet. So an archive is taken
apart here into several of the same kind: one for each class, with the functions that it is the first to call, and at
last one with all that is left, the tree of modules and their tensors. The interpreter is free between them.

The root of each is a module of ours that has an attribute of the class's type: nothing in the first ones, the program
in the last. The type is optional, because the importer looks through every module below the root for quantised
convolutions as they were stored in 2020, and that takes a third of a load.
"""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch.jit._recursive import wrap_cpp_module

from app.runtime.thread_pacer import throttle

FREE_S = 0.0001
"""Slept between two pieces, so that whoever waits for the interpreter has it: letting go for no time wakes nobody."""
_HELD = "held"
_ROOT = """\
class Root(Module):
  __parameters__ = []
  __buffers__ = []
  training : bool
  held : Optional[{name}]
"""
_PROTO, _STOP = b"\x80\x02", b"."
_definition = re.compile(r"^(?=class |def )", re.MULTILINE)
_head = re.compile(r"class (\w+)\(Module\):|def (\w+)\(")
_name = re.compile(r"__torch__(?:\.\w+)+")
_kind = re.compile(rb"\x80\x02c(__torch__[\w.]*)\n(\w+)\n")


class Unusual(Exception):
    """Something in an archive that is not understood here."""


def load(archive: bytes, device: torch.device) -> Any:
    """What `torch.jit.load` returns, but that errors of its methods do not name lines of the training code.

    Raises Unusual, or what zipfile or the importer raise: `torch.jit.load` may still load it, or say what is wrong.
    """
    unit = torch._C.CompilationUnit()
    for piece in _pieces(archive):
        root: Any = torch._C.import_ir_module_from_buffer(unit, piece, device, {}, False)  # type: ignore[call-arg,arg-type]
        time.sleep(FREE_S)
        throttle()
    return wrap_cpp_module(root.getattr(_HELD))  # type: ignore[no-untyped-call]


def _pieces(archive: bytes) -> Iterator[bytes]:
    """In the order in which they can be imported. Raises Unusual."""
    with zipfile.ZipFile(io.BytesIO(archive)) as stored:
        files = {name.partition("/")[2]: stored.read(name) for name in stored.namelist()}
    program = _kind.match(files["data.pkl"])
    if program is None:
        raise Unusual("the tree does not begin with a module")
    code = {name: files.pop(name) for name in [*files] if name.startswith("code/")}
    common = {name: content for name, content in files.items() if not name.startswith("data")}
    for number, (name, sources) in enumerate(_Classes(code), 1):
        yield _archive(number, common | sources, name, b"N")
    yield _archive(0, files, b".".join(program.groups()).decode(), files["data.pkl"][len(_PROTO) : -len(_STOP)])


def _archive(number: int, files: dict[str, bytes], name: str, held: bytes) -> bytes:
    """Files, and a root that has a pickled object, or none, in the place of one of that class."""
    root = f"piece_{number}"  # the compilation unit takes each name once
    tree = b"".join((_PROTO, b"c__torch__.%b\nRoot\n)\x81}(" % root.encode(), _text("training"), b"\x89",
                     _text(_HELD), held, b"ub", _STOP))  # fmt: skip
    own = {f"code/__torch__/{root}.py": _ROOT.format(name=name).encode(), "data.pkl": tree}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for file, content in (files | own).items():
            new.writestr(f"archive/{file}", content)
    return out.getvalue()


def _text(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


class _Classes:
    """The classes of a program by name, each after those it refers to; and by file, its source and that of the
    functions that it is the first to call. Raises Unusual."""

    def __init__(self, code: dict[str, bytes]) -> None:
        self._source: dict[str, tuple[str, str]] = {}
        self._functions: set[str] = set()
        self._done: set[str] = set()
        for file, raw in code.items():
            if not file.endswith(".py"):  # where in the training code a line was
                continue
            module = file.removeprefix("code/").removesuffix(".py").replace("/", ".")
            for source in filter(str.strip, _definition.split(raw.decode())):
                head = _head.match(source)
                if head is None:
                    raise Unusual(f"{file} holds more than modules and functions")
                name = f"{module}.{head[1] or head[2]}"
                self._source[name] = file, source
                if head[2]:
                    self._functions.add(name)

    def __iter__(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        for name in self._source.keys() - self._functions:
            yield from self._with_those_before(name)

    def _with_those_before(self, name: str) -> Iterator[tuple[str, dict[str, bytes]]]:
        if name in self._done:
            return
        self._done.add(name)
        called = self._called(name)
        for other in sorted({named for one in (name, *called) for named in self._named(one)} - self._functions):
            yield from self._with_those_before(other)
        files: dict[str, bytes] = {}
        for one in (name, *(called - self._done)):
            file, source = self._source[one]
            files[file] = files.get(file, b"") + source.encode()
        self._done |= called
        yield name, files

    def _called(self, name: str) -> set[str]:
        """Functions called by a class, or by those functions."""
        found: set[str] = set()
        due = [name]
        while due:
            further = (self._named(due.pop()) & self._functions) - found
            found |= further
            due += further
        return found

    def _named(self, name: str) -> set[str]:
        return {other for other in _name.findall(self._source[name][1]) if other in self._source}
