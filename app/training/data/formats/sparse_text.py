"""Read libsvm (`label index:value ...`) and libffm (`label field:index:value ...`) text, plain or gzipped.

Such a file has no names: libsvm becomes one weighted field `features`, libffm a field for each of its numbers, `f0`,
`f1`, ... An index is a category and its value the weight that multiplies the embedding, the x_i v_i of the FM formula.
Labels are 1 and 0 or -1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from app.errors import DataError
from app.features.fields import MAX_SLOTS_PER_FIELD, MultiCategorical
from app.features.schema import FeatureSchema
from app.features.tables.block_lines import whole_lines
from app.features.tables.line_blocks import FileRange, read_blocks
from app.features.tables.table_paths import data_files
from app.features.values import FLOAT32_MAX
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.labels import ZERO_OR_ONE, LabelReading
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.table_chunk import TableChunk
from app.training.data.readers.table_files import SplitBoundary, TableFiles
from app.training.data.source import Source

LABEL = "label"
INSPECTED_BYTES = 32 << 20
"""So much of the file's beginning is read to learn which fields there are and how many slots each needs."""
SPARE_FACTOR = 1.5
"""A field gets this many times the slots that were seen, as rows that were not inspected may need more."""
NO_SEPARATOR = "\x01"
"""This separator occurs in no line, so that lines are read whole."""


class SparseFormat(NamedTuple):
    """Describes a format of labelled tokens."""

    name: str
    token: str
    """Shows what a token looks like, in messages."""
    has_fields: bool
    """Tells whether a token begins with the number of its field."""


LIBSVM = SparseFormat("libsvm", "index:value", False)
LIBFFM = SparseFormat("libffm", "field:index:value", True)


def sparse_source(
    path: Path,
    schema: FeatureSchema,
    sparse: SparseFormat,
    *,
    derived: bool = False,
    labels: LabelReading = ZERO_OR_ONE,
    limits: EncodingLimits = DEFAULT_LIMITS,
) -> Source:
    """Describe a libsvm or libffm file.

    Args:
        derived: the schema was made from this file, so that a row with another field is bad.

    Raises:
        DataError: there is no such file.
    """
    known_fields = {field.raw_name for field in schema.fields} if derived else None

    def read(file: Path, part: FileRange, bad: BadRows) -> Iterator[TableChunk]:
        return _read(file, part, sparse, bad, known_fields, limits)

    return Source(
        sparse.name,
        path,
        schema,
        TableFiles(data_files(path).files, read, SplitBoundary.LINES),
        LABEL,
        labels=labels,
        hint=f"a line should be: label {sparse.token} {sparse.token} ...",
        limits=limits,
    )


def derived_schema(path: Path, sparse: SparseFormat, limits: EncodingLimits = DEFAULT_LIMITS) -> FeatureSchema:
    """Return a schema with the fields that the beginning of the file has. Raises DataError if there are none."""
    longest: dict[str, int] = {}
    inspected = 0
    files = (read_blocks(file, size=limits.block_bytes) for file in data_files(path).files)
    for text, _ in itertools.chain.from_iterable(files):
        lines = _lines(whole_lines(text))
        tokens = _tokens(lines, sparse).drop_nulls()
        counts = tokens.group_by("row", "field").len().group_by("field").agg(pl.col("len").max())
        for name, count in counts.iter_rows():
            longest[name] = max(longest.get(name, 0), count)
        inspected += len(text)
        if inspected >= INSPECTED_BYTES:
            break
    names = sorted(longest, key=lambda name: (len(name), name))
    if not names:
        raise DataError(f"{path}: has no {sparse.token}: is it {sparse.name}?")
    # Nothing tells which fields are whose. A score does not depend on it, what is computed ahead of requests does.
    half = len(names) // 2
    return FeatureSchema(
        fields=tuple(
            MultiCategorical(
                name=name,
                entity="context" if index < half else "item",
                type="multi_categorical",
                weighted=True,
                pooling="sum",
                max_length=min(
                    MAX_SLOTS_PER_FIELD, longest[name] if longest[name] == 1 else round(longest[name] * SPARE_FACTOR)
                ),
            )
            for index, name in enumerate(names)
        )
    )


def _read(
    path: Path,
    part: FileRange,
    sparse: SparseFormat,
    bad: BadRows,
    known_fields: set[str] | None,
    limits: EncodingLimits,
) -> Iterator[TableChunk]:
    for text, fraction in read_blocks(path, part, size=limits.block_bytes):
        lines = _lines(whole_lines(text))
        tokens = _tokens(lines, sparse)
        malformed = tokens.filter(
            pl.col("field").is_null()
            | pl.col("item").is_null()
            | ~pl.col("weight").is_between(-FLOAT32_MAX, FLOAT32_MAX).fill_null(False)
        )["row"].unique()
        repeated = tokens.filter(pl.struct("row", "field", "item").is_duplicated())["row"].unique()
        unknown = (
            tokens.filter(~pl.col("field").is_in(list(known_fields)))["row"].unique()
            if known_fields
            else pl.Series([], dtype=pl.UInt32)
        )
        rows = pl.Series("row", range(len(lines)), dtype=pl.UInt32)
        bad_rows = pl.concat([malformed, repeated, unknown]).unique()
        for reason, positions in (
            (f"have a token that is not {sparse.token}", malformed),
            ("name an index twice", repeated.filter(~repeated.is_in(malformed.implode()))),
            (
                "have a field that the first rows have not",
                unknown.filter(~unknown.is_in(pl.concat([malformed, repeated]).implode())),
            ),
        ):
            bad.add(reason, bad.rows + 1 + positions.sort().cast(pl.Int64).to_numpy())
        good = rows.filter(~rows.is_in(bad_rows.implode()))
        frame = _frame(lines, tokens.filter(~pl.col("row").is_in(bad_rows.implode())), good)
        numbers_N = bad.rows + 1 + good.cast(pl.Int64).to_numpy()
        bad.rows += len(lines)
        yield TableChunk(frame, numbers_N, fraction, open_ended=True)


def _lines(text: bytes) -> pl.Series:
    if not text:
        return pl.Series([], dtype=pl.String)
    try:
        frame = pl.read_csv(
            text, separator=NO_SEPARATOR, has_header=False, infer_schema=False, quote_char=None, encoding="utf8-lossy"
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"cannot be read: {error}") from error
    line = frame.to_series().fill_null("")
    return line.str.replace(r"\s*#.*$", "").str.replace_all(r"[ \t\r]+", " ").str.strip_chars(" ")


def _tokens(lines: pl.Series, sparse: SparseFormat) -> pl.DataFrame:
    """Return the tokens of all lines as columns row, field, item and weight, null where a token is malformed."""
    frame = lines.str.split(" ").list.slice(1).to_frame("token").with_row_index("row")
    frame = frame.explode("token", empty_as_null=False, keep_nulls=False)
    parts = pl.col("token").str.splitn(":", 3 if sparse.has_fields else 2).struct
    frame = frame.select(
        "row",
        ("f" + parts[0] if sparse.has_fields else pl.lit("features")).alias("field"),
        parts[1 if sparse.has_fields else 0].alias("item"),
        parts[2 if sparse.has_fields else 1].cast(pl.Float64, strict=False).alias("weight"),
    )
    return frame.filter(pl.col("item") != "qid") if not sparse.has_fields else frame


def _frame(lines: pl.Series, tokens: pl.DataFrame, good: pl.Series) -> pl.DataFrame:
    """Return the good lines' labels, and a column of lists of (item, weight) for each field."""
    label = lines.str.split(" ").list.first().alias(LABEL)
    frame = label.to_frame().with_row_index("row").filter(pl.col("row").is_in(good.implode()))
    for (name,), of_field in tokens.partition_by("field", as_dict=True, include_key=False).items():
        lists = of_field.group_by("row", maintain_order=True).agg(pl.struct("item", "weight").alias(str(name)))
        frame = frame.join(lists, on="row", how="left", maintain_order="left")
    return frame.drop("row")
