"""Ids of impressions: ULIDs that say which version answered, and under which label.

    time          10 characters   milliseconds since 1970, as in every ULID
    version, arm   5 characters   25 bits: the version's number in 22, whether the request named it in 1, the label in 2
    group          2 characters   10 bits of a hash of the user's id; of a guest, another for each answer
    process        5 characters   25 random bits of the worker
    number         4 characters   counts the worker's ids, modulo 2**20

Each character is five bits in Crockford's base 32, so that ids sort by their time. A click that names such an id can be
counted for its version and its group of users by any worker of any machine, though none of them knows the request.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from app.errors import InvalidRequest

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
ARMS = ("stable", "canary", "shadow", "")
"""Labels by the number that ids hold; the last stands for a version that the caller named and that has no label."""
GROUPS = 1024
GROUP_SALT = "ctr-group\x1f"
"""Another than that of the hash which gives a canary its users, so that each group has users of both arms."""
_PINNED = 4
MAX_VERSION = (1 << 22) - 1
"""Of a version with a greater number, ids hold 0: it is not known from them."""
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_VALUES = {character: value for value, character in enumerate(ALPHABET)}
_PAIR_VALUES = {pair: value for value, pair in enumerate(_PAIRS)}
_form = re.compile(f"[0-7][{ALPHABET}]{{{LENGTH - 1}}}")


class ImpressionId(NamedTuple):
    """What an id says."""

    at_ms: int
    """Milliseconds since 1970."""
    version: int
    """0 where the number did not fit."""
    label: str
    pinned: bool
    """Whether the request named the version, as the caller did or `Fallback`, which asks stable if scoring failed."""
    group: int
    """Of the user, in [0, GROUPS)."""


class ImpressionIds:
    """Makes ids. One per process, for one thread."""

    def __init__(self) -> None:
        self._process = encode(int.from_bytes(os.urandom(4)) & (1 << 25) - 1, 5)
        self._numbers = itertools.count()
        self._coarse_time, self._coarse_text = -1, ""
        """The time in units of 1,024 ms, and its eight characters, which change once a second."""
        self._arms: dict[tuple[int, str, bool], str] = {}

    def next(self, at_ms: int, version: int, label: str, *, pinned: bool = False, user_id: str | None = None) -> str:
        """Return a new id of an answer that this version gives under this label.

        Args:
            pinned: whether the request named the version; the canary's share chose it otherwise.
            user_id: None for a guest.
        """
        coarse_time = at_ms >> 10
        if coarse_time != self._coarse_time:
            self._coarse_time, self._coarse_text = coarse_time, encode(coarse_time, 8)
        arm = self._arms.get((version, label, pinned))
        if arm is None:
            arm = self._arms[version, label, pinned] = arm_code(version, label, pinned=pinned)
        number = next(self._numbers)
        group = number % GROUPS if user_id is None else group_of_user(user_id)
        fine_text, high, low = _PAIRS[at_ms & 1023], _PAIRS[number >> 10 & 1023], _PAIRS[number & 1023]
        return f"{self._coarse_text}{fine_text}{arm}{_PAIRS[group]}{self._process}{high}{low}"


def arm_code(version: int, label: str, *, pinned: bool = False) -> str:
    """Return the characters of an id, from the tenth on, that say which version answered under which label."""
    number = version if version <= MAX_VERSION else 0
    return encode(number << 3 | _PINNED * pinned | ARMS.index(label), 5)


def arm_of(impression_id: str) -> str:
    """Return the characters that `arm_code` gives, of an id's version and label; of ids of this service alone."""
    return impression_id[10:15]


def group_of(impression_id: str) -> int:
    """Return the group of users that an id names, in [0, GROUPS); of ids of this service alone."""
    return _PAIR_VALUES[impression_id[15:17]]


def group_of_user(user_id: str) -> int:
    """Return a user's group, in [0, GROUPS)."""
    return xxh3_64_intdigest((GROUP_SALT + user_id).encode("utf-8", "surrogatepass")) % GROUPS


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
    if not is_impression_id(text):
        raise InvalidRequest("not an id of an answer of this service", errors=[("request_id", "not an impression id")])
    arm = decode(arm_of(text))
    return ImpressionId(decode(text[:10]), arm >> 3, ARMS[arm & 3], bool(arm & _PINNED), group_of(text))


def now_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000
