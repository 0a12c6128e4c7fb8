"""`ctr promote` and `ctr rollback` for a running service: in a process of their own, with the service's settings.

They take seconds and gigabytes (the gate; loading what to go back to), of which a process that answers requests has
none to spare. Started by `subprocess`, which does not copy the page tables of a process that has mapped large ones.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from app.commands.output import emit
from app.errors import ActionFailed, ArtifactError, ConfigError, CtrError
from app.settings import Settings

PACKAGE_ROOT = str(Path(__file__).parents[2])
PASSED_ON = (
    "redis_url", "redis_timeout_ms", "user_key", "item_key", "data_dir", "model_store", "model", "keep_versions",
    "signing_key", "trusted_keys", "gate_timeout_s", "gate_memory_mb", "gate_ctr_ratio", "gate_rank_correlation",
    "gate_latency_ratio", "gate_known_keys",
)  # fmt: skip
"""Settings of the service that the commands read."""
BESIDES_S = 60.0
"""Allowed for what is not the gate's."""
END_S = 5.0
MAX_SAID = 200


class StoreCommands:
    """Blocking; one at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, command: str, *arguments: str) -> dict[str, Any]:
        """What the command says with `--json`.

        Raises:
            ArtifactError, ConfigError: as the command does.
            ActionFailed: it did not come to an end, or not to an orderly one.
        """
        if self._stopped:
            raise ActionFailed("the service is stopping")
        pipe = subprocess.PIPE
        line = [sys.executable, "-P", "-W", "ignore", "-m", "app.publishing.store_commands", command, *arguments]
        with subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=self._environment(), start_new_session=True
        ) as process:
            self._process = process
            try:
                out, said = process.communicate(timeout=self._settings.gate_timeout_s + BESIDES_S)
            except subprocess.TimeoutExpired:
                _end(process)
                raise ActionFailed(f"ctr {command} did not end in time") from None
            finally:
                self._process = None
        try:
            document: dict[str, Any] = msgspec.json.decode(out)
        except msgspec.DecodeError:
            last = (said.decode(errors="replace").strip().splitlines() or [f"exit status {process.returncode}"])[-1]
            raise ActionFailed(f"ctr {command} failed: {last[:MAX_SAID]}") from None
        if process.returncode == 0:
            return document
        if document["reason"]:
            raise ArtifactError(document["reason"], document["message"])
        raise ConfigError(document["message"])

    def stop(self) -> None:
        """End what is at work, from any thread."""
        self._stopped = True
        if self._process is not None:
            _interrupt(self._process)

    def _environment(self) -> dict[str, str]:
        # Metrics of several processes lie in a folder that is the service's alone.
        ours = ("CTR_", "PROMETHEUS_MULTIPROC_DIR", "PYTHONPATH")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment["PYTHONPATH"] = PACKAGE_ROOT
        for name in PASSED_ON:
            value = getattr(self._settings, name)
            if value is not None:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                environment[f"CTR_{name.upper()}"] = text
        return environment


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does: the command ends the gate's own process before it goes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def _end(process: subprocess.Popen[bytes]) -> None:
    _interrupt(process)
    try:
        process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def main() -> None:
    """`promote VERSION` or `rollback [VERSION]`: the command's document, or exit status 1 and what was raised."""
    from app.commands.models import LabelName, promote, rollback

    command, *numbers = sys.argv[1:]
    version = int(numbers[0]) if numbers else None
    try:
        if command == "promote" and version is not None:
            promote(version, label=LabelName.stable, as_json=True)
        else:
            rollback(to=version, label=LabelName.stable, as_json=True)
    except CtrError as error:
        emit({"reason": error.reason if isinstance(error, ArtifactError) else "", "message": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
