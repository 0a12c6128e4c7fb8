"""`ctr key`: makes a key for callers or for the admin."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.commands.output import AsJson, emit, notify


def key(
    name: Annotated[
        str, typer.Argument(help="Who it is for: named in metrics and logs.", metavar="[NAME]", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it once, with the hash that CTR_API_KEYS or CTR_ADMIN_KEY takes in its place.

    To change a caller's key, add the new hash under the same name, hand the key over, and remove the old hash.

    Example: ctr key shop
    """
    from app.errors import ConfigError
    from app.header_keys import NAME, hashed, new_key

    if name and not NAME.fullmatch(name):
        raise ConfigError(f"name {name!r}: use at most 64 letters, digits, '_', '-' and '.'")
    made = new_key()
    if as_json:
        emit({"key": made, "hash": hashed(made, name)})
        return
    notify("The key, for the caller; it is kept nowhere and shown this once. Then its hash, for the settings:")
    sys.stdout.write(f"{made}\n{hashed(made, name)}\n")
