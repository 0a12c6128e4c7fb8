"""`track_run`: writes what `ctr train` did to MLflow as well."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from app.commands.output import notify, warn

if TYPE_CHECKING:
    from app.training.job_results import JobResult
    from app.training.publish import Destination
    from app.training.tracking import Tracking


def track_run(tracking: Tracking, destination: Destination, result: JobResult) -> None:
    """Write the run to MLflow. The version is safe by now, so that a server that fails costs a warning."""
    folder = destination.folder
    try:
        run = tracking.log(
            f"version {destination.version}" if destination.version else folder.name,
            config=result.config.as_document(),
            metrics=result.metrics,
            epochs=[
                {"train_loss": e.train_loss, "validation_loss": e.validation_loss or 0.0} for e in result.fitted.epochs
            ],
            tags={"version_dir": str(folder), "version": str(destination.version), "command": command_line()},
            files=[file for file in (folder / "report.html", folder / "report.json") if file.is_file()],
        )
        notify(f"MLflow run {run}")
    except Exception as error:
        warn(f"the run could not be written to MLflow: {type(error).__name__}: {error}")


def command_line() -> str:
    """Return the command that is running, as a shell reads it, without passwords."""
    from app.training.tracking import without_password

    return shlex.join(["ctr", *(without_password(argument) for argument in sys.argv[1:])])
