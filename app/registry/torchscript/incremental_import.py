"""A program imported class by class, so that no thread waits for the interpreter longer than for one of them.

`torch.jit.load` holds the interpreter from the first line that it parses to the last that it compiles, 20 ms and more.
Its importer keeps what it compiled in a compilation unit, and reads from an archive only what the unit lacks. So an
archive is split into several of the same kind: one for each class, with the functions that it is the first to call, and
a last one with the rest, the tree of modules and their tensors. The interpreter is free between them.

The root of each is a module of ours with an attribute of the class's type: None in the first ones, the program in the
last. The type is optional, because the importer searches every module below the root for quantised convolutions as they
were stored in 2020, and that takes a third of a load.
"""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.jit import ScriptModule
from torch.jit._recursive import wrap_cpp_module

from app.registry.torchscript.archive import Archive, UnsupportedArchive
from app.runtime.thread_pacer import throttle

PAUSE_S = 0.0001
"""Slept between two parts, so that a thread that waits for the interpreter gets it; yielding for no time wakes none."""
_PROGRAM = "program"
_ROOT_SOURCE = """\
class Root(Module):
  __parameters__ = []
  __buffers__ = []
  training : bool
  program : Optional[{class_name}]
"""
_PICKLE_HEAD, _PICKLE_STOP, _PICKLED_NONE = b"\x80\x02", b".", b"N"
_definition = re.compile(r"^(?=class |def )", re.MULTILINE)
_definition_head = re.compile(r"class (\w+)\((?:Module|NamedTuple)\):|def (\w+)\(")
_qualified_name = re.compile(r"__torch__(?:\.\w+)+")
_pickled_class = re.compile(rb"\x80\x02c(__torch__[\w.]*)\n(\w+)\n")


def import_program(raw: bytes, device: torch.device) -> ScriptModule:
    """Load what `torch.jit.load` loads, except that errors of its methods do not name lines of the training code.

    Raises UnsupportedArchive, or what zipfile or the importer raise: `torch.jit.load` may still load it, or say what is
    wrong.
    """
    for part_root in import_parts(raw, device):
        root = part_root
        time.sleep(PAUSE_S)
        throttle()
    program: ScriptModule = wrap_cpp_module(root.getattr(_PROGRAM))  # type: ignore[no-untyped-call]
    return program


def import_parts(raw: bytes, device: torch.device) -> Iterator[Any]:
    """Import part by part, and yield the root of each; the last one holds the program."""
    unit = torch._C.CompilationUnit()
    for part in split_archive(raw):
        yield torch._C.import_ir_module_from_buffer(unit, part, device, {}, False)  # type: ignore[call-arg,arg-type]


def split_archive(raw: bytes) -> Iterator[bytes]:
    """Split an archive into parts, in the order in which they can be imported. Raises UnsupportedArchive."""
    archive = Archive(raw)
    members = {name: archive.read(name) for name in archive.names()}
    program_class = _pickled_class.match(members["data.pkl"])
    if program_class is None:
        raise UnsupportedArchive("the tree does not begin with a module")
    code = {name: members.pop(name) for name in [*members] if name.startswith("code/")}
    shared = {name: content for name, content in members.items() if not name.startswith("data")}
    for number, (class_name, sources) in enumerate(_ClassSources(code), 1):
        yield _part(number, shared | sources, class_name, _PICKLED_NONE)
    program = members["data.pkl"][len(_PICKLE_HEAD) : -len(_PICKLE_STOP)]
    yield _part(0, members, b".".join(program_class.groups()).decode(), program)


def _part(number: int, members: Mapping[str, bytes], class_name: str, program: bytes) -> bytes:
    """Make an archive of these members and a root, whose attribute is a pickled program of this class, or None."""
    root = f"part_{number}"  # the compilation unit takes each name once
    tree = b"".join((_PICKLE_HEAD, b"c__torch__.%b\nRoot\n)\x81}(" % root.encode(), _pickled_text("training"), b"\x89",
                     _pickled_text(_PROGRAM), program, b"ub", _PICKLE_STOP))  # fmt: skip
    source = _ROOT_SOURCE.format(class_name=class_name).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for name, content in {**members, f"code/__torch__/{root}.py": source, "data.pkl": tree}.items():
            new.writestr(f"archive/{name}", content)
    return out.getvalue()


def _pickled_text(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


class _ClassSources:
    """The classes of a program, each after those that it refers to.

    Iterating yields each class's name with, by file, its source and those of the functions that it is the first to
    call. Raises UnsupportedArchive if the code holds more than modules, named tuples and functions.
    """

    def __init__(self, code: Mapping[str, bytes]) -> None:
        self._source: dict[str, tuple[str, str]] = {}
        """The file and the text of each class and function."""
        self._functions: set[str] = set()
        self._done: set[str] = set()
        for file, raw in code.items():
            if not file.endswith(".py"):  # debug records: where in the training code a line was
                continue
            module = file.removeprefix("code/").removesuffix(".py").replace("/", ".")
            for source in filter(str.strip, _definition.split(raw.decode())):
                head = _definition_head.match(source)
                if head is None:
                    raise UnsupportedArchive(f"{file} holds more than modules, named tuples and functions")
                name = f"{module}.{head[1] or head[2]}"
                self._source[name] = file, source
                if head[2]:
                    self._functions.add(name)

    def __iter__(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        for name in self._source.keys() - self._functions:
            yield from self._with_dependencies(name)

    def _with_dependencies(self, name: str) -> Iterator[tuple[str, dict[str, bytes]]]:
        if name in self._done:
            return
        self._done.add(name)
        called = self._called_functions(name)
        for other in sorted({other for each in (name, *called) for other in self._references(each)} - self._functions):
            yield from self._with_dependencies(other)
        files: dict[str, bytes] = {}
        for each in (name, *(called - self._done)):
            file, source = self._source[each]
            files[file] = files.get(file, b"") + source.encode()
        self._done |= called
        yield name, files

    def _called_functions(self, name: str) -> set[str]:
        """Return the functions that a class calls, directly or through others."""
        called: set[str] = set()
        pending = [name]
        while pending:
            new_calls = (self._references(pending.pop()) & self._functions) - called
            called |= new_calls
            pending += new_calls
        return called

    def _references(self, name: str) -> set[str]:
        return {other for other in _qualified_name.findall(self._source[name][1]) if other in self._source}
