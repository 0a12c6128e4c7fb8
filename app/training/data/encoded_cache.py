"""Keep encoded files: each is encoded once, into `<cache>/<digest>/`, and mapped from then on.

The digest is of the file's identity, the schema's hash and the options, so that a folder is never out of date: another
file or schema has another folder. A folder is written aside under a lock and renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from app.runtime.file_lock import locked
from app.training.data.encode_shards import cache_errors, encode_shards
from app.training.data.encoded_folder import FORMAT, META_FILE, EncodedFolder, EncodedFolderMeta, read_meta
from app.training.data.readers.bad_rows import BadRows
from app.training.data.shard_encoding import ReportProgress
from app.training.data.source import Source
from app.training.distributed import SINGLE_PROCESS, ProcessGroup

END_BYTES = 1 << 16
"""This many bytes at either end of a file are hashed; its size and time are compared too."""


def encode_file(
    source: Source,
    cache: Path,
    *,
    max_bad: float,
    report: ReportProgress | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> EncodedFolder:
    """Return the folder of a source, which is encoded unless that was done before.

    Args:
        group: the processes of this machine. All call it, and each encodes a shard of the rows.

    Raises:
        ConfigError: the cache has no room, or cannot be written, or the processes do not all see it.
        DataError: the file cannot be read, or too much of it is bad.
    """
    with contextlib.ExitStack() as stack:

        def find() -> tuple[dict[str, Any], Path, EncodedFolder | None]:
            with cache_errors(source, cache):
                identity = _identity(source.path, source.files)
                folder = cache / _digest(source, identity)
                if not group.is_first:
                    return identity, folder, None
                cache.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder.with_suffix(".lock")))  # a second run waits, and finds it done
                encoded = _open_complete(folder)
                if encoded is None:
                    _remove_outdated(cache, identity)
                return identity, folder, encoded

        def open_written() -> EncodedFolder:
            with cache_errors(source, cache):
                return EncodedFolder(folder)

        identity, folder, encoded = group.run_all_or_raise(find)
        if not group.all_gather(encoded is not None)[0]:
            _write(source, folder, identity, max_bad, report, group)
        encoded = group.run_all_or_raise(lambda: encoded or open_written())
    bad = BadRows(
        str(source.path), max_bad, rows=encoded.meta.seen, by_reason={encoded.skipped.reason: encoded.skipped}
    )
    bad.check()
    return encoded


def _identity(path: Path, files: tuple[Path, ...]) -> dict[str, Any]:
    each = [_file_identity(file) for file in files]
    if files == (path,):
        return each[0]
    newest = max(identity["modified_ns"] for identity in each)
    size = sum(identity["size"] for identity in each)
    return {"path": str(path.resolve()), "size": size, "modified_ns": newest, "files": each}


def _file_identity(path: Path) -> dict[str, Any]:
    status = path.stat()
    with path.open("rb") as file:
        ends = hashlib.sha256(file.read(END_BYTES))
        file.seek(max(0, status.st_size - END_BYTES))
        ends.update(file.read())
    return {
        "path": str(path.resolve()),
        "size": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "ends": ends.hexdigest(),
    }


def _digest(source: Source, identity: dict[str, Any]) -> str:
    others = [_file_identity(path) for path in source.other_files]
    options = [source.name, source.label, source.timestamp, source.escape, source.labels.positive, others]
    options += source.weighting.identity
    document = msgspec.json.encode([FORMAT, identity, source.schema.hash, options], order="sorted")
    return hashlib.sha256(document).hexdigest()[:32]


def _open_complete(folder: Path) -> EncodedFolder | None:
    try:
        return EncodedFolder(folder)
    except (OSError, ValueError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def _remove_outdated(cache: Path, identity: dict[str, Any]) -> None:
    """Remove what was made of this path when it was another file; processes that have it mapped keep it."""
    for meta_file in cache.glob(f"*/{META_FILE}"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            meta = read_meta(meta_file.parent)
            same = (meta.size, meta.modified_ns) == (identity["size"], identity["modified_ns"])
            if meta.path == identity["path"] and not same:
                shutil.rmtree(meta_file.parent, ignore_errors=True)
                meta_file.parent.with_suffix(".lock").unlink(missing_ok=True)


def _write(
    source: Source,
    folder: Path,
    identity: dict[str, Any],
    max_bad: float,
    report: ReportProgress | None,
    group: ProcessGroup,
) -> None:
    started = time.perf_counter()
    cache, aside = folder.parent, folder.with_name(f".tmp-{folder.name}")

    def begin() -> None:
        if group.is_first:
            with cache_errors(source, cache):
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir()

    def complete() -> None:
        if group.is_first:
            with cache_errors(source, cache):
                for shard_folder in aside.glob("*/"):
                    shutil.rmtree(shard_folder)
                (aside / META_FILE).write_bytes(msgspec.json.encode(meta))
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(aside, folder)

    group.run_all_or_raise(begin)
    try:
        encoded = encode_shards(source, aside, max_bad, report, group)
        meta = EncodedFolderMeta(
            format=FORMAT,
            path=identity["path"],
            size=identity["size"],
            modified_ns=identity["modified_ns"],
            rows=encoded.rows,
            slots={str(side): width for side, width in encoded.slots.items()},
            timed=source.timestamp is not None,
            weights=source.weighting.width,
            seen=encoded.bad.rows,
            skipped=msgspec.to_builtins(encoded.bad.skipped),
            unreadable=msgspec.to_builtins(encoded.unreadable),
            seconds=round(time.perf_counter() - started, 3),
        )
        group.run_all_or_raise(complete)
    except BaseException:
        if group.is_first:
            shutil.rmtree(aside, ignore_errors=True)
        raise
