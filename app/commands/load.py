"""`ctr load`: writes the features of users or items from a file to Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.commands.feature_store import with_redis_url
from app.commands.options import QuoteEscape
from app.commands.output import AsJson, console, emit, notify, warn
from app.errors import ConfigError

if TYPE_CHECKING:
    from app.features.loading.feature_loader import FeatureLoader, LoadSummary
    from app.features.loading.record_file import RecordFile
    from app.features.schema import FeatureSchema
    from app.settings import Settings


def load(
    entity: Annotated[Literal["users", "items"], typer.Argument(help="Whose features.")],
    file: Annotated[Path, typer.Argument(help=".csv, .tsv or .jsonl, also with .gz, or .parquet")],
    id_column: Annotated[str, typer.Option("--id", help="Column with the id.")] = "id",
    features: Annotated[
        Path | None,
        typer.Option(help="features.yaml to check the values by.", show_default="the schema of the live model"),
    ] = None,
    max_bad: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of rows that may be bad; with more, nothing is written.")
    ] = 0.001,
    merge: Annotated[
        bool, typer.Option("--merge", help="Update the columns of the file and keep what else is stored.")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove the users or items whose ids are in the file.")
    ] = False,
    ignore: Annotated[
        list[str] | None, typer.Option(help="A column that no field reads and that is meant so; repeatable.")
    ] = None,
    newest: Annotated[
        str | None,
        typer.Option(
            help="Column of times: of several rows of one user or item the newest is stored.",
            show_default="the last row",
        ),
    ] = None,
    quote_escape: QuoteEscape = None,
    as_json: AsJson = False,
) -> None:
    """Write features to Redis: one hash per user or item, each replaced whole.

    A list becomes a JSON array, weights ({"Drama": 3.0}) a JSON object; empty values are left out. A column that no
    field reads is refused where a field goes without, since it may be misspelt.

    Example: ctr load items items.csv --id item_id
    """
    from app.settings import load_settings

    settings = load_settings()
    if delete:
        if merge:
            raise ConfigError("--merge updates and --delete removes: choose one")
        _delete(settings, entity, file, id_column, quote_escape, as_json)
        return
    schema = known_schema(settings, features)
    if schema is None:
        notify("no --features given and no model live: values are stored unchecked")
    result = load_file(
        settings,
        entity,
        file,
        id_column=id_column,
        schema=schema,
        max_bad=max_bad,
        merge=merge,
        ignored=ignore or (),
        newest=newest,
        quote_escape=quote_escape,
    )
    if as_json:
        document: dict[str, object] = {
            "entity": entity,
            "loaded": result.loaded,
            "bad": result.bad,
            "seconds": round(result.seconds, 3),
            "rows_per_second": round(result.rows_per_second, 1),
        }
        notes = {"older_rows": result.older, "lost": result.lost, "lacking": result.lacking, "unread": result.unread}
        emit(document | {name: note for name, note in notes.items() if note})


def load_file(
    settings: Settings,
    entity: Literal["users", "items"],
    file: Path,
    *,
    id_column: str = "id",
    schema: FeatureSchema | None = None,
    max_bad: float = 0.001,
    merge: bool = False,
    ignored: Iterable[str] = (),
    newest: str | None = None,
    quote_escape: str | None = None,
    called: str | None = None,
) -> LoadSummary:
    """Load one file into the configured Redis, or the embedded Valkey, with a progress bar.

    Args:
        called: what messages name in place of a file that the user does not know.

    Raises:
        CtrError: the file cannot be read, has too many bad rows or a misspelt column, or the store does not take it.
    """
    from app.features.encoder import Encoder
    from app.features.loading.file_columns import FileColumns

    encoder = None if schema is None else Encoder(schema, "user" if entity == "users" else "item")
    columns = FileColumns(entity, id_column, encoder, ignored=[*ignored, *([newest] if newest else [])], merge=merge)
    with _open_loader(
        settings,
        entity,
        file,
        id_field=id_column,
        encoder=encoder,
        max_bad=max_bad,
        columns=columns,
        merge=merge,
        newest=newest,
        quote_escape=quote_escape,
    ) as (loader, records):
        result = loader.load(records)
    for note in records.notes:
        notify(note)
    for problem in result.problems:
        console.print(f"[yellow]left out:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    if result.lacking:
        lacking = f"{called or file} has no {', '.join(result.lacking)}"
        warn(f"{lacking}: these {entity} are served without; --merge keeps what is stored of them")
    if result.unread:
        warn(f"no field reads {', '.join(result.unread)}")
    console.print(
        f"loaded {result.loaded:,} {entity} from {escape(called or str(file))} in {result.seconds:.1f} s, "
        f"{result.rows_per_second:,.0f} rows/s; {result.bad} bad",
        highlight=False,
        soft_wrap=True,
    )
    if result.older:
        by = f"by {newest}" if newest else "the last; --newest COLUMN goes by a time"
        notify(f"{result.older:,} rows are older ones of {entity} that have several: the newest was stored ({by})")
    if result.lost:
        counts = ", ".join(f"{name} ({count:,} {entity})" for name, count in result.lost.items())
        warn(f"stored before and not any more: {counts}")
    return result


def _delete(
    settings: Settings,
    entity: Literal["users", "items"],
    file: Path,
    id_column: str,
    quote_escape: str | None,
    as_json: bool,
) -> None:
    from app.features.loading.file_columns import FileColumns

    columns = FileColumns(entity, id_column, None)
    with _open_loader(settings, entity, file, id_field=id_column, columns=columns, quote_escape=quote_escape) as (
        loader,
        records,
    ):
        removed = loader.delete(records)
    notify(f"removed {removed:,} {entity} that {file} names")
    if as_json:
        emit({"entity": entity, "removed": removed})


@contextlib.contextmanager
def _open_loader(
    settings: Settings,
    entity: Literal["users", "items"],
    file: Path,
    *,
    quote_escape: str | None = None,
    **options: Any,
) -> Iterator[tuple[FeatureLoader, RecordFile]]:
    """Open the file and the store, and yield a loader with a progress bar. Raises CtrError."""
    from app.features.key_template import KeyTemplate
    from app.features.loading.feature_loader import FeatureLoader
    from app.features.loading.record_file import RecordFile
    from app.features.redis_client import open_client

    records = RecordFile(file, escape=quote_escape)
    template = settings.user_key if entity == "users" else settings.item_key
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(with_redis_url(settings)).redis_url
        client = stack.enter_context(open_client(url))
        bar = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[rows]:,} rows"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
        )
        tasks: dict[str, TaskID] = {}

        def progress(phase: str, rows: int, fraction: float) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(f"{phase} {entity}", total=1.0, rows=0)
            bar.update(tasks[phase], completed=fraction, rows=rows)

        yield FeatureLoader(client, KeyTemplate(template), on_progress=progress, on_note=warn, **options), records


def known_schema(settings: Settings, features: Path | None) -> FeatureSchema | None:
    """Return the schema of the file, else of the live model, else None. Raises SchemaError, ArtifactError."""
    from app.features.schema import load_schema, schema_from_json

    if features is not None:
        return load_schema(features)
    from app.registry.store.model_store import ModelStore

    store = ModelStore(settings.model_store, settings.model)
    version = store.pointer().stable
    return None if version is None else schema_from_json(store.manifest(version).feature_schema)
