"""`Secrets`: a password and a key of this run alone, looked for in every answer and every log line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from benchmarks.faults.row import Check, Row

if TYPE_CHECKING:
    from benchmarks.faults.bed import FaultBed


@dataclass
class Secrets:
    """A password and keys of one run, which nothing may tell."""

    password: str = field(default_factory=lambda: "pw-" + token_hex(12))
    """Of every feature store."""
    key: str = field(default_factory=lambda: "key-" + token_hex(12))
    """In `CTR_API_KEYS`."""
    admin_key: str = field(default_factory=lambda: "admin-" + token_hex(12))
    looked_at: int = 0
    """Number of answers that were searched."""
    leaks: list[str] = field(default_factory=list)
    """Where one was found."""

    @property
    def texts(self) -> list[bytes]:
        return [text.encode() for text in (self.password, self.key, self.admin_key)]

    def look(self, answer: bytes, where: str) -> None:
        """Look for the secrets in an answer."""
        self.looked_at += 1
        if any(text in answer for text in self.texts):
            self.leaks.append(where)


def _secrets_are_kept(bed: FaultBed) -> Sequence[Check]:
    secrets, lines = bed.secrets, 0
    bed.ask_for_secrets()
    leaks = list(secrets.leaks)
    for log in sorted(Path(bed.testbed.folder).glob("**/*.log")):
        for line in log.read_bytes().splitlines():
            lines += 1
            if any(text in line for text in secrets.texts):
                leaks.append(f"{log.name}: {line[:80].decode(errors='replace')}")
    seen = f"{secrets.looked_at:,} answers and {lines:,} log lines hold {len(leaks)} of them"
    return [Check(f"{seen} ({leaks[0]})" if leaks else seen, not leaks)]


ROWS = (
    Row(
        "secrets",
        "a password and keys of this run alone, looked for through the whole run",
        "in no log line or response",
        _secrets_are_kept,
        smoke=True,
    ),
)
