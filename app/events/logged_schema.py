"""The log holds the schemas by which its slots were made, so that rows of it can be trained on without anything else.

    <folder>/schemas/<hash>.json

Each has some users and items as features beside it, of the golden requests of a version: slots cannot be read back,
and the next version needs requests to prove itself by. The users are nobody: values of several are mixed, and ids are
made up, so that the log names no user here whom it hashes, or whom `ctr events forget` has taken out, elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from app.errors import DataError, SchemaError
from app.features.schema import FeatureSchema, schema_from_json
from app.registry.artifact.manifest import Manifest

SCHEMAS = "schemas"


class Entity(msgspec.Struct):
    """A user or an item, with features as they are stored."""

    id: str
    features: dict[str, Any]


class LoggedSchema(msgspec.Struct):
    """The content of a file of a schema."""

    schema: dict[str, Any]
    users: list[Entity]
    items: list[Entity]

    def to_schema(self) -> FeatureSchema:
        """Return the schema. Raises SchemaError."""
        return schema_from_json(self.schema)


def logged_schema(manifest: Manifest) -> bytes:
    """Return the content of the file of a version's schema."""
    id_field = schema_from_json(manifest.feature_schema).layout("user").id_field
    users = {request.user_id: request.user for request in manifest.golden}
    items = {
        item_id: features
        for request in manifest.golden
        for item_id, features in zip(request.item_ids, request.items, strict=True)
    }
    logged = LoggedSchema(
        manifest.feature_schema,
        _mixed(list(users.values()), None if id_field is None else id_field.raw_name),
        [Entity(*item) for item in items.items()],
    )
    return msgspec.json.encode(logged)


def _mixed(users: Sequence[Mapping[str, Any]], id_name: str | None) -> list[Entity]:
    """Return as many users, with the values of each feature in an order of its own, and with ids that nobody has.

    A user who is alone cannot be mixed, and has no features then.
    """
    mixed = [Entity(f"example-{number}", {}) for number in range(len(users))]
    dice = random.SystemRandom()  # an order that somebody could find out could be turned back
    for name in {name for user in users for name in user} if len(users) > 1 else ():
        for entity, user in zip(mixed, dice.sample(users, len(users)), strict=True):
            if name == id_name:
                entity.features[name] = entity.id
            elif name in user:
                entity.features[name] = user[name]
    return mixed


def schema_file(schema_hash: str) -> str:
    """Return the name of a schema's file below the log's folder."""
    return f"{SCHEMAS}/{schema_hash}.json"


def read_logged_schema(folder: Path, schema_hash: str) -> LoggedSchema:
    """Read the file of a schema below a folder. Raises DataError."""
    path = folder / schema_file(schema_hash)
    try:
        logged = msgspec.json.decode(path.read_bytes(), type=LoggedSchema)
        if logged.to_schema().hash != schema_hash:
            raise DataError(f"{path}: holds another schema than its name says")
    except (OSError, msgspec.DecodeError, SchemaError) as error:
        raise DataError(f"{path}: the schema of these rows cannot be read ({error})") from error
    return logged
