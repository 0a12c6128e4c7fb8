"""Frames: records of one kind as bytes that are appended to a file, for less processor time than columns take.

    length   4 bytes, little-endian
    digest   8 bytes, XXH3 of the records
    records  MessagePack: an array of them, each an array of its fields in order

A file may break off anywhere, or be damaged where a machine lost its power: it ends before the first such frame.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from app.errors import DataError
from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS, Feedback, ImpressionBlock, ItemSlots, Record

_HEADER = struct.Struct("<IQ")
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.int64), 2: np.dtype(np.float32)}
"""Of arrays, by the codes of MessagePack's extensions that hold their bytes."""
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def to_frame(records: Sequence[Record]) -> bytes:
    """Return records of one kind as a frame."""
    content = _encoder.encode(records)
    return _HEADER.pack(len(content), xxh3_64_intdigest(content)) + content


def read_frames(file: IO[bytes], kind: str) -> Iterator[Sequence[Record]]:
    """Yield the records of one frame after the other, up to the first that is not whole or is damaged.

    Raises DataError if a whole frame holds other records than these, as another release may have written.
    """
    decode = _DECODERS[kind].decode
    for content in _contents(file):
        try:
            records = decode(content)
            yield [_with_shapes(record) for record in records] if kind == IMPRESSIONS else records
        except (msgspec.MsgspecError, ValueError, KeyError) as error:
            raise DataError(f"records of {kind} in another format: {error}") from error


def whole_bytes(file: IO[bytes]) -> int:
    """Return how many bytes of a file are in frames that can be read."""
    return sum(_HEADER.size + len(content) for content in _contents(file))


def _contents(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what is in each frame, from the first to the last that is whole, undamaged and behind others that are."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        length, digest = _HEADER.unpack(header)
        if not 0 < length <= size - file.tell():  # a damaged length may be one of gigabytes
            return
        content = file.read(length)
        if xxh3_64_intdigest(content) != digest:
            return
        yield content


def _to_extension(array: npt.NDArray[Any]) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_CODES[array.dtype], array.tobytes())


def _to_array(code: int, content: memoryview[int]) -> npt.NDArray[Any]:
    return np.frombuffer(content, _DTYPES[code])


def _with_shapes(block: ImpressionBlock) -> ImpressionBlock:
    shape = len(block.items), -1
    return block._replace(user_keys=block.user_keys.reshape(shape), user_values=block.user_values.reshape(shape))


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_extension)
_DECODERS: Mapping[str, msgspec.msgpack.Decoder[Any]] = {
    IMPRESSIONS: msgspec.msgpack.Decoder(list[ImpressionBlock], ext_hook=_to_array),
    ITEMS: msgspec.msgpack.Decoder(list[ItemSlots], ext_hook=_to_array),
    FEEDBACK: msgspec.msgpack.Decoder(list[Feedback], ext_hook=_to_array),
}
