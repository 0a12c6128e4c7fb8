"""What `ctr train` shows of a result: the table, what the test part proves, and what may be wrong with the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from app.commands.output import console, figures_table, notify, warn

if TYPE_CHECKING:
    from app.features.schema import FeatureSchema
    from app.registry.store.model_store import ModelStore
    from app.training.data.dataset import Dataset
    from app.training.job_results import JobResult

LEAK_ROWS = 100_000


def show_result(model: str, result: JobResult, rows: Dataset) -> None:
    """Print the table beside the baselines and all that should be known about it, before anything is published."""
    from app.training.evaluation.evidence import evidence, is_too_good

    for field, skipped in result.unreadable.items():
        warn(f"{field}: {skipped}")
    console.print(_table(model, result))
    if rows.weights:
        notify(f"Metrics are weighted: {rows.weights.note}.")
    notify(f"Calibration: {result.calibration.in_words}.")
    test = result.metrics["test"]
    for sentence in evidence(test, result.verdict, result.rows["test"], result.clicks["test"]):
        notify(sentence + ".")
    trained = len(result.fitted.epochs)
    if result.fitted.best_epoch + 1 == trained == result.config.trainer.epochs:
        notify(f"The last of {trained} epochs was the best: it was still improving, and more --epochs may do better.")
    best = max((test, *result.baselines.values()), key=lambda metrics: metrics["auc"])  # a baseline may find it first
    if is_too_good(best):
        leaks = _leaks(rows)
        fields = "; ".join(f"{name}: {reason}" for name, reason in leaks.items())
        which = f"these fields tell the label: {fields}" if fields else "look at the importance of fields in the report"
        warn(f"AUC {best['auc']:.4f} is too good to be true: a field may hold what the click causes; {which}")
    for reason in result.verdict.poor:
        console.print(f"[bold red]This model is poor:[/] {escape(reason)}.", highlight=False, soft_wrap=True)


def note_other_schema(store: ModelStore, schema: FeatureSchema) -> None:
    """Say before hours of training that what is live under this name reads other features."""
    from app.registry.store.version_table import read_row, read_serving

    stable = read_serving(store)[0].stable
    manifest = None if stable is None else read_row(store, stable, {}).manifest
    if manifest is not None and manifest.schema_hash != schema.hash:
        warn(
            f"version {stable} of {store.name}, which is live, reads other features (it was trained on "
            f"{manifest.data.get('dataset', 'other data')}): the new one is compared with it before it goes live, and "
            "may be refused; --name NEW publishes it as a model of its own"
        )


def _leaks(rows: Dataset) -> dict[str, str]:
    """Return the fields whose values, or whose being there, follow from the label, with the reason."""
    import polars as pl

    from app.features.fields import SIDES
    from app.training.data.column_profile import ColumnProfile
    from app.training.data.label_leaks import label_leak

    labels = pl.Series("label", rows.labels_N[:LEAK_ROWS]).cast(pl.Int64)
    leaks: dict[str, str] = {}
    for side in SIDES:
        if len(rows.side(side)) != len(rows):  # mapped from a file larger than memory
            continue
        for name in dict.fromkeys(field.raw_name for field in rows.schema.side(side)):
            series = rows.side(side)[name][:LEAK_ROWS]
            series = series.replace("", None) if series.dtype == pl.String else series
            reason = label_leak(ColumnProfile(series), labels)
            if reason:
                leaks[name] = reason
    return leaks


def _table(model: str, result: JobResult) -> Table:
    from app.training.evaluation.metrics import METRIC_LABELS

    shown = [metric for metric in METRIC_LABELS if metric in result.metrics["test"]]
    title = f"{result.rows['test']:,} test rows, {result.clicks['test']:,} clicks"
    table = figures_table(title, "model", *(METRIC_LABELS[metric] for metric in shown))
    rows = {model: result.metrics["test"]}
    if result.refitted_metrics:
        rows[f"{model}, refitted"] = result.refitted_metrics
    for name, metrics in {**rows, **result.baselines}.items():
        style = "bold" if name in rows else ""
        table.add_row(
            name if name in rows else name.replace("_", " "),
            *(f"{metrics[metric]:.4f}" for metric in shown),
            style=style,
        )
    return table
