"""Reads a request's headers: its id and its deadline.

Headers are passed as `dict(scope["headers"])`: lower-case bytes to bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import count

from app.errors import InvalidRequest

Headers = Mapping[bytes, bytes]

_request_id = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_number = re.compile(rb"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")
MIN_TIMEOUT_MS = 0.0001
_process = os.urandom(8).hex()
_numbers = count(1)


def _renew_process() -> None:
    """Give a forked worker ids of its own: this module is imported before the fork."""
    global _process
    _process = os.urandom(8).hex()


os.register_at_fork(after_in_child=_renew_process)


def request_id_of(headers: Headers) -> str:
    """Return X-Request-ID as sent, or a new id if it is absent or unfit to be logged and sent back."""
    sent = headers.get(b"x-request-id")
    if sent is not None and _request_id.fullmatch(sent):
        return sent.decode()
    return f"{_process}-{next(_numbers):x}"


def timeout_s_of(headers: Headers, max_s: float) -> float:
    """Return how many seconds the client waits for an answer: X-Request-Timeout-Ms, but never more than `max_s`.

    Raises InvalidRequest if the header is not a number of milliseconds from MIN_TIMEOUT_MS on.
    """
    sent = headers.get(b"x-request-timeout-ms")
    if sent is None:
        return max_s
    milliseconds = float(sent) if _number.fullmatch(sent) else 0.0
    if milliseconds < MIN_TIMEOUT_MS:
        message = f"expected a number of milliseconds, {MIN_TIMEOUT_MS:g} or more, such as 250"
        raise InvalidRequest(f"X-Request-Timeout-Ms: {message}", errors=[("X-Request-Timeout-Ms", message)])
    return min(milliseconds / 1000, max_s)
