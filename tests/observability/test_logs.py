"""Log lines: JSON for machines, text for people, and no local variables in either."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from app.cli import _log_to_standard_error
from app.observability.logs import LogThrottle, configure_logging


@pytest.mark.usefixtures("restored_logging")
def test_log_lines_are_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    log = structlog.get_logger("app.somewhere")
    log.debug("hidden")
    log.info("model_live", version=7, text="\ud800")
    logging.getLogger("uvicorn.error").warning("from %s", "a library")
    secret = "user-4711"
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("failed")
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert out == "", "standard output belongs to `--json`"
    assert [line["event"] for line in lines] == ["model_live", "from a library", "failed"]
    assert (lines[0]["version"], lines[0]["level"], lines[0]["logger"]) == (7, "info", "app.somewhere")
    assert lines[0]["timestamp"].endswith("Z")
    assert "ValueError: bad" in lines[2]["exception"]
    assert secret not in err, "local variables stay out of tracebacks"


@pytest.mark.usefixtures("restored_logging")
def test_log_lines_are_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", json=False)
    log = structlog.get_logger("app.somewhere")
    log.info("hidden")
    log.warning("model_refused", reason="hash")
    err = capsys.readouterr().err
    assert "model_refused" in err
    assert "hash" in err
    assert "hidden" not in err
    assert not err.startswith("{")


@pytest.mark.usefixtures("restored_logging")
def test_a_command_logs_in_a_process_that_a_service_has_configured(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    _log_to_standard_error()
    log = structlog.get_logger("app.somewhere")
    secret = "user-4711"
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("report_failed")
    out, err = capsys.readouterr()
    assert out == ""
    assert "report_failed" in err
    assert "ValueError: bad" in err
    assert secret not in err, "local variables stay out of tracebacks"


def test_a_throttle_lets_a_line_through_and_then_waits() -> None:
    often, seldom = LogThrottle(every_s=0.0), LogThrottle(every_s=3600.0)
    assert [often.admits() for _ in range(3)] == [True, True, True]
    assert [seldom.admits() for _ in range(3)] == [True, False, False]
