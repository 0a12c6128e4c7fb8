"""Make the rows of the tables on the page from the findings, as text that is not yet escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.training.data.split import PARTS
from app.training.evaluation.metrics import METRIC_LABELS

MAX_CURVE_ROWS = 20
MAX_PAIRS, MAX_DRAWN_FIELDS = 20, 28
UNKNOWN = "–"
Findings = Mapping[str, Any]
Rows = list[list[str]]


def table_rows(findings: Findings) -> dict[str, Any]:
    """Return what the templates show in tables, by the name that they know it by."""
    crosses = findings["crosses"]
    shown = "omitted" not in crosses
    return {
        "result": _result(findings),
        "comparison": _comparison(findings),
        "epoch_rows": _epoch_rows(findings["training"]["epochs"]),
        "curves": _curves(findings),
        "calibration_rows": _calibration_rows(findings),
        "reliability_rows": _reliability_rows(findings["calibration"]["test"]["after"]),
        "score_rows": _score_rows(findings["scores"]),
        "user_rows": _user_rows(findings["users"]),
        "importance_rows": _importance_rows(findings["importance"]["fields"]),
        "pair_rows": _pair_rows(crosses) if shown else [],
        "fields_not_drawn": len(crosses["fields"]) - len(drawn_crosses(crosses)[0]) if shown else 0,
        "part_rows": _part_rows(findings["data"]),
        "field_columns": [
            *("field", "kind", "learned"),
            *(f"missing, {part}" for part in PARTS),
            *(f"unseen, {part}" for part in PARTS),
        ],
        "field_rows": [_field_row(field) for field in findings["fields"]],
        "version_rows": _version_rows(findings["reproduce"]),
        "option_rows": _option_rows(findings["reproduce"]["config"]),
    }


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with so many digits after the point, or a dash for one that is not known."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """Return a share as a percentage, or a dash for one that is not known."""
    if share is None:
        return UNKNOWN
    return f"{share:.1%}" if share == 0 or share >= 0.001 else "<0.1%"


def thousands(count: int) -> str:
    """Return a whole number with a comma between thousands."""
    return f"{count:,}"


def drawn_crosses(crosses: Findings) -> tuple[list[str], list[list[float]]]:
    """Return the fields with the strongest crosses, in their order, and the strength of their pairs."""
    names, strength = crosses["fields"], crosses["strength"]
    strongest = sorted(range(len(names)), key=lambda field: -sum(strength[field]))[:MAX_DRAWN_FIELDS]
    chosen = sorted(strongest)
    return [names[field] for field in chosen], [[strength[row][column] for column in chosen] for row in chosen]


def _result(findings: Findings) -> dict[str, Any]:
    """Return the columns and rows of the metrics, and the first cell of the model's own row."""
    model_row = f"{findings['model']['architecture']}, test part"
    metrics = findings["metrics"]
    by_name = {model_row: metrics["test"], **{name.replace("_", " "): m for name, m in findings["baselines"].items()}}
    if findings["calibration"]["method"] != "none":
        by_name["before calibration, test part"] = findings["uncalibrated"]["test"]
    by_name["validation part (chose the epoch)"] = metrics["validation"]
    shown_metrics = [metric for metric in METRIC_LABELS if metric in metrics["test"]]
    return {
        "model_row": model_row,
        "columns": ["", *(METRIC_LABELS[metric] for metric in shown_metrics)],
        "rows": [[name, *(number(values.get(metric)) for metric in shown_metrics)] for name, values in by_name.items()],
    }


def _comparison(findings: Findings) -> dict[str, Any]:
    """Return the columns and rows of the 95 % intervals on the test part, and of the differences from each baseline."""
    metrics, differences = findings["metrics"]["test"], findings["verdict"]["differences"]["test"]
    rows = [[f"{findings['model']['architecture']}, test part", *_intervals(metrics), UNKNOWN, UNKNOWN]]
    for name, baseline in findings["baselines"].items():
        difference = differences.get(name, {})
        paired = [_signed_interval(difference.get(metric)) for metric in ("auc", "log_loss")]
        rows.append([name.replace("_", " "), *_intervals(baseline), *paired])
    return {
        "columns": ["", "AUC", "log loss", "AUC of the model minus its", "log loss of the model minus its"],
        "rows": rows,
        "notes": [[name.replace("_", " "), note] for name, note in findings["baseline_notes"].items() if note],
    }


def _intervals(metrics: Findings) -> list[str]:
    return [f"{number(metrics[f'{m}_low'])} to {number(metrics[f'{m}_high'])}" for m in ("auc", "log_loss")]


def _signed_interval(interval: Findings | None) -> str:
    if interval is None or interval["value"] is None or interval["low"] is None:
        return UNKNOWN
    return f"{interval['value']:+.4f} ({interval['low']:+.4f} to {interval['high']:+.4f})"


def _epoch_rows(epochs: Sequence[Findings]) -> Rows:
    return [
        [
            str(epoch_number),
            number(epoch["train_loss"], 5),
            number(epoch["validation_loss"], 5),
            number(epoch["seconds"], 2),
        ]
        for epoch_number, epoch in enumerate(epochs, 1)
    ]


def _curves(findings: Findings) -> list[dict[str, Any]]:
    """Return the name, area, drawing and some points of each curve; none where all labels are equal."""
    curves, metrics = findings["curves"], findings["metrics"]["test"]
    if not curves["roc"]:
        return []
    shown = []
    for name, drawing, metric in (("ROC", "roc", "auc"), ("Precision-recall", "pr", "pr_auc")):
        points = curves[drawing]
        some = points[:: max(1, len(points) // MAX_CURVE_ROWS)]
        rows = [[number(x, 3), number(y, 3)] for x, y in some]
        shown.append({"name": name, "drawing": drawing, "area": metrics[metric], "rows": rows})
    return shown


def _calibration_rows(findings: Findings) -> Rows:
    rows = []
    for part in ("validation", "test"):
        after, before = findings["metrics"][part], findings["uncalibrated"][part]
        scaled = findings["calibration"]["method"] != "none"
        by_name = {"before": before, "after": after} if scaled else {"as trained": after}
        for name, metrics in by_name.items():
            rows.append([f"{part}, {name}", *(number(metrics[m]) for m in ("log_loss", "ece", "calibration"))])
    return rows


def _reliability_rows(bins: Sequence[Findings]) -> Rows:
    return [[number(bin_["predicted"]), number(bin_["observed"]), thousands(bin_["rows"])] for bin_ in bins]


def _score_rows(scores: Findings) -> Rows:
    edges = scores["edges"]
    bins = zip(edges, edges[1:], scores["click"], scores["none"], strict=False)
    return [[f"{low:.3f} to {high:.3f}", thousands(click), thousands(none)] for low, high, click, none in bins]


def _user_rows(users: Findings) -> Rows:
    if "omitted" in users:
        return []
    bins = zip(users["edges"], users["edges"][1:], users["weights"], strict=False)
    return [[f"{low:.2f} to {high:.2f}", percent(weight)] for low, high, weight in bins]


def _importance_rows(fields: Sequence[Findings]) -> Rows:
    return [
        [field["field"], field["entity"], number(field["log_loss"], 5), number(field["auc"], 5)] for field in fields
    ]


def _pair_rows(crosses: Findings) -> Rows:
    names, strength = crosses["fields"], crosses["strength"]
    pairs = [
        (strength[left][right], names[left], names[right])
        for left in range(len(names))
        for right in range(left + 1, len(names))
        if strength[left][right] > 0
    ]
    return [[f"{left} x {right}", number(value, 5)] for value, left, right in sorted(pairs, reverse=True)[:MAX_PAIRS]]


def _part_rows(data: Findings) -> Rows:
    rows = []
    for part in (part for part in PARTS if part in data):
        period = [str(data[part].get(end, UNKNOWN)) for end in ("from", "to")]
        rows.append([part, thousands(data[part]["rows"]), percent(data[part]["ctr"]), *period])
    return rows


def _field_row(field: Findings) -> list[str]:
    if "distinct" in field:
        learned = f"{thousands(field['in_table'])} of {thousands(field['distinct'])} values"
    else:
        learned = f"{field['mean']:.4g} ± {field['deviation']:.3g}, {field['buckets']} buckets"
    return [
        field["name"],
        f"{field['entity']}, {field['type'].replace('_', ' ')}",
        learned,
        *(percent(field["missing"].get(part)) for part in PARTS),
        *(percent(field["unseen"].get(part)) for part in PARTS),
    ]


def _version_rows(reproduce: Findings) -> Rows:
    return [
        ["seed", str(reproduce["seed"])],
        ["feature schema", reproduce["schema_hash"]],
        *([name, version] for name, version in reproduce["versions"].items()),
        *([f"SHA-256 of the encoded {part} rows", digest] for part, digest in reproduce["digest"].items()),
    ]


def _option_rows(config: Findings, prefix: str = "") -> Rows:
    rows: Rows = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            rows += _option_rows(value, f"{prefix}{key}.")
        else:
            rows.append([prefix + key, str(value)])
    return rows
