"""`ctr score`: scores the rows of a table offline, as the service would."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.completion import published_models, versions
from app.commands.options import QuoteEscape
from app.commands.output import AsJson, console, emit, notify, warn
from app.commands.store_options import load_version, no_live_version, open_store
from app.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".csv", ".parquet")


def score(
    data: Annotated[Path, typer.Option(help="CSV, TSV, JSON lines or Parquet: a row for each user and item.")],
    out: Annotated[Path, typer.Option(help="File to write, .csv or .parquet; one that exists is replaced once whole.")],
    version: Annotated[
        int | None, typer.Option(min=1, help="Which version.", show_default="the live one", autocompletion=versions)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Of which model.", show_default="CTR_MODEL", autocompletion=published_models)
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A column to write beside the ids; repeatable.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score though columns are missing; their fields are, too.")
    ] = False,
    max_bad: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of unreadable rows that are left out; more of them stop it.")
    ] = 0.0,
    quote_escape: QuoteEscape = None,
    as_json: AsJson = False,
) -> None:
    """Score a table: the probabilities are those that POST /rank gives for the same features.

    A row holds the features of a user, an item and the request, with the columns that the model was trained on. Files
    may be larger than memory. Written are the row's number, the ids, the columns to keep and the score.

    Exit status: 0 all rows are scored, or all but so many unreadable ones as --max-bad allows, which are named;
    1 anything else, and then nothing is written.

    Example: ctr score --data candidates.parquet --out scores.parquet --keep at
    """
    from app.training.data.encoding_progress import EncodingProgress
    from app.training.score_table import TableScores, score_table

    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out {out}: name a file that ends in {' or '.join(SUFFIXES)}")
    if data.exists() and out.exists() and out.samefile(data):
        raise ConfigError(f"--out {out}: that is the table itself, which the scores would replace; name another file")
    settings, store = open_store(model, None)
    number = version or store.pointer().stable
    if number is None:
        raise ConfigError(no_live_version(store))
    artifact = load_version(store, number)
    totals = TableScores()
    with EncodingProgress(console, data.name, "scoring") as progress, _writer(out) as write:
        for frame in score_table(
            data,
            artifact,
            totals,
            keep=keep or (),
            allow_missing=allow_missing,
            escape=quote_escape,
            max_bad=max_bad,
            report=progress.report,
        ):
            write(frame)
    if totals.absent:
        warn(f"scored as missing, because the table has no such column: {', '.join(totals.absent)}")
    for name, skipped in totals.unreadable.items():
        warn(f"{name}: {skipped}")
    if totals.bad.count:
        warn(f"{data}: {totals.bad}")
    notify(f"{totals.rows:,} rows scored by {settings.model} {number}, mean {totals.mean:.4f}: {out}")
    if as_json:
        emit(
            {
                "model": settings.model,
                "version": number,
                "rows": totals.rows,
                "mean": totals.mean,
                "bad": totals.bad.count,
                "unreadable": {name: skipped.count for name, skipped in totals.unreadable.items()},
                "absent": list(totals.absent),
                "out": str(out),
            }
        )


@contextlib.contextmanager
def _writer(out: Path) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Write tables one below the other into a file that has its name once it is whole. Raises ConfigError."""
    temporary = out.with_name(f".tmp-{out.name}")
    try:
        with contextlib.ExitStack() as stack:
            yield _parquet(temporary, stack) if out.suffix.lower() == ".parquet" else _csv(temporary, stack)
        temporary.replace(out)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _csv(path: Path, stack: contextlib.ExitStack) -> Callable[[pl.DataFrame], None]:
    file = stack.enter_context(path.open("wb"))

    def write(frame: pl.DataFrame) -> None:
        frame.write_csv(file, include_header=file.tell() == 0)

    return write


def _parquet(path: Path, stack: contextlib.ExitStack) -> Callable[[pl.DataFrame], None]:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError("--out FILE.parquet needs `pip install ctr-serving[events]`; .csv does not") from error
    writers: list[pq.ParquetWriter] = []

    def write(frame: pl.DataFrame) -> None:
        table = frame.to_arrow()
        if not writers:
            writers.append(stack.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd")))
        writers[0].write_table(table.cast(writers[0].schema))

    return write
