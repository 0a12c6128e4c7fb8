"""The sections of the page that are tables: the result beside the baselines, the data, and how to run it again."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from app.training.report.tables import folded, number, percent, table

METRICS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "log loss",
    "pr_auc": "PR-AUC",
    "calibration": "predicted / observed",
    "ece": "ECE",
}
PARTS = ("train", "validation", "test")
Found = Mapping[str, Any]


def result(found: Found) -> str:
    own = f"{found['model']['architecture']}, test part"
    metrics = found["metrics"]
    rows = {own: metrics["test"], **{_plain(n): m for n, m in found["baselines"].items()}}
    if found["calibration"]["method"] != "none":
        rows["before calibration, test part"] = found["uncalibrated"]["test"]
    rows["validation part (chose the epoch)"] = metrics["validation"]
    known = [metric for metric in METRICS if metric in metrics["test"]]
    shown = table(
        "The baselines were fitted on the same training rows and are measured on the same test rows.",
        ["", *(METRICS[metric] for metric in known)],
        [[name, *(number(values.get(metric)) for metric in known)] for name, values in rows.items()],
        own=own,
    )
    return shown + (
        "<p class='quiet'>AUC, GAUC (within users) and PR-AUC: higher is better. Log loss (nats) and ECE: lower. "
        "Predicted over observed clicks: 1 is right.</p>"
    )


def data(found: Found) -> str:
    data = found["data"]
    parts = [part for part in PARTS if part in data]
    rows = []
    for part in parts:
        window = [data[part].get(end, "–") for end in ("from", "to")]
        rows.append([part, f"{data[part]['rows']:,}", percent(data[part]["ctr"]), *window])
    shown = table("", ["part", "rows", "clicks", "from", "to"], rows)
    notes = [str(data["skipped"])] if data.get("skipped") else []
    notes += [f"{field}: {said}" for field, said in data.get("unreadable", {}).items()]
    shown += "".join(f"<p>{escape(note)}</p>" for note in notes)
    fields = []
    for field in found["fields"]:
        learned = (
            f"{field['in_table']:,} of {field['distinct']:,} values"
            if "distinct" in field
            else f"{field['mean']:.4g} ± {field['deviation']:.3g}, {field['buckets']} buckets"
        )
        fields.append(
            [field["name"], f"{field['entity']}, {field['type'].replace('_', ' ')}", learned]
            + [percent(field["missing"].get(part)) for part in PARTS]
            + [percent(field["unseen"].get(part)) for part in PARTS]
        )
    columns = ["field", "kind", "learned", *(f"missing, {p}" for p in PARTS), *(f"unseen, {p}" for p in PARTS)]
    caption = (
        "Missing: rows without a value. Unseen: values that share their field's out-of-vocabulary row, new since "
        "training or too rare in it."
    )
    return shown + table(caption, columns, fields, words=True)


def reproduce(reproduce: Found) -> str:
    command = reproduce["command"]
    shown = f"<pre>{escape(command)}</pre>" if command else "<p>It was not started from the command line.</p>"
    rows = [["seed", reproduce["seed"]], ["feature schema", reproduce["schema_hash"]]]
    rows += [[name, version] for name, version in reproduce["versions"].items()]
    rows += [[f"SHA-256 of the encoded {part} rows", digest] for part, digest in reproduce["digest"].items()]
    config = [[key, value] for key, value in _flat(reproduce["config"])]
    return (
        shown
        + table("", ["", ""], rows, words=True)
        + folded("All options", table("", ["option", "value"], config, words=True))
    )


def _flat(config: Found, prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, str(value)))
    return found


def _plain(name: str) -> str:
    return name.replace("_", " ")
