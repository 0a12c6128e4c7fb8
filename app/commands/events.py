"""The commands that look after an event log: `ctr events check`, `ctr events forget`, `ctr events drain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.event_options import EventsOption, Since, Until, files_from, in_utc, named_log
from app.commands.output import AsJson, console, emit, figures_table, notify, show_error, show_table, warn

if TYPE_CHECKING:
    from app.registry.artifact.artifact import Artifact

DIFFERENT = 1
"""Exit status where a score is another than the recorded one, or could not be computed."""


def check(
    events: EventsOption = None,
    since: Since = None,
    until: Until = None,
    tolerance: Annotated[float, typer.Option(min=0.0, max=1.0, help="Greatest difference that counts as none.")] = 1e-6,
    as_json: AsJson = False,
) -> None:
    """Score recorded answers again, by the versions that gave them, and compare with what they said.

    Where all are the same, a model that trains on the log sees what was served. Versions are read from
    CTR_MODEL_STORE; CTR_PRECISION has to be that of the service.

    Exit status: 0 all scores are the same; 1 some are not, or could not be computed.

    Example: ctr events check --events events --since 2026-11-29
    """
    from app.events.delivery.open_log import open_log
    from app.events.rescoring import rescore
    from app.features.item_tables import STATE_DTYPES
    from app.registry.artifact.load import ArtifactLoader
    from app.registry.store.model_store import ModelStore
    from app.settings import load_settings

    settings, place = load_settings(), named_log(events)
    since = in_utc(since)
    loader = ArtifactLoader()

    def load(model: str, version: int) -> Artifact:
        store = ModelStore.from_settings(settings.model_copy(update={"model": model}))
        return loader.load(store.path(version), trust=store.trust)

    with (
        console.status("reading the log") as status,
        open_log(place, since=files_from(since), report=status.update) as folder,
    ):
        found = rescore(
            folder,
            load,
            since=since,
            until=in_utc(until),
            dtype=STATE_DTYPES[settings.precision],
            tolerance=tolerance,
            report=lambda rows: status.update(f"{rows:,} items scored again"),
        )
    versions = [
        {"model": model, "version": version, "rows": rows} for (model, version), rows in found.by_version.items()
    ]
    versions += [
        {"model": model, "version": version, "problem": why} for (model, version), why in found.unavailable.items()
    ]
    if as_json:
        figures = {"rows": found.rows, "different": found.different, "largest_difference": found.largest}
        emit({**figures, "example": found.example, "without_slots": found.without_slots, "versions": versions})
    elif not versions:
        notify("no answers are recorded in that time")
    else:
        table = figures_table("scored again", "version", "items", "problem")
        for one in versions:
            table.add_row(f"{one['model']} {one['version']}", f"{one.get('rows', 0):,}", str(one.get("problem", "")))
        show_table(table)
        notify(f"the largest difference is {found.largest:.2g}; {found.without_slots:,} items have no slots in the log")
    if found.different:
        show_error(f"{found.different:,} of {found.rows:,} scores are not those recorded, as in {found.example}")
    if found.different or found.unavailable or found.without_slots:
        raise typer.Exit(DIFFERENT)


def forget(
    user: Annotated[str, typer.Argument(help="The user's id, as requests send it.")],
    events: EventsOption = None,
    as_json: AsJson = False,
) -> None:
    """Take the answers given to a user, and the feedback on them, out of the event log.

    Where CTR_EVENTS_ID_KEY is set, the id is looked for as it is recorded with that key. What is not in a finished file
    yet is found by running it again CTR_EVENTS_SEGMENT_S later. Rows that `ctr join` has made are joined anew into
    another folder, and versions trained anew, where the user is to be forgotten there too.

    Example: ctr events forget 42 --events events
    """
    from app.errors import ConfigError
    from app.events.delivery.open_log import open_log_to_change
    from app.events.event_writer import finish_orphans
    from app.events.forgetting import forget as forget_user
    from app.events.hashed_id import hashed_id
    from app.events.spool import SPOOL, SUFFIX
    from app.settings import load_settings

    if not user:
        raise ConfigError("name the user; the answers given to guests name nobody")
    settings, place = load_settings(), named_log(events)
    if place.kind == "folder" and not place.folder.is_dir():
        raise ConfigError(f"{place}: no such folder")
    recorded = hashed_id(user, settings.events_id_key.get_secret_value()) if settings.events_id_key else user
    with (
        console.status("looking for the user") as status,
        open_log_to_change(place, report=status.update) as folder,
    ):
        finish_orphans(folder)
        forgotten = forget_user(folder, recorded, lambda looked: status.update(f"{looked:,} files looked at"))
        open_files = len(list((folder / SPOOL).glob(f"*{SUFFIX}")))
    if forgotten.answers:
        notify(f"{forgotten.answers:,} answers, and the feedback on them, are forgotten")
    elif not forgotten.waiting:
        how = "by their hash with CTR_EVENTS_ID_KEY" if settings.events_id_key else "as they are, without a key"
        notify(f"no finished file has an answer given to {user}; ids are looked for {how}, as they have to be recorded")
    if forgotten.waiting:
        warn(f"{forgotten.waiting:,} answers stay, as feedback on them is in a file that is not finished yet")
    if open_files:
        warn(
            f"{open_files} files are not finished yet, and what is in them stays: run this again "
            f"{settings.events_segment_s:g} s from now, or after the next start of the service"
        )
    if place.kind == "bucket":
        warn(
            "what is not delivered yet was not looked at: feedback in it will stay, on answers that are no longer there"
        )
    if as_json:
        emit({"forgotten": forgotten.answers, "waiting": forgotten.waiting, "open_files": open_files})


def drain(
    out: Annotated[Path, typer.Option(help="Folder that becomes the log; it is created, or gone on with.")],
    events: Annotated[str | None, typer.Option(help="redis://HOST:PORT/STREAM.", show_default="CTR_EVENTS")] = None,
    group: Annotated[str, typer.Option(help="Consumer group; each group is given everything.")] = "ctr-drain",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C, whatever the server does.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write what a stream has of an event log into a folder, for all that reads a log in a folder.

    What is written is acknowledged, and nothing else: one that was killed goes on where it was. Have one run for each
    group, and often enough: a stream keeps CTR_EVENTS_STREAM_LENGTH files, read or not.

    Example: ctr events drain --events redis://localhost:6379/ctr-events --out events --follow
    """
    from app.errors import ConfigError
    from app.events.delivery.stream_drain import DrainCounts, drain_stream

    place = named_log(events)
    if place.kind != "stream":
        raise ConfigError(f"{place} is no stream: it is read as it is, by ctr join for one")
    counts = DrainCounts()
    with console.status("reading the stream") as status:

        def report(problem: str) -> None:
            what = problem or f"{counts.files:,} files with {counts.records:,} records written"
            status.update(what)

        try:
            drain_stream(place, out, counts, group=group, follow=follow, report=report)
        except KeyboardInterrupt:
            if not follow:
                raise
    notify(f"{counts.files:,} files with {counts.records:,} records written: {out}")
    if counts.trimmed:
        warn(
            f"{counts.trimmed:,} files are lost: the stream dropped them unread; drain it more often, or raise "
            "CTR_EVENTS_STREAM_LENGTH"
        )
    if counts.foreign:
        warn(f"{counts.foreign:,} entries of the stream are no files of an event log")
    if as_json:
        emit({"files": counts.files, "records": counts.records, "trimmed": counts.trimmed, "foreign": counts.foreign})
