"""The report of a run: `report.json`, what was found, and `report.html`, the same for people, beside the version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from app.training.report.page import render

PAGE, FINDINGS = "report.html", "report.json"


def write_report(folder: Path, findings: dict[str, Any]) -> tuple[str, ...]:
    """Both files; returns their names. NaN is `null` in the JSON. Raises OSError."""
    raw = msgspec.json.encode(findings)
    (folder / FINDINGS).write_bytes(msgspec.json.format(raw, indent=1) + b"\n")
    (folder / PAGE).write_text(render(msgspec.json.decode(raw)), encoding="utf-8")
    return PAGE, FINDINGS
