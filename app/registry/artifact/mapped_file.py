"""The files of a version as bytes in memory: opened without following links, mapped once, verified, parsed in place."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import stat
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from app.errors import ArtifactError
from app.registry.artifact.manifest import FileProof
from app.runtime.thread_pacer import SLICE_BYTES, throttle


class MappedFile:
    """A regular file mapped into memory once, so that the bytes that are hashed are the bytes that are used."""

    def __init__(self, path: Path, max_bytes: int = 1 << 46) -> None:
        """Map a file that is not empty. Raises ArtifactError("file")."""
        try:
            # A version is three regular files: links are not followed, and a FIFO is not waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ArtifactError("file", f"{path.name} cannot be opened: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ArtifactError("file", f"{path.name} is not a regular file")
            if not 0 < status.st_size <= max_bytes:
                raise ArtifactError("file", f"{path.name} has {status.st_size} bytes")
            # Private, so writable as torch wants it; never written to, so its pages are shared with other processes.
            self._map = mmap.mmap(descriptor, status.st_size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            raise ArtifactError("file", f"{path.name} cannot be mapped: {error.strerror}") from error
        finally:
            os.close(descriptor)
        self.name = path.name
        self.view = memoryview(self._map)

    def verify(self, proof: FileProof) -> None:
        """Check size and SHA-256. Raises ArtifactError("hash")."""
        if len(self.view) != proof.size:
            raise ArtifactError("hash", f"{self.name} has {len(self.view)} bytes, the manifest says {proof.size}")
        digest = hashlib.sha256()
        for start in range(0, len(self.view), SLICE_BYTES):
            digest.update(self.view[start : start + SLICE_BYTES])
            throttle()
        if digest.hexdigest() != proof.sha256:
            raise ArtifactError("hash", f"{self.name} does not have the SHA-256 the manifest says")

    def __enter__(self) -> MappedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.view.release()
        self._map.close()


_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32}


class _TableEntry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def parse_tables(file: MappedFile) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, over its mapped bytes. Raises ArtifactError("tables").

    The format is an eight-byte length, a JSON header and the data. The library of that name would map the path a second
    time, and perhaps another file than the one that was hashed.
    """
    view = file.view
    try:
        header_size = int.from_bytes(view[:8], "little")
        if header_size > len(view) - 8:
            raise ValueError(f"its header ends {header_size + 8 - len(view)} bytes beyond it")
        raw = msgspec.json.decode(view[8 : 8 + header_size])
        raw.pop("__metadata__", None)
        entries = msgspec.convert(raw, dict[str, _TableEntry])
        tables = {}
        for name, entry in entries.items():
            start, stop = entry.data_offsets
            dtype = _DTYPES[entry.dtype]
            count = math.prod(entry.shape)
            if (stop - start) != count * dtype.itemsize:
                raise ValueError(f"{name} has {stop - start} bytes for shape {entry.shape}")
            tables[name] = torch.frombuffer(view, dtype=dtype, count=count, offset=8 + header_size + start).reshape(
                entry.shape
            )
    except (msgspec.MsgspecError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        raise ArtifactError("tables", f"{file.name} cannot be parsed: {error}") from error
    return tables
