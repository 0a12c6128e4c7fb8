"""`ctr size`: says what so many users, items and fields take in the store and in the workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.commands.completion import architectures
from app.commands.options import widths
from app.commands.output import AsJson, emit, notify, show_rows

if TYPE_CHECKING:
    from app.features.loading.sizes import HashShape, WorkerShape

WIDE_ENTRIES = 64
"""The `hash-max-listpack-entries` that docs/redis.md recommends for wide hashes."""
KEYS_A_FIELD = 100


def size(
    users: Annotated[int, typer.Option(min=0, help="Users in the store.")],
    items: Annotated[int, typer.Option(min=0, help="Items in the store.")],
    fields: Annotated[int, typer.Option(min=1, max=900, help="Fields of a user, without the id.")] = 12,
    item_fields: Annotated[int, typer.Option(min=1, max=900, help="Fields of an item, without the id.")] = 20,
    multi: Annotated[int, typer.Option(min=0, max=900, help="How many fields of each are lists.")] = 0,
    values: Annotated[int, typer.Option(min=1, max=1000, help="Values in a list.")] = 5,
    features: Annotated[
        Path | None, typer.Option(help="features.yaml that says how many fields and lists there are.")
    ] = None,
    name_bytes: Annotated[
        int | None, typer.Option(min=1, max=200, help="Letters of a field's name.", show_default="10, or of --features")
    ] = None,
    value_bytes: Annotated[int, typer.Option(min=1, max=65_536, help="Letters of a value.")] = 6,
    model: Annotated[
        str, typer.Option(help="Architecture; docs/models.md says which when.", autocompletion=architectures)
    ] = "deepfm",
    dim: Annotated[int, typer.Option("--dim", "--embedding", min=1, max=4096, help="Embedding size.")] = 16,
    hidden: Annotated[str | None, typer.Option(help="Hidden layers, as 128,64.", show_default="the model's")] = None,
    keys: Annotated[
        int | None,
        typer.Option(min=1, help="Values the model learns.", show_default="users, items, and 100 a field"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Workers on a machine.")] = 1,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of item states: CTR_PRECISION.")] = "fp32",
    as_json: AsJson = False,
) -> None:
    """Say what so many users, items and fields take: memory of the store, of each worker and of a machine.

    By constants that were measured at small scale, each with its date, in docs/scaling.md. Nothing is read or written.

    Example: ctr size --users 1000000 --items 100000 --fields 300 --model deepfm --embedding 16
    """
    from app.errors import ConfigError
    from app.features.fields import MultiCategorical
    from app.features.loading.sizes import HashShape, WorkerShape
    from app.features.loading.synthetic import MAX_FIELDS
    from app.features.schema import load_schema
    from app.models import model_class
    from app.models.state_width import plain_schema, state_width

    if fields + item_fields + 2 > MAX_FIELDS:
        raise ConfigError(f"--fields and --item-fields: a schema has at most {MAX_FIELDS:,} fields, both ids included")
    schema = load_schema(features) if features else plain_schema(fields, item_fields, multi, values)
    shapes = {}
    for entity in ("user", "item"):
        stored = {f.raw_name: f for f in schema.fields if f.entity == entity and not f.is_id}
        names = sum(map(len, stored)) // max(len(stored), 1)
        lists = sum(isinstance(field, MultiCategorical) for field in stored.values())
        shapes[entity] = HashShape(
            len(stored), lists, values, name_bytes or (names if features else HashShape.name_bytes), value_bytes
        )
    takes = model_class(model).options()
    options = {"dim": dim if "dim" in takes else None, "hidden": widths(hidden) if hidden else None}
    width = state_width(model, schema, **options)
    worker = WorkerShape(
        items,
        schema.layout("item").width,
        width,
        2 if precision == "bf16" else 4,
        keys or users + items + KEYS_A_FIELD * len(schema.fields),
        dim if "dim" in takes else 0,
    )
    counts = {"user": users, "item": items}
    if as_json:
        emit(_document(counts, shapes, worker, workers))
        return
    _show(counts, shapes, worker, workers)
    for note in _advice(counts, shapes):
        notify(note)


def _document(
    counts: dict[str, int], shapes: dict[str, HashShape], worker: WorkerShape, workers: int
) -> dict[str, Any]:
    from app.features.loading.sizes import PACKED_FIELDS

    store = {
        setting: {
            **{f"{entity}s": _hashes(shape, counts[entity], setting) for entity, shape in shapes.items()},
            "bytes": sum(counts[entity] * shape.bytes(setting) for entity, shape in shapes.items()),
        }
        for setting in (PACKED_FIELDS, WIDE_ENTRIES)
    }
    return {
        "store": store[PACKED_FIELDS],
        f"store_entries_{WIDE_ENTRIES}": store[WIDE_ENTRIES],
        "worker": {
            "item_bytes": worker.item_bytes,
            "items_bytes": worker.items * worker.item_bytes,
            "state_width": worker.state_width,
        },
        "tables_bytes": worker.table_bytes,
        "keys": worker.keys,
        "machine": {
            "workers": workers,
            "bytes": worker.machine_bytes(workers),
            "swapping_bytes": worker.machine_bytes(workers, swapping=True),
        },
    }


def _hashes(shape: HashShape, count: int, entries: int) -> dict[str, Any]:
    return {
        "count": count,
        "fields": shape.fields,
        "encoding": "listpack" if shape.is_packed(entries) else "hashtable",
        "bytes_each": shape.bytes(entries),
        "bytes": count * shape.bytes(entries),
        "read_us": round(shape.read_us(entries), 1),
    }


def _show(counts: dict[str, int], shapes: dict[str, HashShape], worker: WorkerShape, workers: int) -> None:
    rows = []
    total = 0
    for entity, shape in shapes.items():
        bytes_all = counts[entity] * shape.bytes()
        total += bytes_all
        encoding = "listpack" if shape.is_packed() else "hashtable"
        fields = f"{shape.fields} field{'s' if shape.fields != 1 else ''}"
        what = f"store: {entity}s, {fields}, {encoding}"
        rows.append((what, f"{counts[entity]:,}", f"{shape.bytes():,}", _words(bytes_all)))
    rows.append(("store", "", "", _words(total)))
    items_bytes = worker.items * worker.item_bytes
    rows.append(("worker: cached items", f"{worker.items:,}", f"{worker.item_bytes:,}", _words(items_bytes)))
    each = worker.table_bytes // worker.keys
    rows.append(("machine: a version's tables", f"{worker.keys:,}", f"{each:,}", _words(worker.table_bytes)))
    plural = f"{workers} worker{'s' if workers > 1 else ''}"
    rows.append((f"machine: all, {plural}", "", "", _words(worker.machine_bytes(workers))))
    rows.append(
        ("machine: while a version is swapped in", "", "", _words(worker.machine_bytes(workers, swapping=True)))
    )
    show_rows("What it takes", ("what", "number", "bytes each", "memory"), rows)


def _advice(counts: dict[str, int], shapes: dict[str, HashShape]) -> list[str]:
    """Say what to set, and what else such sizes mean."""
    from app.features.loading.sizes import PACKED_VALUE_BYTES
    from app.setting_groups.feature_store import FeatureStoreSettings

    notes = []
    user = shapes["user"]
    if user.is_packed() and not user.is_packed(WIDE_ENTRIES):
        memory = _words(counts["user"] * user.bytes(WIDE_ENTRIES))
        notes.append(
            f"With hash-max-listpack-entries {WIDE_ENTRIES} users take {memory}, and a request's HMGET "
            f"{user.read_us(WIDE_ENTRIES) / 1000:.3f} ms of the server in place of {user.read_us() / 1000:.3f}."
        )
    for entity, shape in shapes.items():
        if shape.lists and shape.list_bytes > PACKED_VALUE_BYTES:
            notes.append(
                f"A list of {shape.values} values is longer than {PACKED_VALUE_BYTES} bytes, so that the hash of the "
                f"{entity} is a table, several times as large."
            )
    default = FeatureStoreSettings.model_fields["item_cache_size"].default
    if counts["item"] > default:
        notes.append(f"CTR_ITEM_CACHE_SIZE={counts['item']} caches all items; unset, workers keep {default:,}.")
    notes.append(
        "Measured with Valkey 9.1 and the allocator of libc. Redis 7.0 with jemalloc took up to 17 % more for "
        "listpacks, and 1.2 to 1.9 times as much for hash tables."
    )
    return notes


def _words(count: float) -> str:
    """Write bytes as people do: 5.6 GB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
