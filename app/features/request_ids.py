"""The item ids of a request, left as they stand in its JSON.

A request's ids are looked up, and the best of them are copied into the answer: neither needs a Python string for each.
What is kept is the text of the array, where each id begins and ends in it, and each id's hash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, overload

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from app.native import bindings

_KEY_2 = np.frombuffer(os.urandom(16), np.uint64)
"""Hashes differ from process to process, so nobody can choose ids that share one."""
_KEY = _KEY_2.ctypes.data


def id_hash(item_id: str) -> int:
    """The 64-bit hash that the id has in `RequestIds`. Never 0."""
    raw = item_id.encode(errors="surrogatepass")
    return bindings.hash_id(raw, len(raw), _KEY)  # type: ignore[no-any-return]


class RequestIds(Sequence[str]):
    """N ids; a sequence of strings, which are made when one is first asked for."""

    __slots__ = ("_count", "_ids", "_stride", "pointer", "wire", "words_2N")
    _count: int
    _stride: int

    def __init__(self, wire: bytes, limit: int, plain: bool, ids: list[str] | None = None) -> None:
        """Of a JSON array; what can go wrong with it is told by `from_json` and does not happen in `from_strings`."""
        self.wire = wire
        self._ids = ids
        stride = self._stride = min(limit, len(wire) // 2)
        self.words_2N = np.empty(2 * stride, np.int64)
        """Hashes, then begins and ends as int32."""
        self.pointer: int = self.words_2N.ctypes.data
        """Address of the hashes."""
        counted = bindings.scan_ids(wire, len(wire), limit, plain, _KEY, self.pointer, self.begins, self.ends)
        self._count = max(counted, 0)

    @classmethod
    def from_json(cls, wire: bytes, limit: int) -> RequestIds | None:
        """The ids of a JSON array of 1 to `limit` plain strings and integers; None for all that needs a real parser."""
        ids = cls(wire, limit, True)
        return ids if ids._count else None

    @classmethod
    def from_strings(cls, ids: Sequence[str]) -> RequestIds:
        """The same of strings, whatever is in them. Lone surrogates cannot be written: orjson raises TypeError."""
        if isinstance(ids, RequestIds):
            return ids
        listed = list(ids)
        return cls(orjson.dumps(listed), max(len(listed), 1), False, listed)

    @property
    def begins(self) -> int:
        """Address of N int32: where in `wire` an id begins."""
        return self.pointer + 8 * self._stride

    @property
    def ends(self) -> int:
        """Address of N int32: where it ends."""
        return self.pointer + 12 * self._stride

    @property
    def hash_N(self) -> npt.NDArray[np.uint64]:
        """0 for an id that has none, because it is not written as it is."""
        return self.words_2N[: self._count].view(np.uint64)

    def to_list(self) -> list[str]:
        if self._ids is None:
            self._ids = [str(item_id) for item_id in msgspec.json.decode(self.wire)]
        return self._ids

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: Any) -> Any:
        return self.to_list()[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_list())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.to_list() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RequestIds({self.to_list()!r})"
