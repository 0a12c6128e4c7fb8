"""libsvm (`label index:value ...`) and libffm (`label field:index:value ...`) text, plain or gzipped.

Such a file has no names: libsvm becomes one weighted field `features`, libffm one a field, `f0`, `f1`, ... An index is
a category and its value the weight that multiplies the embedding, the x_i v_i of the FM formula. Labels are 1 and 0 or
-1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from app.errors import DataError
from app.features.fields import FLOAT32_MAX, MAX_SLOTS_PER_FIELD, MultiCategorical
from app.features.schema import FeatureSchema
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.chunk import Chunk
from app.training.data.readers.line_blocks import BLOCK_BYTES, Span, blocks, with_cells
from app.training.data.sharding import Cut, FileChunks, data_files
from app.training.data.source import LABELS, Source

LABEL = "label"
SPARSE_LABELS = LABELS | {"-1": 0.0, "-1.0": 0.0, "+1": 1.0, "+1.0": 1.0}
LOOKED_AT_BYTES = 8 * BLOCK_BYTES
"""Of the file's beginning, for the fields there are and how many slots each needs."""
SPARE = 1.5
"""Slots beyond the most that were seen, for rows that were not looked at."""
ABSENT = "\x01"
"""Separates nothing: a line is read whole."""


class Form(NamedTuple):
    name: str
    token: str
    """What a token looks like, for people."""
    fields: bool


LIBSVM = Form("libsvm", "index:value", False)
LIBFFM = Form("libffm", "field:index:value", True)


def sparse_source(path: Path, schema: FeatureSchema, form: Form, *, derived: bool = False) -> Source:
    """
    Args:
        derived: the schema was made from this file, so that a field it does not have is an error of the row.

    Raises:
        DataError: there is no such file.
    """
    known = {field.raw_name for field in schema.fields} if derived else None
    return Source(
        form.name,
        path,
        schema,
        FileChunks(data_files(path), lambda file, span, bad: _chunks(file, span, form, bad, known), Cut.LINES),
        LABEL,
        labels=SPARSE_LABELS,
        hint=f"a line should be: label {form.token} {form.token} ...",
    )


def derived_schema(path: Path, form: Form) -> FeatureSchema:
    """A schema with the fields that the file's beginning has. Raises DataError."""
    longest: dict[str, int] = {}
    read = 0
    for text, _ in itertools.chain.from_iterable(map(blocks, data_files(path))):
        tokens = _tokens(_lines(with_cells(text, ABSENT, 1, quoted=False).text), form).drop_nulls()
        found = tokens.group_by("row", "field").len().group_by("field").agg(pl.col("len").max())
        for name, most in found.iter_rows():
            longest[name] = max(longest.get(name, 0), most)
        read += len(text)
        if read >= LOOKED_AT_BYTES:
            break
    names = sorted(longest, key=lambda name: (len(name), name))
    if not names:
        raise DataError(f"{path}: has no {form.token}: is it {form.name}?")
    # Nothing says which fields are whose. A score does not depend on it, what is computed ahead of requests does.
    half = len(names) // 2
    return FeatureSchema(
        fields=tuple(
            MultiCategorical(
                name=name,
                entity="context" if place < half else "item",
                type="multi_categorical",
                weighted=True,
                pooling="sum",
                max_length=min(
                    MAX_SLOTS_PER_FIELD, longest[name] if longest[name] == 1 else round(longest[name] * SPARE)
                ),
            )
            for place, name in enumerate(names)
        )
    )


def _chunks(path: Path, span: Span, form: Form, bad: BadRows, known: set[str] | None) -> Iterator[Chunk]:
    for text, fraction in blocks(path, span):
        lines = _lines(with_cells(text, ABSENT, 1, quoted=False).text)
        tokens = _tokens(lines, form)
        wrong = tokens.filter(
            pl.col("field").is_null()
            | pl.col("item").is_null()
            | ~pl.col("weight").is_between(-FLOAT32_MAX, FLOAT32_MAX).fill_null(False)
        )["row"].unique()
        twice = tokens.filter(pl.struct("row", "field", "item").is_duplicated())["row"].unique()
        strange = (
            tokens.filter(~pl.col("field").is_in(list(known)))["row"].unique()
            if known
            else pl.Series([], dtype=pl.UInt32)
        )
        rows = pl.Series("row", range(len(lines)), dtype=pl.UInt32)
        out = pl.concat([wrong, twice, strange]).unique()
        for reason, place in (
            (f"have a token that is not {form.token}", wrong),
            ("name an index twice", twice.filter(~twice.is_in(wrong.implode()))),
            (
                "have a field that the first rows have not",
                strange.filter(~strange.is_in(pl.concat([wrong, twice]).implode())),
            ),
        ):
            bad.add(reason, bad.rows + 1 + place.sort().cast(pl.Int64).to_numpy())
        good = rows.filter(~rows.is_in(out.implode()))
        frame = _frame(lines, tokens.filter(~pl.col("row").is_in(out.implode())), good)
        numbers_N = bad.rows + 1 + good.cast(pl.Int64).to_numpy()
        bad.rows += len(lines)
        yield Chunk(frame, numbers_N, fraction, open_ended=True)


def _lines(text: bytes) -> pl.Series:
    if not text:
        return pl.Series([], dtype=pl.String)
    try:
        frame = pl.read_csv(
            text, separator=ABSENT, has_header=False, infer_schema=False, quote_char=None, encoding="utf8-lossy"
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"cannot be read: {error}") from error
    line = frame.to_series().fill_null("")
    return line.str.replace(r"\s*#.*$", "").str.replace_all(r"[ \t\r]+", " ").str.strip_chars(" ")


def _tokens(lines: pl.Series, form: Form) -> pl.DataFrame:
    """Columns row, field, item, weight; null where a token is not one."""
    frame = lines.str.split(" ").list.slice(1).to_frame("token").with_row_index("row")
    frame = frame.explode("token", empty_as_null=False, keep_nulls=False)
    parts = pl.col("token").str.splitn(":", 3 if form.fields else 2).struct
    frame = frame.select(
        "row",
        ("f" + parts[0] if form.fields else pl.lit("features")).alias("field"),
        parts[1 if form.fields else 0].alias("item"),
        parts[2 if form.fields else 1].cast(pl.Float64, strict=False).alias("weight"),
    )
    return frame.filter(pl.col("item") != "qid") if not form.fields else frame


def _frame(lines: pl.Series, tokens: pl.DataFrame, good: pl.Series) -> pl.DataFrame:
    label = lines.str.split(" ").list.first().alias(LABEL)
    frame = label.to_frame().with_row_index("row").filter(pl.col("row").is_in(good.implode()))
    for (name,), of_field in tokens.partition_by("field", as_dict=True, include_key=False).items():
        lists = of_field.group_by("row", maintain_order=True).agg(pl.struct("item", "weight").alias(str(name)))
        frame = frame.join(lists, on="row", how="left", maintain_order="left")
    return frame.drop("row")
