"""Requests that schemathesis makes of the OpenAPI document: valid ones, and ones that break it in one place."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.faults.bed import FaultBed
from benchmarks.faults.corpus import MAX_ANSWER, MAX_ERROR, OPEN_DOCUMENTS, SEED, unexplained_size
from benchmarks.faults.row import Check, Row, Skipped
from benchmarks.faults.service import Service

CASES = 2000


class _Seen:
    """What was answered."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.largest = self.largest_error = 0

    def add(self, path: str, status: int, body: bytes) -> None:
        self._service.secrets.look(body, path)
        self.statuses[status] += 1
        if status >= 400:
            self.largest_error = max(self.largest_error, len(body))
        elif path not in OPEN_DOCUMENTS:
            self.largest = max(self.largest, unexplained_size(body))


def _schema_cases(bed: FaultBed) -> Sequence[Check]:
    try:
        import schemathesis
        from hypothesis import HealthCheck, Phase, given, seed, settings
        from schemathesis import GenerationMode
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed: pip install 'ctr-serving[dev]'") from error
    service = bed.usual()
    seen = _Seen(service)
    document = service.client.get(f"{service.url}/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    operations = [result.ok() for result in schema.get_all_operations()]
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    each = max(5, bed.count(CASES, 60) // (len(modes) * len(operations)))
    for operation, mode in itertools.product(operations, modes):

        @seed(SEED)
        @settings(
            max_examples=each,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            answer = case.call(base_url=service.url, headers=service.headers, timeout=15)
            seen.add(case.path, answer.status_code, answer.content)
            if answer.status_code >= 500 and answer.status_code != 504:
                seen.wrong.append(f"{case.method} {case.path}: {answer.status_code}")

        try:
            send()
        except Exception as error:
            if "Unsatisfiable" not in type(error).__name__:  # a route without parameters has no wrong ones
                raise
    statuses = ", ".join(f"{times:,} x {status}" for status, times in sorted(seen.statuses.items()))
    server_errors = sum(times for status, times in seen.statuses.items() if status >= 500)
    late = seen.statuses[504]
    return [
        Check(
            f"{seen.statuses.total():,} cases over {len(operations)} operations: {statuses}", seen.statuses.total() > 0
        ),
        Check(f"{server_errors - late} of 5xx ({late} more asked for less time than there is)", server_errors == late),
        *(Check(text, ok=False) for text in seen.wrong[:5]),
        Check(f"the largest answer {seen.largest:,} bytes (of {MAX_ANSWER:,})", seen.largest <= MAX_ANSWER),
        Check(f"the largest error {seen.largest_error:,} bytes (of {MAX_ERROR:,})", seen.largest_error <= MAX_ERROR),
    ]


ROWS = (
    Row(
        "schemathesis",
        "schemathesis, 2,000 cases over all routes",
        "0 of 5xx, no answer over 64 KB, explanations aside, error bodies at most 4 KB",
        _schema_cases,
    ),
)
