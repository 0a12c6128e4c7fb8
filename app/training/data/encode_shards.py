"""Encode a source by a group of processes: plan shards, encode one each, merge them.

This is the one place that gives the work of `sharding`, `shard_encoding` and `shard_merging` to processes. Each process
writes its shard aside, since it is not known how many good rows come before until all are read. Then they copy the
shards together, each some ranges of every array. The copies take a second where encoding takes fifty; in return the
folder is to the byte that of one process, and any number of processes can read it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from app.errors import ConfigError
from app.training.data.readers.table_files import TableFiles
from app.training.data.shard_encoding import EncodedShard, ReportProgress, encode_shard
from app.training.data.shard_merging import copy_arrays, merge_shards, write_examples
from app.training.data.sharding import ShardPlanner
from app.training.data.source import Source
from app.training.distributed import ProcessGroup

STOPPED = "stopped"


@contextlib.contextmanager
def cache_errors(source: Source, cache: Path) -> Iterator[None]:
    """Turn an OSError into a ConfigError that says that the cache cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{cache}: the encoded form of {source.path} cannot be kept there: {error.strerror}; "
            "make room, or name another folder with --cache"
        ) from error


def encode_shards(
    source: Source, folder: Path, max_bad: float, report: ReportProgress | None, group: ProcessGroup
) -> EncodedShard:
    """Write the arrays and the examples to an existing folder. All processes of the group call it.

    Raises:
        ConfigError: the folder has no room, or other processes do not see it.
        DataError: the file cannot be read, or too much of it is bad.
    """
    cache = folder.parent
    own_shard = _own_shard(source, group)

    def encode() -> EncodedShard:
        with cache_errors(source, cache):
            if group.size == 1:
                return encode_shard(own_shard, folder, max_bad, report=report)
            return _encode_aside(own_shard, folder, max_bad, report, group)

    def copy() -> None:
        if group.size > 1:
            with cache_errors(source, cache):
                shard_folders = [folder / str(rank) for rank in range(group.size)]
                copy_arrays(shard_folders, folder, group.own_slice, source.limits.copy_bytes)

    shards = group.all_gather(group.run_all_or_raise(encode))
    whole = merge_shards(source, shards, max_bad)  # the same in all processes, as is the error
    if report and group.size > 1:
        report(whole.rows, 1.0)
    group.run_all_or_raise(copy)
    if group.is_first:
        write_examples(whole, folder)
    return whole


def _own_shard(source: Source, group: ProcessGroup) -> Source:
    """Return what this process reads. A format whose rows can only be made together is read by the first process."""
    if group.size == 1:
        return source
    files = source.chunks
    if not isinstance(files, TableFiles):
        return source if group.is_first else source.without_rows()
    planner = group.run_all_or_raise(lambda: ShardPlanner(files, group.size))
    quotes = group.all_gather(group.run_all_or_raise(lambda: planner.count_quotes(group.rank)))
    shards = group.run_all_or_raise(lambda: planner.plan(quotes))
    return replace(source, chunks=shards[group.rank])


def _encode_aside(
    shard: Source, folder: Path, max_bad: float, report: ReportProgress | None, group: ProcessGroup
) -> EncodedShard:
    """Encode one of several shards into a folder of its own, until another process fails."""
    stop_file, shard_folder = folder / STOPPED, folder / str(group.rank)

    def report_for_all(rows: int, fraction: float) -> None:
        assert report is not None
        report(rows * group.size, min(1.0, fraction * group.size))  # as if the others were as far

    shard_folder.mkdir()
    try:
        return encode_shard(
            shard,
            shard_folder,
            max_bad,
            report=report_for_all if report else None,
            rows_before=shard.count_rows_before,
            should_stop=stop_file.exists,
            durable=False,
        )
    except BaseException:
        stop_file.touch()
        raise
