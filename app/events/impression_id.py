"""Ids of impressions: ULIDs that say which version answered, and under which label.

    time          10 characters   milliseconds since 1970, as in every ULID
    version, arm   5 characters   25 bits: the version's number in 22, the arm in 3
    process        7 characters   35 random bits of the worker
    number         4 characters   counts the worker's ids, modulo 2**20

Each character is five bits in Crockford's base 32, so that ids sort by their time. A click that names such an id can be
counted for its version by any worker of any machine, though none of them knows the request.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from typing import NamedTuple

from app.errors import InvalidRequest

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
ARMS = ("stable", "canary", "shadow", "")
"""Labels by the number that ids hold; the last stands for a version that the caller named and that has no label."""
MAX_VERSION = (1 << 22) - 1
"""Of a version with a greater number, ids hold 0: it is not known from them."""
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_VALUES = {character: value for value, character in enumerate(ALPHABET)}
_form = re.compile(f"[0-7][{ALPHABET}]{{{LENGTH - 1}}}")


class ImpressionId(NamedTuple):
    """What an id says."""

    at_ms: int
    """Milliseconds since 1970."""
    version: int
    """0 where the number did not fit."""
    label: str


class ImpressionIds:
    """Makes ids. One per process, for one thread."""

    def __init__(self) -> None:
        self._process = encode(int.from_bytes(os.urandom(5)) & (1 << 35) - 1, 7)
        self._numbers = itertools.count()
        self._ms, self._time = -1, ""
        self._arms: dict[tuple[int, str], str] = {}

    def next(self, at_ms: int, version: int, label: str) -> str:
        """Return a new id of an answer that this version gave under this label; takes about half a microsecond."""
        if at_ms != self._ms:
            self._ms, self._time = at_ms, "".join([_PAIRS[at_ms >> places & 1023] for places in (40, 30, 20, 10, 0)])
        arm = self._arms.get((version, label))
        if arm is None:
            number = version if version <= MAX_VERSION else 0
            arm = self._arms[version, label] = encode(number << 3 | ARMS.index(label), 5)
        number = next(self._numbers)
        return f"{self._time}{arm}{self._process}{_PAIRS[number >> 10 & 1023]}{_PAIRS[number & 1023]}"


def encode(number: int, length: int) -> str:
    """Write a number in so many characters of base 32."""
    return "".join(ALPHABET[number >> 5 * place & 31] for place in range(length - 1, -1, -1))


def decode(text: str) -> int:
    """Read a number that `encode` wrote. Raises KeyError for a character that is not in the alphabet."""
    number = 0
    for character in text:
        number = number << 5 | _VALUES[character]
    return number


def is_impression_id(text: str) -> bool:
    """Return whether a text has the form of an id; a caller's own id of a request may have any form."""
    return _form.fullmatch(text) is not None


def parse_impression_id(text: str) -> ImpressionId:
    """Return what an id says. Raises InvalidRequest if it is not one of the service's own."""
    arm = decode(text[10:15]) if is_impression_id(text) else len(ARMS)
    if arm & 7 >= len(ARMS):
        raise InvalidRequest("not an id of an answer of this service", errors=[("request_id", "not an impression id")])
    return ImpressionId(decode(text[:10]), arm >> 3, ARMS[arm & 7])


def now_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000
