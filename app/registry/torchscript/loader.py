"""Load programs from TorchScript archives: `torch.jit.load`, and two accelerators that hold the interpreter less.

`torch.jit.load` is always right. It holds the interpreter for 20 ms and more, which requests wait for, so the two
accelerators go first, with the versions of torch that they were tested with: `program_cache` copies a program with the
same code, `incremental_import` imports a program class by class. Both use functions of torch that are not public; with
any other version of torch, or for an archive that they do not understand, `torch.jit.load` is called.
"""

from __future__ import annotations

import io
import threading
import warnings
import zipfile
import zlib
from typing import cast

import torch
from torch.jit import ScriptModule

from app.registry.torchscript import incremental_import
from app.registry.torchscript.archive import Archive
from app.registry.torchscript.code_check import CodeCheck
from app.registry.torchscript.program_cache import ProgramCache
from app.registry.torchscript.served_program import ServedProgram, check_interface

TESTED_TORCH = frozenset({"2.13.0"})
"""Versions of torch whose importer and executor the accelerators were tested with."""


_check_code = CodeCheck()
"""Of all loaders: a process that writes a version, loads it and tries it has parsed its code once."""


class ProgramLoader:
    """Loads programs, one at a time, and remembers the code of the latest. Any thread may call it."""

    def __init__(self, torch_version: str = torch.__version__) -> None:
        """
        Args:
            torch_version: the version of torch in this process; the accelerators are used for `TESTED_TORCH` only.
        """
        self.accelerated = torch_version.partition("+")[0] in TESTED_TORCH
        self._lock = threading.Lock()
        self._cache = ProgramCache(load_incrementally)

    def load(self, archive: bytes, device: torch.device) -> ServedProgram:
        """Load a program, in evaluation mode and without gradients.

        Raises:
            ValueError: it is no archive, may do more than compute, or lacks a method that the models export.
            RuntimeError: torch cannot load it.
        """
        with self._lock, warnings.catch_warnings():  # neither the filters nor the cache are for several threads
            warnings.simplefilter("ignore", DeprecationWarning)
            archive = self._checked(archive)
            if self.accelerated:
                # Else the executor watches the first calls of each size, which take ten times as long.
                torch._C._jit_set_profiling_mode(False)
                program = self._cache.load(archive, device)
            else:
                program = load_whole(archive, device)
        check_interface(program)
        program.eval()
        for parameter in program.parameters():  # a ScriptModule has no requires_grad_ of its own
            parameter.requires_grad_(False)
        return cast(ServedProgram, program)

    def _checked(self, raw: bytes) -> bytes:
        """Check an archive, and return it packed anew, so that torch reads the members that were checked and no others.

        Raises ValueError.
        """
        try:
            archive = Archive(raw)
            _check_code(archive)
            return archive.packed()
        except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
            raise ValueError(f"it is no archive: {error}") from error


def load_whole(archive: bytes, device: torch.device) -> ScriptModule:
    """Load a program by `torch.jit.load`. Raises what that raises."""
    program: ScriptModule = torch.jit.load(io.BytesIO(archive), map_location=device)  # type: ignore[no-untyped-call]
    return program


def load_incrementally(archive: bytes, device: torch.device) -> ScriptModule:
    """Load a program class by class, or whole where that fails. Raises what `torch.jit.load` raises."""
    try:
        return incremental_import.import_program(archive, device)
    except Exception:  # torch is to say what is wrong with it, if anything is
        return load_whole(archive, device)
