"""Programs compiled once: the versions that a retraining job publishes share their code and differ in their weights.

To load a program takes 20 ms of the interpreter, most of them spent on the code
(`app.registry.torchscript.incremental_import`), and what is loaded is compiled once more by its first calls. A version
whose code is that of one before is a copy of that one's program with the weights of its own file: 2 ms, and warm
(docs/adr/0001). Whatever is out of the ordinary is loaded as ever.

The archive is a zip file: `code/` and `constants.pkl` are the program; `data.pkl` is the tree of modules, unpickled
here by stand-ins that run nothing of it; `data/N` are the bytes of its tensors.
"""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

KEPT = 4
"""Programs remembered: the architectures between which a service goes back and forth."""
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _Unusual(Exception):
    """Something in an archive that is not understood here."""


class _Stored(NamedTuple):
    """A tensor of the tree: where its bytes are."""

    dtype: torch.dtype
    record: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def empty(self, device: torch.device) -> Tensor:
        return torch.empty((0,) * len(self.shape), dtype=self.dtype, device=device)


class Programs:
    """The latest programs, to make others of. Not for several threads at once."""

    def __init__(self, load: Callable[[bytes, torch.device], Any]) -> None:
        self._load = load
        self._known: OrderedDict[tuple[str, str, str], Any] = OrderedDict()

    def __call__(self, archive: bytes, device: torch.device) -> Any:
        """What `load` returns, with nothing but its code shared with other programs. Raises what `load` raises."""
        try:
            parts = _Parts(archive)
        except Exception:  # not an archive, or not one of ours: what is wrong with it is the loader's to say
            return self._load(archive, device)
        kind = str(device), parts.code_sha256, parts.shape
        if kind not in self._known:
            self._known[kind] = _set(self._load(archive, device), parts.tensors, lambda stored: stored.empty(device))
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(kind)
        return _set(copy.deepcopy(self._known[kind]), parts.tensors, lambda stored: parts.read(stored).to(device))


def _set(program: Any, tensors: list[tuple[tuple[str, ...], _Stored]], make: Callable[[_Stored], Tensor]) -> Any:
    for path, stored in tensors:
        module = program._c
        for name in path[:-1]:
            module = module.getattr(name)
        module.setattr(path[-1], make(stored))
    return program


class _Parts:
    """An archive taken apart. Raises _Unusual, or what its libraries raise."""

    def __init__(self, archive: bytes) -> None:
        self._archive = zipfile.ZipFile(io.BytesIO(archive))
        names = {name.partition("/")[2]: name for name in self._archive.namelist()}
        code = hashlib.sha256()
        for name in sorted(names):
            if not name.startswith(("data/", "data.pkl", ".data/")):
                code.update(b"%d %d %b" % (len(name), self._archive.getinfo(names[name]).file_size, name.encode()))
                code.update(self._archive.read(names[name]))
        self.code_sha256 = code.hexdigest()
        self._names = names
        tree = _Unpickler(io.BytesIO(self._archive.read(names["data.pkl"]))).load()
        if not isinstance(tree, _Module):
            raise _Unusual("no module")
        self.tensors = list(_tensors(tree, ()))
        self.shape = repr(tree)
        """The tree without its tensors' contents and sizes."""

    def read(self, stored: _Stored) -> Tensor:
        """A tensor of its own memory."""
        raw = bytearray(self._archive.read(self._names[f"data/{stored.record}"]))
        if not raw:
            return torch.empty(stored.shape, dtype=stored.dtype)
        return torch.frombuffer(raw, dtype=stored.dtype).as_strided(stored.shape, stored.stride, stored.offset)


class _Module:
    """Stands in for any class of the program."""

    kind = ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={_plain(value)}" for name, value in sorted(self.state.items()))
        return f"{self.kind}({fields})"


def _plain(value: Any) -> str:
    """Raises _Unusual for what could hold a tensor unseen."""
    if isinstance(value, _Stored):
        return f"tensor({value.dtype}, {len(value.shape)})"
    if value is None or isinstance(value, bool | int | float | str | _Module):
        return repr(value)
    if isinstance(value, list | tuple) and not isinstance(value, _Stored):
        return f"{type(value).__name__}({', '.join(map(_constant, value))})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{_constant(k)}: {_constant(v)}' for k, v in value.items())})"
    raise _Unusual(type(value).__name__)


def _constant(value: Any) -> str:
    if isinstance(value, _Stored | _Module):
        raise _Unusual("a tensor in a container")
    return _plain(value)


def _tensors(module: _Module, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Stored]]:
    for name, value in module.state.items():
        if isinstance(value, _Stored):
            yield (*path, name), value
        elif isinstance(value, _Module):
            yield from _tensors(value, (*path, name))


class _Unpickler(pickle.Unpickler):
    """Builds stand-ins only: nothing that the file names is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type(name, (_Module,), {"kind": f"{module}.{name}"})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _stored
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return lambda value, _: value
        raise _Unusual(f"{module}.{name}")

    def persistent_load(self, found: Any) -> Any:
        kind, dtype, record, _, _ = found
        if kind != "storage":
            raise _Unusual(str(kind))
        return dtype, record


def _stored(
    storage: tuple[torch.dtype, str], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _Stored:
    return _Stored(storage[0], storage[1], offset, tuple(shape), tuple(stride))
