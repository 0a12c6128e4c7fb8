"""Programs compiled once: the versions that a retraining job publishes share their code and differ in their weights.

To load a program takes 20 ms of the interpreter, most of them spent on the code
(`app.registry.torchscript.incremental_import`), and its first calls compile it once more. A version whose code is known
is not loaded: the known program, already compiled, is copied and given the weights of the version's own file, in 2 ms
(docs/adr/0001). An archive with anything unusual in it is left to the loader.

`data.pkl`, the tree of modules, is unpickled by stand-ins that run nothing of it.
"""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.jit import ScriptModule

from app.registry.torchscript.archive import Archive, UnsupportedArchive

CAPACITY = 4
"""Programs remembered: the architectures that a service goes back and forth between."""
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class ProgramCache:
    """Keeps the latest programs and copies them for archives with the same code. It is not thread-safe."""

    def __init__(self, load: Callable[[bytes, torch.device], ScriptModule]) -> None:
        self._load = load
        self._programs: OrderedDict[tuple[str, str, str], ScriptModule] = OrderedDict()
        """Programs with empty tensors, by device, hash of the code, and tree."""

    def load(self, raw: bytes, device: torch.device) -> ScriptModule:
        """Return what the loader returns, its code shared with other programs. Raises what the loader raises."""
        try:
            archive = _ParsedArchive(raw)
        except Exception:  # the loader is to say what is wrong with it, if anything is
            return self._load(raw, device)
        key = str(device), archive.code_sha256, archive.tree
        if key not in self._programs:
            program = self._load(raw, device)
            _set_tensors(program, archive.tensors, lambda stored: stored.empty(device))
            self._programs[key] = program
            while len(self._programs) > CAPACITY:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        copied = copy.deepcopy(self._programs[key])
        _set_tensors(copied, archive.tensors, lambda stored: archive.tensor(stored).to(device))
        return copied


class _StoredTensor(NamedTuple):
    """A tensor of the tree: which member of the archive holds its bytes, and how they are laid out."""

    dtype: torch.dtype
    member: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def empty(self, device: torch.device) -> Tensor:
        return torch.empty((0,) * len(self.shape), dtype=self.dtype, device=device)


_Path = tuple[str, ...]


def _set_tensors(
    program: ScriptModule, tensors: list[tuple[_Path, _StoredTensor]], make: Callable[[_StoredTensor], Tensor]
) -> None:
    for path, stored in tensors:
        module: Any = program._c
        for name in path[:-1]:
            module = module.getattr(name)
        module.setattr(path[-1], make(stored))


class _ParsedArchive:
    """An archive's code as a hash, its tree as text, its tensors by their place in the tree.

    Raises UnsupportedArchive, or what zipfile and pickle raise.
    """

    def __init__(self, raw: bytes) -> None:
        self._archive = Archive(raw)
        code = hashlib.sha256()
        for name in sorted(self._archive.names()):
            if not name.startswith(("data/", "data.pkl", ".data/")):
                code.update(b"%d %d %b" % (len(name), self._archive.size(name), name.encode()))
                code.update(self._archive.read(name))
        self.code_sha256 = code.hexdigest()
        root = _TreeUnpickler(io.BytesIO(self._archive.read("data.pkl"))).load()
        if not isinstance(root, _Module):
            raise UnsupportedArchive("the tree is no module")
        self.tensors = list(_tensors(root, ()))
        self.tree = repr(root)
        """The tree without its tensors' contents and sizes."""

    def tensor(self, stored: _StoredTensor) -> Tensor:
        """Read a tensor into memory of its own."""
        raw = bytearray(self._archive.read(f"data/{stored.member}"))
        if not raw:
            return torch.empty(stored.shape, dtype=stored.dtype)
        return torch.frombuffer(raw, dtype=stored.dtype).as_strided(stored.shape, stored.stride, stored.offset)


class _Module:
    """The stand-in for an object of any class of the program."""

    class_name = ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __repr__(self) -> str:
        attributes = ", ".join(f"{name}={_describe(value)}" for name, value in sorted(self.state.items()))
        return f"{self.class_name}({attributes})"


def _describe(value: Any) -> str:
    """Return an attribute as text, tensors without contents. Raises UnsupportedArchive if it may hide a tensor."""
    if isinstance(value, _StoredTensor):
        return f"tensor({value.dtype}, {len(value.shape)})"
    if value is None or isinstance(value, bool | int | float | str | _Module):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(_describe_constant, value))})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{_describe_constant(k)}: {_describe_constant(v)}' for k, v in value.items())})"
    raise UnsupportedArchive(f"an attribute is a {type(value).__name__}")


def _describe_constant(value: Any) -> str:
    if isinstance(value, _StoredTensor | _Module):
        raise UnsupportedArchive("a container holds a tensor or a module")
    return _describe(value)


def _tensors(module: _Module, path: _Path) -> Iterator[tuple[_Path, _StoredTensor]]:
    for name, value in module.state.items():
        if isinstance(value, _StoredTensor):
            yield (*path, name), value
        elif isinstance(value, _Module):
            yield from _tensors(value, (*path, name))


class _TreeUnpickler(pickle.Unpickler):
    """Builds stand-ins only: nothing that the file names is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type(name, (_Module,), {"class_name": f"{module}.{name}"})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _stored_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return lambda value, _: value
        raise UnsupportedArchive(f"the tree names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, member, _, _ = pid
        if kind != "storage":
            raise UnsupportedArchive(f"the tree refers to a {kind}")
        return dtype, member


def _stored_tensor(
    storage: tuple[torch.dtype, str], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _StoredTensor:
    return _StoredTensor(storage[0], storage[1], offset, tuple(shape), tuple(stride))
