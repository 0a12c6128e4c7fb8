"""Tables of 3,000 impressions with one column of a kind, and what is proposed for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from app.features.schema import parse_schema
from app.training.data.schema_proposal import SchemaProposal, propose_schema
from tests.training.data.test_number_kind import popular_codes

ROWS = 3_000
CLICKED = np.random.default_rng(9).random(ROWS) < 0.3
NOON = 1_717_243_200
RANDOM = np.random.default_rng(1)
USERS, ITEMS = RANDOM.integers(0, 150, ROWS), np.asarray(popular_codes(RANDOM, ROWS, 80, 900, 0.5))
SECONDS = NOON + np.sort(RANDOM.integers(0, 86_400, ROWS))


def propose(folder: Path, columns: Mapping[str, object], *, suffix: str = "csv", **options: str) -> SchemaProposal:
    table = pl.DataFrame({**columns, "click": CLICKED.astype(np.int64)}, nan_to_null=True)
    path = folder / f"rows.{suffix}"
    table.write_parquet(path) if suffix == "parquet" else table.write_csv(path)
    return propose_schema(path, label="click", **options)


def types(proposal: SchemaProposal) -> dict[str, str]:
    return {field.name: field.type for field in parse_schema(proposal.text).fields}


def entities(proposal: SchemaProposal) -> dict[str, str]:
    return {field.name: field.entity for field in parse_schema(proposal.text).fields}


def ids(proposal: SchemaProposal) -> dict[str, str]:
    fields = parse_schema(proposal.text).fields
    return {field.entity: field.name for field in fields if field.type == "categorical" and field.id}


def spaces(proposal: SchemaProposal) -> dict[str, str]:
    fields = parse_schema(proposal.text).fields
    return {field.name: field.space for field in fields if field.type != "numeric" and field.space}


def iso(seconds: npt.ArrayLike, form: str = "%Y-%m-%dT%H:%M:%S") -> pl.Series:
    return pl.from_epoch(pl.Series(np.asarray(seconds))).dt.strftime(form)
