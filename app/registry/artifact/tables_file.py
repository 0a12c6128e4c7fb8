"""Load `tables.safetensors` into memory that no writer of the file can change (docs/adr/0023).

Large tables are copied once into a sealed memfd, which the processes of one user share; small ones are copied into each
process. Either way the bytes that were hashed are the bytes that serve, whatever becomes of the file.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import structlog
import torch
from torch import Tensor

from app.errors import ArtifactError
from app.registry.artifact.manifest import FileProof
from app.registry.artifact.version_file import check_size, open_version_file, verified_slices, verify_bytes
from app.runtime import file_lock
from app.runtime.huge_pages import zeros_on_huge_pages
from app.runtime.sealed_memory import find_sealed, map_sealed, write_sealed

log = structlog.get_logger(__name__)

SHARED_FROM_BYTES = 1 << 20
"""Smaller tables are copied by each process: to look for another's copy costs more than it saves."""
PATIENCE_S, LEAST_BYTES_PER_S = 10.0, 20 << 20
"""How long a process waits for another one to copy tables: so long, and longer by their size at so slow a rate."""
_WAIT_S = 0.01
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32}


class _TableEntry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def load_tables(path: Path, proof: FileProof, shared_from_bytes: int = SHARED_FROM_BYTES) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, over bytes that were verified and stay as they are.

    Args:
        proof: the size and the hash that the manifest says.
        shared_from_bytes: from this size on, processes share one copy.

    Raises:
        ArtifactError: `file`, `hash` or `tables`.
    """
    with open_version_file(path) as descriptor:
        check_size(path.name, os.fstat(descriptor).st_size, proof)  # before as much memory is taken
        if proof.size < shared_from_bytes:
            return parse_tables(_private_copy(descriptor, path.name, proof), path.name)
        with _turn(descriptor, proof.size):
            content = _shared_copy(descriptor, path.name, proof)
        return parse_tables(content, path.name)


def parse_tables(view: memoryview, name: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, over its bytes. Raises ArtifactError("tables").

    The format is an eight-byte length, a JSON header and the data. The library of that name would open the path a
    second time, and perhaps another file than the one that was hashed.
    """
    try:
        header_size = int.from_bytes(view[:8], "little")
        if header_size > len(view) - 8:
            raise ValueError(f"its header ends {header_size + 8 - len(view)} bytes beyond it")
        raw = msgspec.json.decode(view[8 : 8 + header_size])
        raw.pop("__metadata__", None)
        entries = msgspec.convert(raw, dict[str, _TableEntry])
        tables = {}
        for table, entry in entries.items():
            start, stop = entry.data_offsets
            dtype = _DTYPES[entry.dtype]
            count = math.prod(entry.shape)
            if (stop - start) != count * dtype.itemsize:
                raise ValueError(f"{table} has {stop - start} bytes for shape {entry.shape}")
            tables[table] = torch.frombuffer(view, dtype=dtype, count=count, offset=8 + header_size + start).reshape(
                entry.shape
            )
    except (msgspec.MsgspecError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        raise ArtifactError("tables", f"{name} cannot be parsed: {error}") from error
    return tables


def _shared_copy(descriptor: int, name: str, proof: FileProof) -> memoryview:
    """Map the copy that another process made, or make one; a private one where the system allows no sealed memory."""
    memory_name = f"ctr-tables-{proof.sha256}"
    found = find_sealed(memory_name, proof.size)
    if found is not None:
        view = map_sealed(found)
        verify_bytes(view, name, proof)  # whoever made it, it cannot change any more
        return view
    try:
        view = map_sealed(write_sealed(memory_name, verified_slices(descriptor, name, proof)))
    except OSError as error:
        log.info("tables_not_shared", file=name, reason=error.strerror)
        return _private_copy(descriptor, name, proof)
    with contextlib.suppress(OSError):  # the file is not read again: its pages would be held twice
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return view


def _private_copy(descriptor: int, name: str, proof: FileProof) -> memoryview:
    view = zeros_on_huge_pages((proof.size,), np.uint8).data
    offset = 0
    for part in verified_slices(descriptor, name, proof):
        view[offset : offset + len(part)] = part
        offset += len(part)
    return view


@contextlib.contextmanager
def _turn(descriptor: int, size: int) -> Iterator[None]:
    """Let processes copy one after the other, so that the second finds what the first made.

    The lock ends with the descriptor. A process that hangs while it holds the lock costs the others their patience and
    the memory of one more copy.
    """
    due = time.monotonic() + PATIENCE_S + size / LEAST_BYTES_PER_S
    with contextlib.suppress(OSError):  # the file system knows no such locks
        while not file_lock.try_lock(descriptor) and time.monotonic() < due:
            time.sleep(_WAIT_S)
    yield
