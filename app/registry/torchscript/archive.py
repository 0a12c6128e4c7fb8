"""The TorchScript archive: a zip file whose members lie in one folder of any name.

`code/` and `constants.pkl` are the program; `data.pkl` is the tree of modules; `data/N` are the bytes of its tensors.
"""

from __future__ import annotations

import io
import zipfile


class UnsupportedArchive(Exception):
    """An archive holds something that the accelerators do not understand; `torch.jit.load` may still load it."""


class Archive:
    """An open archive, its members named without the folder. Raises what zipfile raises."""

    def __init__(self, raw: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(raw))
        self._stored = {name.partition("/")[2]: name for name in self._zip.namelist()}

    def names(self) -> list[str]:
        """Return the members, in the order of the file."""
        return list(self._stored)

    def size(self, name: str) -> int:
        """Return the number of bytes of a member."""
        return self._zip.getinfo(self._stored[name]).file_size

    def read(self, name: str) -> bytes:
        """Return the bytes of a member. Raises KeyError if there is none of that name."""
        return self._zip.read(self._stored[name])
