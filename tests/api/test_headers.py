"""Tests of what is read from a request's headers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.api.headers import request_id_of, timeout_s_of
from app.errors import InvalidRequest

ROOT = Path(__file__).parents[2]
FORK = """
import os
from app.api.headers import request_id_of
child = os.fork()
os.write(1, f"{request_id_of({})} ".encode())  # at once: two writes of one line would be mixed with the other's
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("sent", ["", "a b", "a\tb", 'a"b', "a" * 129, "é"])
def test_an_unfit_request_id_is_replaced(sent: str) -> None:
    made = request_id_of({b"x-request-id": sent.encode("latin-1")})
    assert made != sent
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", made)


def test_made_up_request_ids_differ() -> None:
    assert len({request_id_of({}) for _ in range(1000)}) == 1000


def test_a_forked_worker_makes_up_ids_of_its_own() -> None:
    run = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, check=True, text=True)
    parents, childs = (made.partition("-")[0] for made in run.stdout.split())
    assert parents != childs


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (None, 1.0),
        (b"250", 0.25),
        (b"0.5", 0.0005),
        (b"5000", 1.0),
        (b"2.5e2", 0.25),
        (b"1E-1", 0.0001),
        (b"1e300", 1.0),
        (b"1e999", 1.0),
        (b"0.0001", 1e-7),
    ],
)
def test_a_client_may_ask_for_less_time(sent: bytes | None, seconds: float) -> None:
    headers = {} if sent is None else {b"x-request-timeout-ms": sent}
    assert timeout_s_of(headers, 1.0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "sent", [b"", b"0", b"-5", b"nan", b"inf", b"5e-324", b"1e", b"1_0", b"0x1", b" 5", b"soon", b"9" * 400]
)
def test_a_time_that_is_no_number_is_refused(sent: bytes) -> None:
    with pytest.raises(InvalidRequest, match="X-Request-Timeout-Ms"):
        timeout_s_of({b"x-request-timeout-ms": sent}, 1.0)
