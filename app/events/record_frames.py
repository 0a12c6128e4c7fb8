"""Frames: records of one kind as bytes that are appended to a file in a twentieth of the time that columns take.

    length   4 bytes, little-endian
    records  MessagePack: an array of them, each an array of its fields in order

A file may break off anywhere: a frame that is not whole is the last one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt

from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS, Feedback, ImpressionBlock, ItemSlots, Record

_LENGTH = struct.Struct("<I")
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.int64), 2: np.dtype(np.float32)}
"""Of arrays, by the codes of MessagePack's extensions that hold their bytes."""
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def to_frame(records: Sequence[Record]) -> bytes:
    """Return records of one kind as a frame."""
    content = _encoder.encode(records)
    return _LENGTH.pack(len(content)) + content


def read_frames(file: IO[bytes], kind: str) -> Iterator[list[Record]]:
    """Yield the records of one whole frame after the other."""
    to_record = _TO_RECORD[kind]
    while len(header := file.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(header)
        content = file.read(length)
        if not length or len(content) < length:
            return
        try:
            yield [to_record(*fields) for fields in _decoder.decode(content)]
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            return  # what a machine that lost its power left of a file


def _to_extension(array: npt.NDArray[Any]) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_CODES[array.dtype], array.tobytes())


def _to_array(code: int, content: memoryview[int]) -> npt.NDArray[Any]:
    return np.frombuffer(content, _DTYPES[code])


def _to_block(*fields: Any) -> ImpressionBlock:
    block = ImpressionBlock(*fields)
    shape = len(block.items), -1
    return block._replace(user_keys=block.user_keys.reshape(shape), user_values=block.user_values.reshape(shape))


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_extension)
_decoder = msgspec.msgpack.Decoder(ext_hook=_to_array)
_TO_RECORD: Mapping[str, Callable[..., Record]] = {IMPRESSIONS: _to_block, ITEMS: ItemSlots, FEEDBACK: Feedback}
