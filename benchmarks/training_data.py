"""Tables for the training benchmark: the same columns for every contender, and tables of any number of keys."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from app.features.fields import Categorical, Numeric
from app.features.schema import FeatureSchema
from app.models.preprocessing import Preprocessing, numeric_key
from app.training.data.catalogue import open_dataset
from app.training.preprocessing.expand import ExpandedRows
from app.training.preprocessing.numeric_statistics import numeric_statistics

SPARROW = Path(__file__).parents[1] / ".." / "shared" / "data" / "sparrow58k" / "random.train.csv.gz"
USER = ("user", "context")
DENSE = [
    "releaseYear", "movieRatingCount", "movieAvgRating", "movieRatingStddev", "userRatingCount", "userAvgReleaseYear",
    "userReleaseYearStddev", "userAvgRating", "userRatingStddev",
]  # fmt: skip
SPARSE = ["userId", "movieId"]
SPARSE += [f"movieGenre{n}" for n in range(1, 4)] + [f"userGenre{n}" for n in range(1, 6)]
SPARSE += [f"userRatedMovie{n}" for n in range(1, 6)]


@dataclass
class Columns:
    """The rows that every contender trains on: categories as codes from 0, numbers standardised, missing numbers 0."""

    source: str
    categories: dict[str, npt.NDArray[np.int64]]
    numbers: dict[str, npt.NDArray[np.float32]]
    labels: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def distinct(self) -> dict[str, int]:
        """The number of codes of each category."""
        return {name: int(codes.max()) + 1 for name, codes in self.categories.items()}


def columns(samples: Path = SPARROW) -> Columns:
    """Return the SparrowRecSys samples if they lie beside the project, else MovieLens-100K."""
    if samples.is_file():
        frame = pl.read_csv(gzip.decompress(samples.read_bytes()))
        return _columns("sparrow58k, random, training part", frame, SPARSE, DENSE, frame["label"].to_numpy())
    data = open_dataset("movielens", None)
    frame = pl.concat(
        [data.side("user"), data.side("item").select(pl.exclude(data.side("user").columns))], how="horizontal"
    )
    single = [name for name in frame.columns if not isinstance(frame.schema[name], pl.List | pl.Struct)]
    numeric = [field.name for field in data.schema.fields if isinstance(field, Numeric)]
    dense = [name for name in single if name in numeric]
    return _columns("MovieLens-100K", frame, [name for name in single if name not in dense], dense, data.labels_N)


def _columns(source: str, frame: pl.DataFrame, sparse: list[str], dense: list[str], labels: Any) -> Columns:
    categories, numbers = {}, {}
    for name in sparse:
        text = frame[name].cast(pl.String).fill_null("").to_numpy().astype(str)
        categories[name] = np.unique(text, return_inverse=True)[1].astype(np.int64)
    for name in dense:
        raw = frame[name].cast(pl.Float32).fill_nan(None).to_numpy().astype(np.float32)
        numbers[name] = np.nan_to_num((raw - np.nanmean(raw)) / max(float(np.nanstd(raw)), 1e-6)).astype(np.float32)
    return Columns(source, categories, numbers, np.asarray(labels, np.float32))


def as_rows(data: Columns) -> tuple[Preprocessing, ExpandedRows]:
    """Return the same columns as one field each, in which every category has a table row."""
    fields: list[Categorical | Numeric] = [Categorical(name=name, entity=_entity(name)) for name in data.categories]
    fields += [
        Numeric(name=name, type="numeric", entity=_entity(name), transforms=(), buckets=0) for name in data.numbers
    ]
    schema = FeatureSchema(fields=tuple(sorted(fields, key=lambda field: field.entity != "user")))
    # Keys are made up: nothing is looked up while training.
    fixed = sorted(numeric_key(name) for name in data.numbers)
    total = sum(data.distinct.values())
    vocabulary = np.union1d(np.arange(1, total + 1) * (2**62 // total), np.array(fixed, np.int64))
    statistics = {f.name: numeric_statistics(f, data.numbers[f.name]) for f in schema.fields if isinstance(f, Numeric)}
    preprocessing = Preprocessing(schema, torch.from_numpy(vocabulary), statistics)
    position_of = {name: int(np.searchsorted(vocabulary, numeric_key(name))) for name in data.numbers}
    free = preprocessing.oov_rows + np.delete(np.arange(len(vocabulary)), list(position_of.values()))
    rows, x, taken = [], [], 0
    for field in [*schema.side("user"), *schema.side("item")]:
        if isinstance(field, Numeric):
            rows.append(np.full(len(data), preprocessing.oov_rows + position_of[field.name], np.int64))
            x.append(data.numbers[field.name])
        else:
            rows.append(free[data.categories[field.name] + taken])
            x.append(np.ones(len(data), np.float32))
            taken += data.distinct[field.name]
    stacked = torch.from_numpy(np.stack(rows, 1)), torch.from_numpy(np.stack(x, 1))
    return preprocessing, ExpandedRows(*stacked, torch.from_numpy(data.labels))


def _entity(name: str) -> Any:
    return "user" if name.startswith("user") or name in ("age", "gender", "occupation", "zip_code") else "item"


def many_keys(
    keys: int, rows: int, fields: int, *, tail: str, drawn_of: int | None = None, seed: int = 0
) -> tuple[Preprocessing, ExpandedRows]:
    """Return random rows over a vocabulary of so many keys, which the fields share evenly.

    Args:
        drawn_of: the number of keys that rows are drawn from, spread over the table; None draws from all.
        tail: `long`, as in real logs, draws the r-th key of a field with a chance as 1 / r; `even` draws all alike.
    """
    rng = np.random.default_rng(seed)
    each = keys // fields
    names = [f"user_{n}" if n < fields // 2 else f"item_{n}" for n in range(fields)]
    schema = FeatureSchema(fields=tuple(Categorical(name=name, entity=_entity(name)) for name in names))
    vocabulary = torch.arange(1, each * fields + 1) * (2**62 // (each * fields))
    preprocessing = Preprocessing(schema, vocabulary, {})
    drawn = rng.random((rows, fields))
    some = (drawn_of or keys) // fields
    ranks = np.exp(drawn * np.log(some)).astype(np.int64) if tail == "long" else (drawn * some).astype(np.int64)
    # Rows lie in the order of hashed keys, so frequent ones are spread over the table.
    spread = (np.minimum(ranks, some - 1) * 2_654_435_761) % each
    rows_NT = torch.from_numpy(spread + np.arange(fields) * each + preprocessing.oov_rows)
    labels_N = torch.from_numpy((rng.random(rows) < 0.3).astype(np.float32))
    return preprocessing, ExpandedRows(rows_NT, torch.ones(rows, fields), labels_N)
