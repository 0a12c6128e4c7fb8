"""The TorchScript archive: a zip file whose members lie in one folder of any name.

`code/` and `constants.pkl` are the program; `data.pkl` is the tree of modules; `data/N` are the bytes of its tensors.
"""

from __future__ import annotations

import io
import zipfile

MAX_EXPANSION = 8
"""Unpacked bytes for each byte of the file: torch packs code, at most five to one, and leaves tensors as they are."""


class UnsupportedArchive(Exception):
    """An archive holds something that the accelerators do not understand; `torch.jit.load` may still load it."""


class Archive:
    """An open archive, its members named without the folder."""

    def __init__(self, raw: bytes) -> None:
        """Read the directory.

        Raises:
            ValueError: a name occurs twice or in two folders, or the members would unpack to more than they may.
            zipfile.BadZipFile: it is no archive.
        """
        self._zip = zipfile.ZipFile(io.BytesIO(raw))
        members = self._zip.infolist()
        self._stored = {member.filename.partition("/")[2]: member.filename for member in members}
        if len(self._stored) < len(members) or len({member.filename.partition("/")[0] for member in members}) > 1:
            raise ValueError("a member is in it twice")
        unpacked = sum(member.file_size for member in members)
        if unpacked > MAX_EXPANSION * len(raw):
            raise ValueError(f"{len(raw):,} bytes would unpack to {unpacked:,}")

    def names(self) -> list[str]:
        """Return the members, in the order of the file."""
        return list(self._stored)

    def size(self, name: str) -> int:
        """Return the number of bytes of a member."""
        return self._zip.getinfo(self._stored[name]).file_size

    def read(self, name: str) -> bytes:
        """Return the bytes of a member. Raises KeyError if there is none of that name."""
        return self._zip.read(self._stored[name])

    def packed(self) -> bytes:
        """Return a plain archive of the members as they were read here, with nothing between or around them."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as new:
            for name in self.names():
                new.writestr(f"archive/{name}", self.read(name))
        return out.getvalue()
