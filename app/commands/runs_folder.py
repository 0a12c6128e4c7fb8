"""The folder of a command's runs: `runs` in the working folder, or one among the temporary files."""

from __future__ import annotations

from pathlib import Path

from app.commands.output import warn

RUNS = Path("runs")


def runs_folder() -> Path:
    """Return where versions, checkpoints and encoded files of a run go.

    Where the working folder is read-only it is a folder of this user's among the temporary files, and a note says so.
    """
    from app.runtime.writable import private_folder, writable_folder

    folder = writable_folder([RUNS])
    if folder is None:
        folder = private_folder("ctr-runs")
        if folder is None:
            return RUNS  # whoever writes there says why that fails
        warn(f"{RUNS.absolute()} cannot be written to: what this run keeps goes to {folder}")
    return folder
