"""Which trace ids are taken from a request, and which lines of the log have its ids."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings

import pytest
import structlog

from app.observability.logs import configure_logging
from app.observability.request_context import REQUEST, trace_id_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-ff", True),
        (f"cc-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"cc-{TRACE}-{PARENT}-01.more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE[:-1]}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}", False),
        (f" 00-{TRACE}-{PARENT}-01", False),
        ("00-x", False),
        ("", False),
        ("\xff" * 55, False),
    ],
)
def test_a_trace_id_is_that_of_a_valid_traceparent(sent: str, found: bool) -> None:
    assert trace_id_of({b"traceparent": sent.encode("latin-1")}) == (TRACE if found else None)


def test_no_traceparent_is_no_trace_id() -> None:
    assert trace_id_of({}) is None


@pytest.mark.usefixtures("restored_logging")
def test_lines_of_a_request_have_its_ids_and_others_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    log = structlog.get_logger("app.somewhere")

    async def request(number: int) -> None:
        REQUEST.set((f"r{number}", {b"traceparent": f"00-{number:032x}-{PARENT}-01".encode()}))
        await asyncio.sleep(0)
        log.warning("ours", number=number)
        logging.getLogger("asyncio").warning("a library's")

    async def requests() -> None:
        await asyncio.gather(*(request(number) for number in range(1, 4)))
        log.warning("of no request")

    asyncio.run(requests())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert sorted((line["request_id"], int(line["trace_id"], 16)) for line in lines[:-1]) == [
        *(("r1", 1), ("r1", 1), ("r2", 2), ("r2", 2), ("r3", 3), ("r3", 3))
    ]
    assert lines[-1].keys().isdisjoint({"request_id", "trace_id"})


@pytest.mark.usefixtures("restored_logging")
def test_warnings_are_lines_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logging()
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert "old ways" in json.loads(line)["event"]
