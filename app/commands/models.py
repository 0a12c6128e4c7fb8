"""The model store by hand: publish, promote, rollback, models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.output import console, emit
from app.errors import ArtifactError, ConfigError
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from app.registry.gate.gate_report import GateReport
    from app.registry.store.model_store import ModelStore


class LabelName(StrEnum):
    stable = "stable"
    canary = "canary"
    shadow = "shadow"


Model = Annotated[str | None, typer.Option("--model", help="Folder under the model store.", show_default="CTR_MODEL")]
Store = Annotated[Path | None, typer.Option("--model-store", help="The model store.", show_default="CTR_MODEL_STORE")]
Force = Annotated[
    bool, typer.Option("--force", help="Judge it again, and let it pass however it compares with the live version.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def publish(
    version_dir: Annotated[Path, typer.Argument(help="A version as `ctr train` leaves it: program, tables, manifest.")],
    live: Annotated[bool, typer.Option("--live/--no-live", help="Make it the stable version too.")] = True,
    force: Force = False,
    model: Model = None,
    model_store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Copy a version into the model store under the next number, check the copy, and make it live.

    Example: ctr publish runs/deepfm-2026-01-31
    """
    from app.publishing.gate_version import gate_version, prune_old_versions

    settings, store = _store(model, model_store)
    version = store.publish_copy(version_dir)
    report = gate_version(store, version, settings=settings, forced=force) if live else None
    if live:
        store.promote(version)
    removed = prune_old_versions(store, settings)
    console.print(f"{store.name} {version} is published{' and stable' if live else ''}: {store.path(version)}")
    if as_json:
        place = {"version": version, "version_dir": str(store.path(version)), "pruned": removed}
        emit({"model": store.name, **place, "gate": report, **_serving(store)})


def promote(
    version: Annotated[int, typer.Argument(help="A number that `ctr models` lists.")],
    label: Annotated[LabelName, typer.Option("--as", help="Which traffic it gets.")] = LabelName.stable,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of users a canary answers.")] = 0.05,
    force: Force = False,
    model: Model = None,
    model_store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Point a label at a published version, once it has passed the gate. One that was refused needs --force.

    Example: ctr promote 8 --as canary --share 0.05
    """
    from app.publishing.gate_version import check_not_refused, gate_version

    settings, store = _store(model, model_store)
    known = store.versions()
    if version not in known:
        listed = ", ".join(map(str, known)) or "none yet"
        raise ConfigError(f"{store.name} has no version {version}; published in {store.folder}: {listed}")
    if not force:
        check_not_refused(store, version)
    report = gate_version(store, version, settings=settings, forced=force)
    store.promote(version, label.value, share)
    with_share = f" for {share:.1%} of users" if label is LabelName.canary else ""
    console.print(f"{store.name} {version} is {label.value}{with_share}")
    if as_json:
        emit({"model": store.name, "version": version, "label": label.value, "gate": report, **_serving(store)})


def rollback(
    label: Annotated[
        LabelName, typer.Option("--as", help="A canary or shadow is taken away; stable returns to the one before.")
    ] = LabelName.stable,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="Return to this one, which was stable once; no other will do.")
    ] = None,
    model: Model = None,
    model_store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Return to the version that was stable before; where that no longer loads, to the next older that does.

    Example: ctr rollback
    """
    _, store = _store(model, model_store)
    if label is not LabelName.stable:
        store.update_pointer(**{label.value: None})
        console.print(f"{store.name} has no {label.value} any more")
        if as_json:
            emit({"model": store.name, "label": label.value, "version": None, "passed_over": [], **_serving(store)})
        return
    left = store.pointer().stable
    version, passed_over = (_that_was_stable(store, to, left), []) if to else _newest_that_loads(store, left)
    store.roll_back(version)
    for refused in passed_over:
        console.print(f"passed over {refused['version']}: {refused['message']}", markup=False)
    console.print(f"{store.name} {version} is stable again, in place of {left}")
    if as_json:
        emit(
            {"model": store.name, "label": "stable", "version": version, "passed_over": passed_over, **_serving(store)}
        )


def models(model: Model = None, model_store: Store = None, as_json: AsJson = False) -> None:
    """List the published versions, what each scored when it was trained, and which labels it has.

    Example: ctr models --json
    """
    _, store = _store(model, model_store)
    serving = _serving(store)
    rows = [_row(store, version, serving["serving"]) for version in store.versions()]
    if as_json:
        emit({"model": store.name, **serving, "versions": rows})
        return
    from rich.console import Console
    from rich.table import Table

    if serving["problem"]:
        console.print(serving["problem"], markup=False)
    table = Table(
        "version", "labels", "created", "architecture", "test AUC", "log loss", "gate", title=f"{store.folder}"
    )
    for row in rows:
        test = row["metrics"].get("test") or row["metrics"].get("validation") or {}
        figures = [f"{test[name]:.4f}" if name in test else "" for name in ("auc", "log_loss")]
        created = row["created_at"] or row["problem"]
        table.add_row(
            str(row["version"]),
            ", ".join(row["labels"]),
            created,
            row["architecture"],
            *figures,
            _judgement(row["gate"]),
        )
    Console().print(table if rows else f"No version in {store.folder} yet: `ctr train --publish` makes one")


def _store(model: str | None, model_store: Path | None) -> tuple[Settings, ModelStore]:
    from app.publishing.gate_version import open_store

    settings = load_settings(model=model, model_store=model_store)
    return settings, open_store(settings)


def _that_was_stable(store: ModelStore, version: int, left: int | None) -> int:
    once = [number for number in store.rollback_candidates(before=left) if number in store.history()]
    if version not in once:
        listed = ", ".join(map(str, once)) or "none"
        raise ConfigError(f"{store.name} has no version {version} to return to; stable before {left} were: {listed}")
    store.load(version)
    return version


def _newest_that_loads(store: ModelStore, left: int | None) -> tuple[int, list[dict[str, Any]]]:
    passed_over = []
    for version in store.rollback_candidates(before=left):
        try:
            store.load(version)
        except ArtifactError as error:
            passed_over.append({"version": version, "reason": error.reason, "message": str(error)})
        else:
            return version, passed_over
    tried = f"; {', '.join(str(refused['version']) for refused in passed_over)} do not load" if passed_over else ""
    raise ConfigError(f"{store.name} {left} is stable and there is no earlier version to return to{tried}")


def _serving(store: ModelStore) -> dict[str, Any]:
    """The pointer's content, or what is wrong with it."""
    import msgspec

    try:
        pointer = msgspec.structs.replace(store.pointer(), seal=None)
        return {"serving": msgspec.to_builtins(pointer), "problem": None}
    except ArtifactError as error:
        return {"serving": {}, "problem": str(error)}


def _row(store: ModelStore, version: int, serving: dict[str, Any]) -> dict[str, Any]:
    from app.registry.gate.gate_report import read_report

    held = {label: held["version"] if isinstance(held, dict) else held for label, held in serving.items()}
    row: dict[str, Any] = {
        "version": version,
        "labels": [label for label, held_by in held.items() if held_by == version],
    }
    report = read_report(store.path(version))
    row["gate"] = report
    try:
        manifest = store.manifest(version)
    except ArtifactError as error:
        return row | {"created_at": "", "architecture": "", "metrics": {}, "problem": str(error)}
    details = {"created_at": manifest.created_at, "architecture": manifest.architecture, "metrics": manifest.metrics}
    return row | details | {"schema_hash": manifest.schema_hash, "data": manifest.data, "problem": None}


def _judgement(report: GateReport | None) -> str:
    if report is None:
        return ""
    if report.refusal is not None:
        return f"refused: {report.refusal.reason}"
    return "forced" if not all(check.passed for check in report.checks) else "passed"
