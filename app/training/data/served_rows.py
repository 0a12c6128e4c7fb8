"""Rows that a service recorded and `ctr join` made: their slots are those that were scored, so nothing is encoded.

Each answer becomes a row for every item that was on the screen, with the user's slots and the item's. The rows are
written out once, as flat arrays in an encoded folder (`encoded_folder.py`), and mapped from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from app.errors import ConfigError, DataError
from app.events.joining.bucket_join import NOT_SHOWN
from app.events.joining.join import STATE, parts, read_answers
from app.events.logged_schema import Entity, LoggedSchema, read_logged_schema
from app.events.records import SERVED
from app.features.fields import SIDES, AnyField, Side
from app.features.schema import FeatureSchema, load_schema
from app.features.slot_layout import SlotLayout
from app.features.slots import Slots
from app.runtime.file_lock import locked
from app.training.data.encoded_folder import FORMAT, META_FILE, EncodedFolder, EncodedFolderMeta
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.mapped_dataset import MappedDataset
from app.training.data.readers.bad_rows import SkippedRows
from app.training.data.schema_differences import schema_differences
from app.training.data.served_schema import ServedSchema
from app.training.data.shard_encoding import ARRAY_NAMES, ReportProgress
from app.training.data.weight_columns import UNWEIGHTED, WeightColumns
from app.training.distributed import SINGLE_PROCESS, ProcessGroup

ANSWERS_AT_ONCE = 2_000


@dataclass(frozen=True)
class ServedDataset(MappedDataset):
    """Maps the rows that a service recorded. Their raw features are in the feature store alone."""

    row_limits: EncodingLimits = DEFAULT_LIMITS

    @property
    def limits(self) -> EncodingLimits:
        return self.row_limits

    def states(self, side: Side) -> pl.DataFrame | None:
        raise ConfigError("rows that a service recorded hold no features to load: the feature store has them already")


def open_served(
    path: Path,
    features: Path | None,
    cache: Path,
    *,
    report: ReportProgress | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    limits: EncodingLimits = DEFAULT_LIMITS,
    weighting: WeightColumns = UNWEIGHTED,
    schema_owner: str | None = None,
) -> ServedDataset:
    """Open the rows that `ctr join` made.

    Args:
        path: the folder that it wrote.
        features: a `features.yaml` that has to be the schema of the rows; by default that of the newest.
        cache: folder of encoded folders.
        group: the processes that open it; the first of each machine writes the arrays.
        weighting: the share of the rows without a click that were kept, if not all were.
        schema_owner: what the schema in `features` is of, say `version 7`; None if the user named the file.

    Raises:
        ConfigError: the cache cannot be written, or the schema is not that of the rows.
        DataError: there are no such rows, or they cannot be read.
    """
    if not (path / STATE).is_file():
        raise DataError(f"{path}: `ctr join --events DIR --out {path}` has written nothing there yet")
    files = parts(path)
    if not files:
        raise DataError(f"{path}: no answers are joined yet; a span is joined once it and the window after it are over")
    served = _newest_schema(path, files, features, schema_owner)
    schema = served.schema
    state = (path / STATE).read_bytes()
    digest = hashlib.sha256(msgspec.json.encode([FORMAT, str(path.resolve()), schema.hash]) + state).hexdigest()[:32]
    folder, machine = cache / digest, group.on_this_machine()

    def write() -> None:
        if machine.is_first:
            with _cache_errors(path, cache):
                cache.mkdir(parents=True, exist_ok=True)
                with locked(folder.with_suffix(".lock")):
                    if not (folder / META_FILE).is_file():
                        _write(files, served, path, folder, limits, report)

    machine.run_all_or_raise(write)
    encoded = group.run_all_or_raise(lambda: EncodedFolder(folder))
    labels_N = np.array(encoded.labels_N)
    if not len(labels_N) or labels_N.min() == labels_N.max():
        which = "no rows" if not len(labels_N) else f"only labels of {labels_N[0]:.0f}"
        raise DataError(f"{path}: has {which}: there is nothing to learn from yet")
    left_out = encoded.meta.seen - encoded.meta.rows
    user, item = (_examples(served.logged, schema, side) for side in SIDES)
    return ServedDataset(
        name=SERVED,
        schema=schema,
        user=user,
        item=item,
        labels_N=labels_N,
        timestamps_N=None if encoded.times_N is None else np.array(encoded.times_N),
        source=str(path),
        notes=(f"{left_out:,} rows by another schema are left out",) if left_out else (),
        weights=weighting.weights_of(labels_N, None),
        folder=encoded,
        row_limits=limits,
    )


def _newest_schema(
    path: Path, files: Sequence[tuple[Path, Path]], features: Path | None, schema_owner: str | None
) -> ServedSchema:
    """Return the schema of the newest rows, or one that differs from it in the fields of the position alone."""
    newest = read_answers(files[-1][0])["schema_hash"]
    if features is None:
        logged = read_logged_schema(path, str(newest[-1]))
        return ServedSchema(path, logged.to_schema(), logged)
    wanted = load_schema(features)
    for schema_hash in reversed(newest.unique(maintain_order=True).to_list()):
        logged = read_logged_schema(path, schema_hash)
        if logged.to_schema().without_positions.hash == wanted.without_positions.hash:
            return ServedSchema(path, wanted, logged)
    served = read_logged_schema(path, str(newest[-1])).to_schema()
    differences = schema_differences(served.without_positions, wanted.without_positions)
    if schema_owner is not None:
        raise ConfigError(
            f"the newest rows of {path} were served by another schema than that of {schema_owner} ({differences}): "
            f"run `ctr join` again once {schema_owner} has answered, or train by theirs, with `ctr train --dataset "
            f"served --data {path} --publish`"
        )
    raise ConfigError(
        f"{features}: is not the schema by which the newest rows of {path} were served ({differences}), fields of the "
        "position aside; leave --features out to take that"
    )


def _write(
    files: Sequence[tuple[Path, Path]],
    served: ServedSchema,
    path: Path,
    folder: Path,
    limits: EncodingLimits,
    report: ReportProgress | None,
) -> None:
    started, aside = time.perf_counter(), folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    rows = left_out = 0
    try:
        with contextlib.ExitStack() as stack:
            arrays = {name: stack.enter_context((aside / f"{name}.bin").open("wb")) for name in ARRAY_NAMES}
            for number, (answers_file, items_file) in enumerate(files, 1):
                answers = read_answers(answers_file)
                items = read_answers(items_file)
                for (schema_hash,), of_schema in answers.group_by("schema_hash", maintain_order=True):
                    as_served = served.layout_of(str(schema_hash))
                    if as_served is None:
                        left_out += int(of_schema["items"].list.len().sum())
                        continue
                    for part in _rows(of_schema, items, str(schema_hash), served, as_served):
                        for name, array in part.items():
                            arrays[name].write(np.ascontiguousarray(array).data)
                        rows += len(part["labels"])
                if report:
                    report(rows, number / len(files))
            for file in arrays.values():
                file.flush()
                os.fsync(file.fileno())
        meta = EncodedFolderMeta(
            format=FORMAT,
            path=str(path.resolve()),
            size=0,
            modified_ns=0,
            rows=rows,
            slots={str(side): served.schema.layout(side).width for side in SIDES},
            timed=True,
            weights=0,
            seen=rows + left_out,
            skipped=msgspec.to_builtins(SkippedRows()),
            unreadable={},
            seconds=round(time.perf_counter() - started, 3),
        )
        (aside / META_FILE).write_bytes(msgspec.json.encode(meta))
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _rows(
    answers: pl.DataFrame, items: pl.DataFrame, schema_hash: str, served: ServedSchema, as_served: SlotLayout
) -> Iterator[dict[str, Any]]:
    """Yield the arrays of rows, those of some answers at a time."""
    if not len(answers):
        return
    items = items.filter(pl.col("schema_hash") == schema_hash).sort("reference")
    reference_C, item_slots = items["reference"].to_numpy(), _slots(items, "keys", "values")
    for chunk in answers.iter_slices(ANSWERS_AT_ONCE):
        lengths = chunk["items"].list.len().to_numpy().astype(np.int64)
        label_N = chunk["labels"].explode().to_numpy()
        shown_N = label_N != NOT_SHOWN
        row_N = np.searchsorted(reference_C, chunk["items"].explode().to_numpy())[shown_N]
        answer_N = np.repeat(np.arange(len(chunk)), lengths)[shown_N]
        user_slots = _slots(chunk, "user_keys", "user_values")
        position_N = (np.arange(len(label_N)) - np.repeat(np.cumsum(lengths) - lengths, lengths))[shown_N] + 1
        user_slots = served.user_slots(as_served, Slots(*(part[answer_N] for part in user_slots)), position_N)
        yield {
            "labels": label_N[shown_N].astype(np.float32),
            "times": chunk["at"].dt.epoch("s").to_numpy()[answer_N],
            "user_keys": user_slots.keys,
            "user_values": user_slots.values,
            "item_keys": item_slots.keys[row_N],
            "item_values": item_slots.values[row_N],
        }


def _slots(frame: pl.DataFrame, keys: str, values: str) -> Slots:
    width = len(frame[keys][0]) if len(frame) else 0
    return Slots(*(frame[name].list.to_array(width).to_numpy() for name in (keys, values)))


def _examples(logged: LoggedSchema, schema: FeatureSchema, side: Side) -> pl.DataFrame:
    """Return users or items as features, as many rows of either side: what golden requests are made of."""
    entities = logged.users if side == "user" else logged.items
    count = max(len(logged.users), len(logged.items))
    fields: Sequence[AnyField] = schema.side(side)
    columns = {
        field.raw_name: [_example(field, entities[number % len(entities)]) for number in range(count)]
        for field in fields
    }
    return pl.DataFrame({name: pl.Series(name, values, strict=False) for name, values in columns.items()})


def _example(field: AnyField, entity: Entity) -> object:
    value = entity.id if field.is_id else entity.features.get(field.raw_name)
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value


@contextlib.contextmanager
def _cache_errors(path: Path, cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{cache}: the rows of {path} cannot be kept there: {error.strerror}; make room, or name another folder "
            "with --cache"
        ) from error
