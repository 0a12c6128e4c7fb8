"""Read a line of JSON as a row, by the rules that training, loading and `schema infer` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from app.errors import DataError
from app.features.tables.line_blocks import BOM
from app.features.tables.table_kind import check_text

NO_JSON = "are not JSON objects"
KEY_TWICE = "name a key twice"
MAX_REASON = 200


class JsonRowError(ValueError):
    """A line is no row: `reason` says of such lines what they are, the message what this one is."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


_decode = msgspec.json.Decoder(Any).decode


def json_row(line: bytes) -> dict[str, Any]:
    """Return the row on a line of JSON. NaN, which is not JSON and which pandas writes, is read as such.

    Raises:
        JsonRowError: it is no object, or names a key twice, of which nobody knows which is meant.
    """
    row: Any
    try:
        row = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        row = _with_nan(line) if b"NaN" in line or b"Infinity" in line else None
        if row is None:
            raise JsonRowError(NO_JSON, f"is not JSON: {str(error)[:MAX_REASON]}") from error
    if not isinstance(row, dict):
        raise JsonRowError(NO_JSON, "is not a JSON object")
    # Text may look like a key, so that this only says where to look; it is quick.
    if line.count(b":") > len(row) and line.count(b'":') + line.count(b'" :') > len(row):
        _refuse_repeated(line)
    return row


def check_json(path: Path, head: bytes) -> None:
    """Raise DataError if a file that begins with these bytes is not JSON lines; it says how to convert it."""
    check_text(path, head)
    lines = head.removeprefix(BOM).lstrip().splitlines()
    first = lines[0].strip() if lines else b""
    if first.startswith(b"["):
        raise DataError(f"{path}: is one JSON array; one object on each line is needed: `jq -c '.[]'` writes it so")
    if first == b"{" or (first.startswith(b'{"') and first.endswith((b",", b"{", b"[", b":"))):
        raise DataError(f"{path}: its objects take several lines; one on each line is needed: `jq -c .` writes it so")


def _with_nan(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _refuse_repeated(line: bytes) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise JsonRowError(KEY_TWICE, f"names {twice[0]!r} twice")

    json.loads(line, object_pairs_hook=unique)
