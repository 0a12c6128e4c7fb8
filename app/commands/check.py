"""`ctr check`: says what of a schema, a file and the feature store does not match the live version, and what to do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.completion import versions
from app.commands.feature_store import with_redis_url
from app.commands.options import QuoteEscape
from app.commands.output import AsJson, emit, notify
from app.commands.store_options import Model, Store, known_versions, no_live_version, open_store
from app.errors import ConfigError

if TYPE_CHECKING:
    import redis

    from app.inspection.finding import Finding
    from app.settings import Settings

FOUND = 1
"""Exit status where something does not match."""


def check(
    data: Annotated[
        Path | None, typer.Option(help="A file of impressions, or of users or items for `ctr load`: CSV, Parquet ...")
    ] = None,
    schema_file: Annotated[
        Path | None,
        typer.Option("--schema", "--features", help="features.yaml to go by.", show_default="the version's"),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Which version.", show_default="the live one", autocompletion=versions)
    ] = None,
    sample: Annotated[int, typer.Option(min=1, max=1_000_000, help="Users, items and rows to look at.")] = 1000,
    max_unknown: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of a field's values that the version may not know.")
    ] = 0.2,
    quote_escape: QuoteEscape = None,
    model: Model = None,
    model_store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Say what of schema, data and store does not match the live version, and what to do about each.

    It reads a sample and changes nothing: fields that hashes lack or nobody reads, values that fit no slot or that the
    version does not know, keys that the template does not find, types that differ between file and store.

    Exit status: 0 all matches; 1 something does not, or could not be looked at.

    Example: ctr check --data clicks.csv
    """
    from app.features.schema import load_schema
    from app.inspection.inspection import inspect

    settings, store = open_store(model, model_store)
    number = version or store.pointer().stable
    if number is None and schema_file is None:
        raise ConfigError(f"{no_live_version(store)}, or compare with a schema alone (--schema features.yaml)")
    if version is not None and version not in store.versions():
        raise ConfigError(f"there is no version {version} of {store.name}; there are {known_versions(store)}")
    live = None if number is None else store.load(number)
    schema = load_schema(schema_file) if schema_file else live.schema if live else None
    assert schema is not None
    found = inspect(
        schema,
        live,
        lambda: _open(settings),
        {"user": settings.user_key, "item": settings.item_key},
        data=data,
        escape=quote_escape,
        count=sample,
        max_unknown=max_unknown,
    )
    findings = [one for one in found.findings if not one.is_note]
    if as_json:
        documents = [asdict(one) for one in found.findings]
        emit({"model": store.name, "version": number, "sampled": found.sampled, "findings": documents})
    else:
        _show(found.findings)
        looked = ", ".join(f"{count:,} {what}" for what, count in found.sampled.items()) or "nothing"
        against = f"version {number} of {store.name}" if number else f"{schema_file}"
        plural = "thing does" if len(findings) == 1 else "things do"
        summary = f"{len(findings)} {plural} not match {against}" if findings else f"all matches {against}"
        notify(f"{summary}; looked at {looked}")
    if findings:
        raise typer.Exit(FOUND)


@contextlib.contextmanager
def _open(settings: Settings) -> Iterator[redis.Redis]:
    """Open the configured store, or the embedded one if it was used before. Raises CtrError."""
    from app.features.loading.embedded_valkey import was_used
    from app.features.redis_client import open_client

    folder = settings.data_dir / "valkey"
    if not settings.redis_url and not was_used(folder):
        raise ConfigError(f"no feature store: CTR_REDIS_URL is empty, and none was used in {folder}")
    with with_redis_url(settings) as opened, contextlib.closing(open_client(opened.redis_url)) as client:
        yield client


def _show(findings: list[Finding]) -> None:
    """Print the findings, notes last: lines on a terminal, in a pipe a line each with tabs between."""
    columns = ("check", "where", "field", "what", "do")
    findings = sorted(findings, key=lambda one: one.is_note)
    if not sys.stdout.isatty():
        for row in [columns, *((_check(one), one.where, one.field, one.message, one.advice) for one in findings)]:
            sys.stdout.write("\t".join(" ".join(cell.split()) for cell in row) + "\n")
        return
    from rich.console import Console
    from rich.markup import escape

    for one in findings:
        style, place = "yellow" if one.is_note else "red", " ".join(filter(None, (one.where, one.field)))
        Console().print(f"[{style}]{_check(one)}[/] {escape(place)}: {escape(one.message)}", highlight=False)
        Console().print(f"    {escape(one.advice)}", highlight=False)


def _check(finding: Finding) -> str:
    return "note" if finding.is_note else finding.check
