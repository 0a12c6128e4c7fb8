"""The last states of users and items that were trained on: written to files, or loaded into the feature store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from app.commands.output import notify, warn
from app.commands.unexpected_errors import in_one_line
from app.errors import ConfigError

if TYPE_CHECKING:
    from app.settings import Settings
    from app.training.data.dataset import Dataset


def export_states_of(rows: Dataset, folder: Path, asked_for: str) -> None:
    """Write the last state of users and items, and say why where there is none to write."""
    from app.features.fields import SIDES, WITHOUT_ID
    from app.training.data.state_files import export_states

    try:
        written = export_states(rows, folder)
    except OSError as error:  # the trained version must not be lost by it
        warn(f"{asked_for}: nothing was written to {folder}: {in_one_line(error)}")
        return
    if written and asked_for == "--export":
        notify(f"Wrote {' and '.join(f'{count:,} {side}s' for side, count in written.items())} to {folder}")
    for side in SIDES:
        if side not in written and rows.schema.side(side):
            warn(
                f"{asked_for}: no {side}s, as no field of theirs is marked `id: true` in the schema: {WITHOUT_ID[side]}"
            )


def check_folder(folder: Path) -> None:
    """Raise ConfigError if nothing can be written into the folder: before an hour of training, and not after it."""
    from app.runtime.writable import writable_folder

    if writable_folder([folder]) is None:
        raise ConfigError(f"--export {folder}: no file can be written there; name a folder that is yours")


def load_states(settings: Settings, rows: Dataset, folder: Path, called: str | None = None) -> None:
    """Load what was exported to the folder into the feature store.

    Args:
        called: what messages name in place of a folder that the user does not know.
    """
    from app.commands.load import load_file

    entities: tuple[Literal["users", "items"], ...] = ("users", "items")
    for entity in entities:
        file = folder / f"{entity}.jsonl"
        if file.is_file() and file.stat().st_size:
            load_file(settings, entity, file, schema=rows.schema, called=called)
