"""Read and replace `serving.json`, signed where there is a key to sign with."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import structlog

from app.errors import ArtifactError
from app.registry.artifact.signing import POINTER_CONTEXT, Signer, Trust
from app.registry.store.history import StableHistory
from app.registry.store.pointer import (
    MAX_POINTER_BYTES,
    POINTER,
    Pointer,
    PointerSeal,
    decode_pointer,
    signed_content,
)
from app.runtime.durable_file import fsync_path, read_regular_file, replace_file

log = structlog.get_logger(__name__)


class PointerFile:
    """The pointer of one model. The caller of `write` holds the store's lock."""

    def __init__(self, folder: Path, name: str, history: StableHistory, signer: Signer | None) -> None:
        self._folder, self._name, self._history, self._signer = folder, name, history, signer

    def read_bytes(self) -> bytes | None:
        """Return the file's content, None if there is no file. Raises ArtifactError("pointer") if it is unreadable."""
        try:
            return read_regular_file(self._folder / POINTER, MAX_POINTER_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ArtifactError("pointer", f"{POINTER} cannot be read: {error.strerror}") from error

    def read_or_new(self) -> Pointer:
        """Read the pointer, or begin an empty one: a damaged one must not stop the promotion that repairs it."""
        try:
            return decode_pointer(self.read_bytes())
        except ArtifactError as error:
            log.warning("pointer_replaced", model=self._name, reason=str(error))
            return Pointer()

    def write(self, pointer: Pointer, history: list[int] | None = None) -> Pointer:
        """Replace the pointer and the history, and return the pointer as written.

        Args:
            history: what was stable before; by default what the history file says.

        Raises:
            ArtifactError: `pointer` if a label is no version number, or a share is not in [0, 1].
        """
        pointer = self._sealed(pointer)
        content = msgspec.json.encode(pointer)
        decode_pointer(content)
        self._history.write(self._history.read() if history is None else history, pointer.stable)
        replace_file(self._folder / POINTER, content + b"\n")
        fsync_path(self._folder)
        return pointer

    def _sealed(self, pointer: Pointer) -> Pointer:
        if self._signer is None:
            return msgspec.structs.replace(pointer, seal=None)
        # The clock, so that a lost pointer does not begin again at 1; one more, so that it never stands still.
        serial = max(time.time_ns(), pointer.seal.serial + 1 if pointer.seal else 0)
        signature = self._signer.sign(POINTER_CONTEXT, signed_content(self._name, pointer, serial))
        return msgspec.structs.replace(pointer, seal=PointerSeal(serial, signature.hex()))


def authorize(trust: Trust, name: str, pointer: Pointer) -> None:
    """Tell `trust` which versions a pointer that is about to be followed names, and its serial if its seal is good."""
    serial, seal = None, pointer.seal
    if seal is not None:
        content = signed_content(name, pointer, seal.serial)
        if trust.is_signed(POINTER_CONTEXT, content, bytes.fromhex(seal.signature)):
            serial = seal.serial
    trust.record_pointer(serial, frozenset(pointer.versions_by_label().values()))
