"""`RespReader`: parses replies, and gives `OVERSIZED` in place of a value that is too large for a feature.

A value of 30 MB in one hash would hold up every request behind it while it is put together and decoded. Its length
stands before it on the wire, so it is dropped piece by piece as it arrives (docs/adr/0024).
"""

from __future__ import annotations

from ctypes import addressof, c_int64
from typing import Any, Final

import hiredis

from app.native import bindings
from app.native.layout import MAX_VALUE_BYTES

_INCOMPLETE = object()
_MARK = "OVERSIZED"
_IN_PLACE = f"-{_MARK}\r\n".encode()


class OversizedValue:
    """Stands for a value of more than MAX_VALUE_BYTES; no field can hold it."""

    def __repr__(self) -> str:
        return f"<a value of more than {MAX_VALUE_BYTES} bytes>"


OVERSIZED: Final = OversizedValue()


class RespReader:
    """Parses the bytes of one connection in the pieces in which they come; text is decoded as UTF-8."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace", notEnoughData=_INCOMPLETE)
        self._found = (c_int64 * 2)()
        self._found_address = addressof(self._found)
        self._unfinished = 0
        """Bytes that the last value lacks."""
        self._dropping = 0
        """Bytes of an oversized value that are still to come."""
        self._line = b""
        """The beginning of a line that is not whole."""
        self._marks = 0
        """Marks put in the place of values and not met in a reply so far."""

    def read(self, data: bytes) -> list[Any]:
        """Return the replies and pushes that are whole now.

        Raises hiredis.ProtocolError if the bytes are not RESP.
        """
        if self._line:
            data, self._line = self._line + data, b""
        if self._dropping:
            data, self._dropping = data[self._dropping :], max(0, self._dropping - len(data))
        reader, found = self._reader, self._found
        while (header := bindings.find_oversized(data, len(data), self._unfinished, self._found_address)) >= 0:
            reader.feed(data[:header] + _IN_PLACE)
            end = found[0] + found[1]
            self._marks += 1
            self._unfinished, self._dropping = 0, max(0, end - len(data))
            data = data[end:]
        whole, self._unfinished = found[0], found[1]  # to unpack it would take eight times as long
        if whole < len(data):
            data, self._line = data[:whole], data[whole:]
            if len(self._line) > MAX_VALUE_BYTES:
                raise hiredis.ProtocolError("a line without an end")
        reader.feed(data)
        replies: list[Any] = []
        while (reply := reader.gets()) is not _INCOMPLETE:
            replies.append(reply)
        return [self._with_oversized(reply) for reply in replies] if self._marks else replies

    def _with_oversized(self, reply: Any) -> Any:
        """Return a reply, or one value of a list, with `OVERSIZED` where the mark is."""
        if reply.__class__ is list:
            return [self._with_oversized(value) for value in reply]
        if isinstance(reply, hiredis.ReplyError) and str(reply) == _MARK:
            self._marks -= 1
            return OVERSIZED
        return reply
