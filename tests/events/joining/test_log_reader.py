"""A log is read a span at a time, and hours in which nothing was recorded are passed over."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.events.joining.log_reader import LogReader
from app.events.records import FEEDBACK, IMPRESSIONS
from app.events.segment import segment_name, write_segment
from app.events.segment_columns import to_batch
from app.events.spool import SPOOL, SUFFIX, SpoolFile
from tests.events.records import AT_US, blocks, impression

DAY_S = 86_400
seconds = st.integers(0, 2 * DAY_S)


def at(second: int) -> datetime:
    return datetime.fromtimestamp(AT_US / 1e6 + second, UTC)


@given(
    segments=st.lists(st.lists(seconds, min_size=1, max_size=3), min_size=1, max_size=4),
    bounds=st.tuples(seconds, seconds),
    length_s=st.integers(600, DAY_S),
)
@settings(max_examples=60)
def test_spans_part_the_time_and_those_without_records_are_passed_over(
    segments: list[list[int]], bounds: tuple[int, int], length_s: int
) -> None:
    start, stop, length = at(bounds[0]), at(bounds[1]), timedelta(seconds=length_s)
    with tempfile.TemporaryDirectory() as folder:
        for number, times in enumerate(segments):
            batch = to_batch(
                IMPRESSIONS, blocks([impression(n, at_us=AT_US + s * 10**6) for n, s in enumerate(sorted(times))])
            )
            write_segment(Path(folder), segment_name(IMPRESSIONS, AT_US, f"w{number}"), [batch])
        log = LogReader(Path(folder))
        spans = list(log.spans(IMPRESSIONS, start, stop, length))
        all_spans = []
        begin = start
        while begin < stop:
            all_spans.append((begin, min(begin + length, stop)))
            begin += length
        found = [len(log.collect(log.records(IMPRESSIONS, *span))) for span in all_spans]
        assert set(spans) >= {span for span, count in zip(all_spans, found, strict=True) if count}
        assert spans == [span for span in all_spans if span in spans], "in order, and each once"
        touched = {span for span in all_spans for s in segments if at(max(s)) >= span[0] and at(min(s)) < span[1]}
        assert set(spans) == touched
        assert list(log.spans(FEEDBACK, start, stop, length)) == []


def test_what_is_not_finished_counts_too(tmp_path: Path) -> None:
    hour = timedelta(hours=1)
    assert (LogReader(tmp_path).first, list(LogReader(tmp_path).spans(IMPRESSIONS, at(0), at(DAY_S), hour))) == (
        None,
        [],
    )
    (tmp_path / SPOOL).mkdir()
    file = SpoolFile(tmp_path / SPOOL / f"w-1.{IMPRESSIONS}{SUFFIX}", IMPRESSIONS)
    file.append(list(blocks(impression(0, at_us=AT_US + second * 10**6) for second in (9_000, 12_000))))
    file.close()
    log = LogReader(tmp_path)
    assert log.first == at(9_000)
    assert list(log.spans(IMPRESSIONS, at(0), at(DAY_S), hour)) == [(at(7_200), at(10_800)), (at(10_800), at(14_400))]
