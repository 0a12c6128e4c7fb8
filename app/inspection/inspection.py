"""`inspect` looks whether a schema, a file and the feature store match a version; it changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import redis

from app.errors import CtrError
from app.features.encoder import Encoder
from app.features.fields import SIDES, Side
from app.features.redis_client import CLIENT_ERRORS, store_error
from app.features.schema import FeatureSchema
from app.inspection.field_values import FieldValues, field_values
from app.inspection.file_match import match_columns, match_types, sample_file, sides_of
from app.inspection.finding import Finding
from app.inspection.schema_match import match_schemas
from app.inspection.store_match import match_hashes, match_keys, match_values
from app.inspection.store_sample import StoreSample, sample_store
from app.registry.artifact.artifact import Artifact

OpenStore = Callable[[], AbstractContextManager[redis.Redis]]
ENTITIES: dict[Side, str] = {"user": "users", "item": "items"}


@dataclass
class Inspection:
    """What was looked at, and what was found."""

    findings: list[Finding] = field(default_factory=list)
    sampled: dict[str, int] = field(default_factory=dict)
    """How many `users` and `items` of the store and `rows` of the file were looked at."""


def inspect(
    schema: FeatureSchema,
    live: Artifact | None,
    open_store: OpenStore,
    templates: dict[Side, str],
    *,
    data: Path | None = None,
    escape: str | None = None,
    count: int = 1000,
    max_unknown: float = 0.2,
) -> Inspection:
    """Look at a sample of the store and of a file.

    Args:
        schema: what the file and the store are to fit; that of the version unless it is another one.
        live: the version; None compares with a schema alone.
        open_store: opens the feature store; what it raises becomes a finding.
        templates: key templates by side.
        count: hashes of each side, and rows, to look at.
        max_unknown: the largest share of a field's values that the version may not know.

    Raises:
        DataError, ConfigError: the file cannot be read.
    """
    found = Inspection()
    if live is not None:
        found.findings += match_schemas(schema, live.schema, f"version {live.version}")
    encoders = {side: Encoder(schema, side) for side in SIDES}
    vocabulary_V = None if live is None else np.sort(live.program.vocabulary_V.cpu().numpy())
    file = None if data is None else sample_file(data, count, escape)
    in_file: dict[Side, dict[str, FieldValues]] = {}
    empty: dict[Side, set[str]] = {}
    asked: dict[Side, list[str]] = {}
    name, shares = "", dict[str, float]()
    if file is not None:
        name, shares = file.name, file.shares()
        found.sampled["rows"] = len(file.rows)
        found.findings += match_columns(file, encoders)
        for side in sides_of(file, encoders):
            in_file[side] = field_values(encoders[side], file.ids(encoders[side]), file.rows, vocabulary_V)
            found.findings += match_values(in_file[side], name, max_unknown)
            empty[side] = file.empty_ids(encoders[side])
            asked[side] = [one for one in file.ids(encoders[side]) if one is not None and one not in empty[side]]
    try:
        with open_store() as client:
            samples = dict(_sample(client, templates, encoders, asked, count))
    except (*CLIENT_ERRORS, CtrError) as error:
        reason = str(error) if isinstance(error, CtrError) else str(store_error(error))
        advice = "set CTR_REDIS_URL to the store that the service reads, and see that it answers"
        found.findings.append(Finding("store", "store", "", reason, advice))
        return found
    impressions = name if len(in_file) == len(SIDES) else ""
    for side, sample in samples.items():
        where = ENTITIES[side]
        found.sampled[where] = len(sample.hashes)
        in_store = field_values(encoders[side], list(sample.hashes), list(sample.hashes.values()), vocabulary_V)
        setting, is_in_file = f"CTR_{side.upper()}_KEY", side in in_file
        found.findings += match_keys(
            sample, where, setting, file=name, empty=len(empty[side]) if asked.get(side) else 0, impressions=impressions
        )
        found.findings += match_hashes(
            sample,
            encoders[side],
            in_store,
            where,
            shares if is_in_file else {},
            max_unknown=max_unknown,
            impressions=impressions,
        )
        if is_in_file:
            found.findings += match_types(in_file[side], in_store, where, name)
    return found


def _sample(
    client: redis.Redis,
    templates: dict[Side, str],
    encoders: dict[Side, Encoder],
    asked: Mapping[Side, list[str]],
    count: int,
) -> Iterator[tuple[Side, StoreSample]]:
    """Yield a sample of the store for each side that the schema has fields of, the ids that are asked for first."""
    for side, encoder in encoders.items():
        ids = asked.get(side, [])
        if ids or any(one.entity == side for one in encoder.fields):
            yield side, sample_store(client, templates[side], count, ids)
