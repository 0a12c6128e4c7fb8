"""How often Python looks for garbage while a process imports what it needs."""

from __future__ import annotations

import gc

WHILE_IMPORTING = (100_000, 20, 50)
"""By default every 700 new objects are looked at, and ever again all before them. To import torch and what else a
version or a training needs makes a million, all of which stay: a sixth of the time of it (0.2 to 0.5 s)."""


def collect_rarely() -> None:
    """Have this process look for garbage a hundred times less often; for one that imports much, and then ends soon."""
    gc.set_threshold(*WHILE_IMPORTING)
