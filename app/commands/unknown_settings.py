"""`unknown_settings`: finds `CTR_*` variables that are no settings: a misspelt one would be ignored in silence."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from app.settings import Settings

_NOT_OURS = re.compile(
    r"CTR_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_.+)?)?)|CTR_RETRAIN_EVERY"
)
"""What Kubernetes sets for a Service whose name begins with `ctr`, and what docker-compose.yml reads itself."""
_NAME = re.compile(r"^\s*(?:export\s+)?(CTR_\w+)\s*=", re.IGNORECASE | re.MULTILINE)


def unknown_settings() -> list[str]:
    """Return a line for every `CTR_*` variable, of the environment or of `.env`, that is no setting."""
    try:
        text = Path(".env").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    given = {name.upper() for name in (*os.environ, *_NAME.findall(text)) if name.upper().startswith("CTR_")}
    known = {f"CTR_{name.upper()}" for name in Settings.model_fields}
    lines = []
    for name in sorted(given - known):
        if not _NOT_OURS.fullmatch(name):
            nearest = difflib.get_close_matches(name, known, 1, 0.7)
            advice = f"did you mean {nearest[0]}?" if nearest else "docs/reference.md lists those that are"
            lines.append(f"{name[:80]} is no setting and is not read; {advice}")
    return lines
