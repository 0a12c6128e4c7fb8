"""Requests that schemathesis makes of the OpenAPI document: valid ones, ones that break it, and those at its bounds.

The service records answers, has a catalogue and an admin, so that all routes answer; the pages, which the document
leaves out, are added to it. What answers, also with an error, must answer what the document says of that route.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.bed import FaultBed
from benchmarks.faults.corpus import MAX_ANSWER, MAX_ERROR, OPEN_DOCUMENTS, SEED, unexplained_size
from benchmarks.faults.row import Check, Row, Skipped
from benchmarks.faults.service import Service

CASES, SMOKE_CASES = 2000, 60
ADMIN_CASES, SMOKE_ADMIN_CASES = 6, 2
"""Of each admin route: one that names the version that is there has it judged, in a process that takes seconds."""
PAGES = {"/": "text/html", "/docs": "text/html", "/redoc": "text/html", "/openapi.json": "application/json"}
REJECTION = "negative_data_rejection"
CONFORMANCE = (
    *("status_code_conformance", "content_type_conformance", "response_schema_conformance"),
    *("response_headers_conformance", REJECTION, "unsupported_method", "allow_header_conformance"),
)
"""Checks of schemathesis. Not all that fits the document is accepted: a feature may fit no slot of the version."""
GENERATION = {"allow-extra-parameters": False, "with-security-parameters": False}
"""A parameter that no route knows is ignored, as proxies add some; cases without a key would not reach what parses."""
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
OF_CONNECTIONS = ("408", "431")
"""Statuses of any route, which the document has in what it says of all others; a long parameter makes a 431."""
TOO_LARGE = (413, 431)
"""Refusals that schemathesis does not count as such."""
MAX_SHOWN, MAX_SAID = 5, 300
BOUNDS_S = 300


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

    def checks(self, operations: int) -> list[Check]:
        statuses = ", ".join(f"{times:,} x {status}" for status, times in sorted(self.statuses.items()))
        total = self.statuses.total()
        return [
            Check(f"{total:,} cases over {operations} operations: {statuses}", total > 0),
            Check(f"{len(self.wrong)} answers other than the document says", not self.wrong),
            *(Check(text, ok=False) for text in self.wrong[:MAX_SHOWN]),
            Check(f"the largest answer {self.largest:,} bytes (of {MAX_ANSWER:,})", self.largest <= MAX_ANSWER),
            Check(
                f"the largest error {self.largest_error:,} bytes (of {MAX_ERROR:,})", self.largest_error <= MAX_ERROR
            ),
        ]


def strict_document(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the pages, and without what allows any other status to be a problem."""
    for path, media_type in PAGES.items():
        answers = {"200": {"description": "A page", "content": {media_type: {}}}}
        document["paths"][path] = {"get": {"responses": answers}}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("default", None)
            for status in OF_CONNECTIONS:
                operation["responses"].setdefault(status, {"description": "", "content": PROBLEM})
    return document


def _schema_cases(bed: FaultBed) -> Sequence[Check]:
    try:
        import schemathesis  # noqa: F401
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed: pip install 'ctr-serving[dev]'") from error
    secrets = bed.secrets
    catalogue = bed.testbed.folder / "schema-catalogue"
    catalogue.mkdir(exist_ok=True)
    for kind in ("users", "items"):
        lines = ({"id": str(number), "title": f"Number {number}", "year": 1900 + number} for number in range(100))
        (catalogue / f"{kind}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "CTR_EVENTS": str(bed.testbed.folder / "schema-events"),
        "CTR_CATALOGUE": str(catalogue),
        "CTR_ADMIN_KEY": secrets.admin_key,
    }
    with bed.service("schema", settings=settings) as service:
        document = strict_document(service.get("/openapi.json").json())
        headers = service.headers | {"X-Admin-Key": secrets.admin_key}
        admin_cases = bed.count(ADMIN_CASES, SMOKE_ADMIN_CASES)
        checks = _drawn(service, document, headers, bed.count(CASES, SMOKE_CASES), admin_cases)
        if not bed.smoke:
            checks.append(_at_the_bounds(service, document, headers, bed.testbed.folder))
        health = service.health()["status"]
    return [*checks, Check(f"/health is {health} afterwards", health == "ok")]


def _drawn(
    service: Service, document: dict[str, Any], headers: Mapping[str, str], count: int, admin_count: int
) -> list[Check]:
    """Send requests that are drawn at random, from what the document allows and from what it does not."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from schemathesis import GenerationMode
    from schemathesis.core.failures import Failure, FailureGroup

    seen = _Seen(service)
    config = schemathesis.Config.from_dict({"generation": GENERATION})
    operations = [
        result.ok() for result in schemathesis.openapi.from_dict(document, config=config).get_all_operations()
    ]
    # The checks are known once a schema was read.
    chosen, rejection = (schemathesis.checks.CHECKS.get_by_names(names) for names in (list(CONFORMANCE), [REJECTION]))
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    varied = [one for one in operations if one.body or any(one.iter_parameters())]
    each = max(5, count // (len(modes) * len(varied)))
    for operation, mode in itertools.product(operations, modes):

        @seed(SEED)
        @settings(
            max_examples=admin_count if operation.path.startswith("/admin") else each,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            answer = case.call(base_url=service.url, headers=headers, timeout=60)
            seen.add(case.path, answer.status_code, answer.content)
            try:
                excluded = rejection if answer.status_code in TOO_LARGE else []
                case.validate_response(answer, chosen, excluded_checks=excluded)
            except (Failure, FailureGroup) as error:
                said = " ".join(str(error).split())[:MAX_SAID]
                seen.wrong.append(f"{case.method} {case.path}: {answer.status_code}: {said}")

        try:
            send()
        except Exception as error:
            if "Unsatisfiable" not in type(error).__name__:  # a route without parameters has no wrong ones
                raise
    return seen.checks(len(operations))


def _at_the_bounds(service: Service, document: dict[str, Any], headers: Mapping[str, str], folder: Path) -> Check:
    """Send what schemathesis calls coverage: each value at, just within and just beyond what the document allows."""
    path = folder / "schema.json"
    path.write_text(json.dumps(document))
    named = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(path), "--url", service.url, *named]
    options = ["--phases", "coverage", "--continue-on-failure", "--no-color", "--request-timeout", "60"]
    done = subprocess.run(
        [*command, *options, "--checks", ",".join(CONFORMANCE), "--seed", str(SEED)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BOUNDS_S,
        check=False,
    )
    generated = re.search(r"([\d,]+) generated", done.stdout)
    found = re.findall(r"^- (ST\d+ .*)$|^(Network Error)", done.stdout, re.MULTILINE)
    seen = f"{generated[1] if generated else 'no'} cases at the bounds: {len(found)} other than the document says"
    return Check(seen if not found else f"{seen}: {found[:MAX_SHOWN]}", done.returncode == 0 and generated is not None)


ROWS = (
    Row(
        "schemathesis",
        "schemathesis, 2,000 cases over all routes",
        "every answer as the document says, 0 of 500, no answer over 64 KB, explanations aside, errors at most 4 KB",
        _schema_cases,
        smoke=True,
    ),
)
