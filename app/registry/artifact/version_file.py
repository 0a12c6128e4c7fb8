"""The files of a version, opened without following links and read into memory of this process's own.

Nothing here is mapped: a file that somebody cuts short while it is read is too short, and ends no process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from app.errors import ArtifactError
from app.registry.artifact.manifest import FileProof
from app.runtime.thread_pacer import SLICE_BYTES, throttle


@contextlib.contextmanager
def open_version_file(path: Path) -> Iterator[int]:
    """Yield the descriptor of a regular file. Raises ArtifactError("file")."""
    try:
        # A version is three regular files: links are not followed, and a FIFO is not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ArtifactError("file", f"{path.name} cannot be opened: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ArtifactError("file", f"{path.name} is not a regular file")
        yield descriptor
    except OSError as error:
        raise ArtifactError("file", f"{path.name} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def read_version_file(path: Path, max_bytes: int) -> bytes:
    """Read a file that is not empty. Raises ArtifactError("file")."""
    with open_version_file(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if not 0 < size <= max_bytes:
            raise ArtifactError("file", f"{path.name} has {size} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(size)


def verified_slices(descriptor: int, name: str, proof: FileProof) -> Iterator[memoryview]:
    """Yield a file's bytes in order, and raise at the end if they are not those that the manifest proves.

    What was yielded is what was hashed. Each slice is overwritten by the next, so copy it at once.

    Raises:
        ArtifactError: `hash` if the size or the SHA-256 is another, `file` if the file is empty.
    """
    check_size(name, os.fstat(descriptor).st_size, proof)
    buffer, digest, offset = memoryview(bytearray(SLICE_BYTES)), hashlib.sha256(), 0
    while count := os.preadv(descriptor, [buffer], offset):
        digest.update(buffer[:count])
        offset += count
        if offset <= proof.size:
            yield buffer[:count]
        throttle()
    check_size(name, offset, proof)
    _check_digest(name, digest.hexdigest(), proof)


def verify_file(path: Path, proof: FileProof) -> None:
    """Check a file as `verified_slices` does, and keep nothing of it. Raises ArtifactError."""
    with open_version_file(path) as descriptor:
        for _ in verified_slices(descriptor, path.name, proof):
            pass


def verify_bytes(content: bytes | memoryview, name: str, proof: FileProof) -> None:
    """Check the size and the SHA-256 of what was read. Raises ArtifactError("hash")."""
    check_size(name, len(content), proof)
    view, digest = memoryview(content), hashlib.sha256()
    for start in range(0, len(view), SLICE_BYTES):
        digest.update(view[start : start + SLICE_BYTES])
        throttle()
    _check_digest(name, digest.hexdigest(), proof)


def check_size(name: str, size: int, proof: FileProof) -> None:
    """Raise ArtifactError unless the size is that of the proof: `file` for an empty file, else `hash`."""
    if size == 0:
        raise ArtifactError("file", f"{name} has 0 bytes")
    if size != proof.size:
        raise ArtifactError("hash", f"{name} has {size} bytes, the manifest says {proof.size}")


def _check_digest(name: str, sha256: str, proof: FileProof) -> None:
    if sha256 != proof.sha256:
        raise ArtifactError("hash", f"{name} does not have the SHA-256 the manifest says")
