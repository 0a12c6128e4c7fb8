"""Records come out of frames as they went in, up to the first frame that is not whole."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DataError
from app.events.record_frames import read_frames, to_frame, whole_bytes
from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS, Record
from tests.events.records import block, click, impression, item

RECORDS: dict[str, Sequence[Record]] = {
    IMPRESSIONS: [
        block(impression(1)),
        block(impression(2, propensities=True)),
        block(impression(3, items=0)),
    ],
    ITEMS: [item(1), item(2**62)],
    FEEDBACK: [click(1), click(2)._replace(value=0.5, feedback_id="named"), click(3)._replace(item_id="\U0001f600")],
}


def assert_same(records: Sequence[Record], others: Sequence[Record]) -> None:
    assert [type(record) for record in records] == [type(other) for other in others]
    for record, other in zip(records, others, strict=True):
        for name, value, same in zip(record._fields, record, other, strict=True):
            if isinstance(value, np.ndarray):
                assert (value.dtype, value.shape) == (same.dtype, same.shape), name
                np.testing.assert_array_equal(value, same)
            else:
                assert _plain(value) == _plain(same), name


def _plain(value: object) -> object:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("kind", RECORDS)
def test_records_come_out_as_they_went_in(kind: str) -> None:
    frames = [to_frame(RECORDS[kind]), to_frame(RECORDS[kind][:1])]
    read = list(read_frames(io.BytesIO(b"".join(frames)), kind))
    assert [len(records) for records in read] == [len(RECORDS[kind]), 1]
    for records in read:
        assert_same(RECORDS[kind][: len(records)], records)


@pytest.mark.parametrize("kind", RECORDS)
@given(st.data())
def test_what_is_behind_the_last_whole_frame_is_left(kind: str, data: st.DataObject) -> None:
    frame = to_frame(RECORDS[kind])
    content = frame + frame[: data.draw(st.integers(0, len(frame) - 1))]
    (read,) = read_frames(io.BytesIO(content), kind)
    assert_same(RECORDS[kind], read)


def test_a_whole_frame_of_another_format_is_no_damage() -> None:
    with pytest.raises(DataError, match="another format"):
        list(read_frames(io.BytesIO(to_frame([click(1)])), ITEMS))


class NotedReads(io.BytesIO):
    """A file that notes how much it was asked for at once."""

    largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.largest = max(self.largest, size or -1)
        return super().read(size)


def test_a_length_of_gigabytes_is_not_read() -> None:
    frame = to_frame([item(1)])
    file = NotedReads(frame + b"\xff\xff\xff\xff" + frame[4:])
    assert len(list(read_frames(file, ITEMS))) == 1
    assert file.largest < len(frame)
    assert whole_bytes(file) == len(frame)


@pytest.mark.parametrize("kind", RECORDS)
def test_a_frame_is_not_read_whose_end_a_power_loss_left_empty(kind: str) -> None:
    frame = to_frame(RECORDS[kind])
    for start in range(len(frame)):
        damaged = frame[:start] + bytes(len(frame) - start)
        if damaged != frame:
            assert list(read_frames(io.BytesIO(damaged), kind)) == []


@pytest.mark.parametrize("rest", [bytes(4096), b"\x05\0\0\0" + bytes(8) + b"\xc1junk"])
def test_what_is_no_frame_ends_the_file(rest: bytes) -> None:
    (read,) = read_frames(io.BytesIO(to_frame(RECORDS[FEEDBACK]) + rest), FEEDBACK)
    assert_same(RECORDS[FEEDBACK], read)
