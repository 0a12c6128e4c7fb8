"""What becomes of each odd file: the encoded rows of the plain table, by training and by loading, or one line."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.errors import CtrError, EncodingError
from app.features.encoder import Encoder
from app.features.fields import SIDES
from app.features.loading.record_file import RecordFile
from app.features.loading.stored_text import stored_text
from app.features.schema import parse_schema
from app.training.data.catalogue import open_dataset
from app.training.data.schema_proposal import propose_schema
from app.training.preprocessing.encode import encode
from tests.corpus.odd_files import ODD_FILES, OddFile, Row

FEATURES = """
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: item_id, entity: item, type: categorical, id: true}
  - {name: title, entity: item, type: categorical}
  - {name: price, entity: item, type: numeric}
"""
SCHEMA = parse_schema(FEATURES)
ENCODERS = {side: Encoder(SCHEMA, side) for side in SIDES}
MAX_BAD = 0.02
SAME = "the plain rows"
PAGE = Path(__file__).parents[2] / "docs" / "odd-files.md"
BEGIN = """# Odd files

Files as programs and people write them, and what becomes of them: the encoded rows of the plain file, or one line
that says what to do. `ctr train`, `ctr load` and `ctr schema infer` read by the same rules (`app/features/tables`);
where they differ, `ctr load` is in the second line. A row more that is bad is left out and named, as
[data.md](data.md) says; more than `--max-bad` of them end the run, which is 2 % here. This page is made from the
files of `tests/corpus` by `python -m tests.corpus`; a test fails where it is out of date.

| file | what is odd | what becomes of it |
|---|---|---|
"""

Keys = list[list[int]]


def keys_of(row: dict[str, object]) -> list[int]:
    """Return the slots of a row as they are served: keys, and values as bits."""
    slots: list[int] = []
    for side in SIDES:
        stored = {name: text for name, value in row.items() if (text := stored_text(value, name)) is not None}
        own_id = stored.get("user_id" if side == "user" else "item_id")
        encoded = ENCODERS[side].encode(stored, own_id)
        slots += [int(key) for key in encoded.keys]
        slots += np.asarray(encoded.values, np.float32).view(np.int32).tolist()
    return slots


def expected(rows: list[Row]) -> Keys:
    """Return the slots of the plain rows."""
    return [keys_of({name: row[name] for name in ("user_id", "item_id", "title", "price")}) for row in rows]


def trained(odd: OddFile, path: Path, features: Path) -> str:
    """Return what `ctr train` makes of a file."""
    try:
        data = open_dataset(
            "table", path, features=features, label="clicked", timestamp="at", escape=odd.escape, max_bad=MAX_BAD
        )
        encoded = encode(data)
    except CtrError as error:
        return f"refused: {error}"
    slots: list[npt.NDArray[np.int64]] = []
    for side in SIDES:
        both = encoded.side(side)
        slots += [both.keys.astype(np.int64), both.values.astype(np.float32).view(np.int32).astype(np.int64)]
    found = np.concatenate(slots, axis=1).tolist()
    assert data.timestamps_N is not None
    same = (
        found == expected(odd.rows)
        and data.labels_N.tolist() == [row["clicked"] for row in odd.rows]
        and data.timestamps_N.tolist() == [row["at"] for row in odd.rows]
    )
    assert not encoded.unreadable
    left_out = f"; {data.skipped}" if data.skipped.count else ""
    notes = f" ({'; '.join(data.notes)})" if data.notes else ""
    return (SAME if same else "OTHER ROWS") + left_out + notes


def loaded(odd: OddFile, path: Path) -> str:
    """Return what `ctr load` makes of a file."""
    found: Keys = []
    bad: list[str] = []
    try:
        for record in RecordFile(path, escape=odd.escape):
            values = dict(record.values)
            if record.problem:
                bad.append(f"{record.place} {record.problem}")
                continue
            try:
                found.append(keys_of({name: values.get(name) for name in ("user_id", "item_id", "title", "price")}))
            except EncodingError as error:
                bad.append(f"{record.place}: {error}")
    except CtrError as error:
        return f"refused: {error}"
    if len(bad) > MAX_BAD * (len(found) + len(bad)):
        return f"refused: {len(bad)} bad rows, {bad[0]}"
    if not found:
        return "refused: holds no rows"
    if found[:-1] == expected(odd.rows):
        return f"{SAME}, and the row more: it reads no time"
    return (SAME if found == expected(odd.rows) else "OTHER ROWS") + (f"; left out: {bad[0]}" if bad else "")


def proposed(odd: OddFile, path: Path) -> str:
    """Return what `ctr schema infer` makes of a file."""
    try:
        propose_schema(path, label="clicked", escape=odd.escape)
    except CtrError as error:
        return f"refused: {error}"
    return "proposed"


@functools.cache
def outcomes(odd: OddFile) -> tuple[str, str, str]:
    """Return what training, loading and inferring make of a file, with its name for its path."""
    with tempfile.TemporaryDirectory() as folder:
        path, features = Path(folder) / odd.name, Path(folder) / "features.yaml"
        odd.write(path)
        features.write_text(FEATURES)
        results = trained(odd, path, features), loaded(odd, path), proposed(odd, path)
    train, load, infer = (result.replace(f"{folder}/", "") for result in results)
    return train, load, infer


def page() -> str:
    """Return the page of all files."""
    rows = []
    for odd in ODD_FILES:
        train, load, _ = outcomes(odd)
        cells = (
            [train]
            if load in (train, SAME) and not (train.startswith("refused") and load == SAME)
            else [train, f"load: {load}"]
        )
        escape = f" `--escape '{odd.escape}'`" if odd.escape else ""
        rows.append(f"| `{odd.name}`{escape} | {odd.what} | {'<br>'.join(map(in_cell, cells))} |")
    return BEGIN + "\n".join(rows) + "\n"


def in_cell(text: str) -> str:
    """Return text as it may be in a table of Markdown."""
    return text.replace("|", "\\|").replace("\r", "␍").replace("\0", "␀")
