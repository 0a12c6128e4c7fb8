"""Write the report of a training run: `report.json`, its findings, and `report.html`, a page of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from app.training.report.page import render

PAGE, FINDINGS = "report.html", "report.json"


def write_report(folder: Path, findings: dict[str, Any]) -> tuple[str, ...]:
    """Write both files and return their names. NaN is `null` in the JSON. Raises OSError if it cannot."""
    raw = msgspec.json.encode(findings)
    (folder / FINDINGS).write_bytes(msgspec.json.format(raw, indent=1) + b"\n")
    (folder / PAGE).write_text(render(msgspec.json.decode(raw)), encoding="utf-8")
    return PAGE, FINDINGS
