"""`ctr models`: lists the published versions."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from app.commands.output import AsJson, emit, notify, show_table, warn
from app.commands.store_options import Model, Store, open_store

if TYPE_CHECKING:
    from rich.table import Table

    from app.registry.gate.gate_report import GateReport
    from app.registry.store.version_table import VersionRow

WIDE = 110
"""In fewer columns the times of a version stand below each other."""


def models(model: Model = None, model_store: Store = None, as_json: AsJson = False) -> None:
    """List the published versions, what each scored when it was trained, and which labels it has.

    Example: ctr models --json
    """
    from app.registry.store.pointer import POINTER
    from app.registry.store.version_table import read_row, read_serving

    _, store = open_store(model, model_store)
    serving, problem = read_serving(store)
    rows = [read_row(store, version, serving.versions_by_label()) for version in store.versions()]
    if as_json:
        documents = [_document(row) for row in rows]
        emit({"model": store.name, "serving": serving, "problem": problem, "versions": documents})
        return
    from rich.console import Console

    if problem:
        warn(problem)
    if not rows:
        others = sorted(each.parent.name for each in store.folder.parent.glob(f"*/{POINTER}"))
        other = f"; {store.folder.parent} has {', '.join(others)}, which CTR_MODEL or --model names" if others else ""
        notify(f"No version in {store.folder} yet: `ctr train --publish` makes one{other}")
        return
    notify(str(store.folder))
    show_table(_table(rows, narrow=sys.stdout.isatty() and Console().width < WIDE))
    if len({_test_rows(row) for row in rows} - {""}) > 1:
        notify(
            "AUC and log loss of different test rows cannot be compared: the rows differ, and not only the versions."
        )


def _document(row: VersionRow) -> dict[str, Any]:
    document: dict[str, Any] = {"version": row.version, "labels": row.labels, "gate": row.gate}
    if row.manifest is None:
        return document | {"created_at": "", "architecture": "", "metrics": {}, "problem": row.problem}
    names = ("created_at", "architecture", "metrics", "schema_hash", "data")
    return document | {name: getattr(row.manifest, name) for name in names} | {"problem": None}


def _table(rows: list[VersionRow], *, narrow: bool) -> Table:
    from rich.table import Table

    tested = {_test_rows(row) for row in rows} - {""}
    table = Table(collapse_padding=True, pad_edge=False)
    for column in ("version", "labels", "created", "model", "AUC", "log\nloss" if narrow else "log loss", "gate"):
        table.add_column(column, overflow="fold")
    if tested:
        table.add_column("test rows,\nfrom, to" if narrow else "test rows", no_wrap=True)
    for row in rows:
        metrics = row.manifest.metrics if row.manifest else {}
        test = metrics.get("test") or metrics.get("validation") or {}
        table.add_row(
            str(row.version),
            ", ".join(row.labels),
            _minute(row.manifest.created_at).replace(" ", "\n" if narrow and tested else " ")
            if row.manifest
            else row.problem,
            row.manifest.architecture if row.manifest else "",
            *(f"{test[name]:.4f}" if name in test else "" for name in ("auc", "log_loss")),
            _verdict(row.gate),
            *([re.sub(", | to ", "\n", _test_rows(row)) if narrow else _test_rows(row)] if tested else []),
        )
    return table


def _test_rows(row: VersionRow) -> str:
    """Say which rows a version was tested on: how many, and from when to when."""
    test = row.manifest.data.get("test") if row.manifest else None
    if not isinstance(test, dict) or "rows" not in test:
        return ""
    span = [_minute(test[end]) for end in ("from", "to") if end in test]
    return f"{test['rows']:,}" + (f", {span[0]} to {span[1]}" if len(span) == 2 else "")


def _minute(time: object) -> str:
    """Write an ISO 8601 time as people do, to the minute."""
    return str(time)[:16].replace("T", " ")


def _verdict(report: GateReport | None) -> str:
    if report is None:
        return ""
    if report.refusal is not None:
        return f"refused: {report.refusal.reason}"
    return "forced" if not all(check.passed for check in report.checks) else "passed"
