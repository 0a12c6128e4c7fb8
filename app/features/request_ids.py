"""`RequestIds`: the item ids of a request, left as they are written in its JSON.

A request's ids are looked up, and the best of them are copied into the answer: neither needs a Python string for each.
What is kept is the text of the JSON array, where each id begins and ends in it, and each id's hash.
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
"""The key of the hashes, which differs from process to process, so that no client can choose ids that share a hash."""
_KEY_ADDRESS = _KEY_2.ctypes.data


def id_hash(item_id: str) -> int:
    """Return the 64-bit hash that an id has in `RequestIds`; it is never 0."""
    raw = item_id.encode(errors="surrogatepass")
    return int(bindings.hash_id(raw, len(raw), _KEY_ADDRESS))


class RequestIds(Sequence[str]):
    """A sequence of N ids; the strings are made when one is first needed."""

    __slots__ = ("_count", "_ids", "_stride", "json", "pointer", "words_2N")
    _count: int
    _stride: int

    def __init__(self, json: bytes, limit: int, plain: bool, ids: list[str] | None = None) -> None:
        """Scan a JSON array; call `from_json` or `from_strings` instead.

        Args:
            json: the text of the array.
            limit: ids at most; the sequence is empty if there are more.
            plain: accept only ids that are written as they are, without escapes, and integers.
            ids: the strings, where they are known.
        """
        self.json = json
        self._ids = ids
        stride = self._stride = min(limit, len(json) // 2)
        self.words_2N = np.empty(2 * stride, np.int64)
        """The hashes, followed by where ids begin and where they end, as int32."""
        self.pointer: int = self.words_2N.ctypes.data
        """The address of the hashes, N uint64."""
        count = bindings.scan_ids(json, len(json), limit, plain, _KEY_ADDRESS, self.pointer, self.begins, self.ends)
        self._count = max(count, 0)

    @classmethod
    def from_json(cls, json: bytes, limit: int) -> RequestIds | None:
        """Read a JSON array of 1 to `limit` plain strings and integers; return None if it takes a real parser."""
        ids = cls(json, limit, True)
        return ids if ids._count else None

    @classmethod
    def from_strings(cls, ids: Sequence[str]) -> RequestIds:
        """Take strings, whatever characters they hold. Raises TypeError for lone surrogates, which JSON cannot hold."""
        if isinstance(ids, RequestIds):
            return ids
        strings = list(ids)
        return cls(orjson.dumps(strings), max(len(strings), 1), False, strings)

    @property
    def begins(self) -> int:
        """The address of N int32: where in `json` each id begins."""
        return self.pointer + 8 * self._stride

    @property
    def ends(self) -> int:
        """The address of N int32: where in `json` each id ends."""
        return self.pointer + 12 * self._stride

    @property
    def hash_N(self) -> npt.NDArray[np.uint64]:
        """The hashes; 0 for an id that has none, because escapes stand for some of its characters."""
        return self.words_2N[: self._count].view(np.uint64)

    def to_list(self) -> list[str]:
        """Return the ids as strings."""
        if self._ids is None:
            self._ids = [str(item_id) for item_id in msgspec.json.decode(self.json)]
        return self._ids

    def at(self, positions: Sequence[int]) -> list[str]:
        """Return the ids [K] at K positions; decodes none where K is 0. Raises IndexError."""
        ids = self.to_list() if positions else []
        return [ids[position] for position in positions]

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: Any) -> Any:
        return self.to_list()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_list())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.to_list() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RequestIds({self.to_list()!r})"
