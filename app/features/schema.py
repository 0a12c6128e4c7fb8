"""The feature schema: which raw fields exist, on which side of the model, and how each becomes slots.

Written by people as `features.yaml`, kept by machines as JSON in the manifest of every published version. It holds
nothing learned: vocabularies, scales and bucket borders live in the artifact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from app.errors import SchemaError
from app.features.fields import (
    SIDES,
    AnyField,
    Categorical,
    Declaration,
    MissingWords,
    MultiCategorical,
    Name,
    Numeric,
    Side,
)
from app.features.positions import check_positions
from app.features.slot_layout import SlotLayout, vectors_of
from app.features.values import Reading

MAX_FIELDS = 1000


class Cross(Declaration):
    """A pair of fields whose value pairs get weights of their own in a wide part; other models ignore it."""

    fields: tuple[Name, Name]
    buckets: Annotated[int, Field(ge=2, le=100_000_000)] = 10_000
    """Number of weights that pairs of values are hashed into; a number takes part by its own quantile bucket."""


class FeatureSchema(Declaration):
    """All fields of users, items and requests, and the crosses between them."""

    version: Literal[1] = 1
    fields: Annotated[tuple[AnyField, ...], Field(min_length=1, max_length=MAX_FIELDS)]
    crosses: Annotated[tuple[Cross, ...], Field(max_length=100)] = ()
    missing: MissingWords = ()
    """Values that count as missing in every field, numbers' usual ones aside: `NULL`, `\\N`, `NA`."""
    reading: Reading = 2
    """How values are spelled (`app.features.values`); manifests that do not say so were written under 1."""

    @model_validator(mode="after")
    def _consistent(self) -> FeatureSchema:
        seen: set[str] = set()
        for field in self.fields:
            if field.name in seen:
                raise ValueError(f"field {field.name!r} is declared twice; use `source` to read one raw field twice")
            seen.add(field.name)
        for entity in ("user", "item"):
            ids = [f.name for f in self.fields if f.is_id and f.entity == entity]
            if len(ids) > 1:
                raise ValueError(f"fields {ids} both claim to be the {entity} id")
        for field in self.fields:
            if field.is_id and not field.is_stored:
                raise ValueError(f"field {field.name!r}: {field.entity} has no id")
        check_positions(self.fields)
        crossable = {field.name for field in self.fields if not isinstance(field, Numeric) or field.buckets}
        pairs: set[frozenset[str]] = set()
        for cross in self.crosses:
            for name in cross.fields:
                if name not in seen:
                    raise ValueError(f"cross {list(cross.fields)}: there is no field {name!r}")
                if name not in crossable:
                    raise ValueError(f"cross {list(cross.fields)}: the number {name!r} needs `buckets` to be crossed")
            pair = frozenset(cross.fields)
            if len(pair) == 1 or pair in pairs:
                raise ValueError(f"cross {list(cross.fields)}: two different fields, and every pair once")
            pairs.add(pair)
        return self

    @cached_property
    def without_positions(self) -> FeatureSchema:
        """The schema without fields of the position, and the crosses of them; itself where it has none."""
        fields = tuple(field for field in self.fields if not field.is_position)
        names = {field.name for field in fields}
        if len(fields) == len(self.fields):
            return self
        crosses = tuple(cross for cross in self.crosses if names.issuperset(cross.fields))
        return FeatureSchema(fields=fields, crosses=crosses, missing=self.missing, reading=self.reading)

    def side(self, side: Side) -> tuple[Categorical | MultiCategorical | Numeric, ...]:
        """Return the fields of the request side (user and context) or of the item side, in declared order."""
        return tuple(f for f in self.fields if f.side == side)

    def layout(self, side: Side) -> SlotLayout:
        """Return the slots and field vectors of one side."""
        return SlotLayout(side, self.side(side))

    @cached_property
    def vectors(self) -> Mapping[str, slice]:
        """Slots of each field vector among the T of both sides, user side first, in the order of the F vectors."""
        return vectors_of(*(self.layout(side) for side in SIDES))

    @cached_property
    def hash(self) -> str:
        """Hex SHA-256 of the canonical JSON; equal schemas encode alike."""
        raw = self.model_dump(mode="json")
        # Versions that were published before there were these keep their hash.
        for name in ("crosses", "missing"):
            if not raw[name]:
                del raw[name]
        if self.reading == 1:
            del raw["reading"]
        for field in raw["fields"]:
            if not field["missing"]:
                del field["missing"]
        canonical = msgspec.json.encode(raw, order="sorted")
        return hashlib.sha256(canonical).hexdigest()


UNTYPED = ("union_tag_not_found", "union_tag_invalid")
"""What pydantic calls a field without a `type`, or with one that does not exist."""
NO_TYPE = "needs a name, an entity and a `type`: categorical, multi_categorical or numeric"
"""What users read in place of pydantic's message, which speaks of the tags of a union."""


def load_schema(path: Path) -> FeatureSchema:
    """Read and check a `features.yaml`.

    Raises:
        SchemaError: the file is missing, not YAML, or does not fit; the message names each field and its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_schema(text, origin=str(path))


def parse_schema(text: str, origin: str = "features.yaml") -> FeatureSchema:
    """Parse and check the text of a `features.yaml`; `origin` names it in errors. Raises SchemaError."""
    try:
        loader = _LoaderWithoutAliases(text)
        root = loader.get_single_node()
        raw = None if root is None else loader.construct_document(root)
    except _AliasError as error:
        raise SchemaError(
            f"{origin}:{error.line}: *{error}: aliases are not read; write out what it stands for"
        ) from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SchemaError(
            f"{origin}{line}: not YAML: {error.problem or error.context or 'it cannot be read'}"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SchemaError(f"{origin}: not YAML: {' '.join(str(error).split())}") from error
    return _validate(raw, root, origin)


class _AliasError(Exception):
    """The text has an alias of this name."""

    def __init__(self, name: str, line: int) -> None:
        super().__init__(name)
        self.line = line


class _LoaderWithoutAliases(yaml.SafeLoader):
    """Refuses aliases before it follows them: a few, nested, stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _AliasError(event.anchor, event.start_mark.line + 1)
        return super().compose_node(parent, index)


def schema_from_json(raw: object) -> FeatureSchema:
    """Check a schema as the manifest keeps it. Raises SchemaError if it does not fit."""
    return _validate({"reading": 1, **raw} if isinstance(raw, dict) else raw, None, "manifest")


def _validate(raw: object, root: yaml.Node | None, origin: str) -> FeatureSchema:
    if not isinstance(raw, dict):
        raise SchemaError(f"{origin}:1: expected a mapping with a list called `fields`")
    try:
        # Through JSON so that strict mode accepts YAML's and the manifest's lists where tuples are declared.
        return FeatureSchema.model_validate_json(msgspec.json.encode(raw))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise SchemaError(f"{origin}: holds a value JSON cannot express: {error}") from error
        messages: list[str] = []
        for problem in error.errors(include_url=False, include_input=False)[:20]:
            location = problem["loc"]
            if location == ("fields",) and messages:
                continue  # where every field is bad pydantic also finds the list empty
            line = _line_of(root, location)
            where = _describe(raw, location)
            position = f"{origin}:{line}" if line else origin
            messages.append(f"{position}: {where}{_message(problem)}{_advice(location, problem['type'])}")
        raise SchemaError("\n".join(messages)) from error


def _message(problem: ErrorDetails) -> str:
    return NO_TYPE if problem["type"] in UNTYPED else problem["msg"]


def _advice(location: tuple[int | str, ...], problem: str) -> str:
    if location[-1:] == ("source",) and problem == "string_type":
        return "; write the column's name in quotes"
    if location[-1:] == ("name",) and problem.startswith("string"):
        return "; name the field otherwise, and the column as it is called in `source`"
    return ""


def _describe(raw: dict[str, list[object]], location: tuple[int | str, ...]) -> str:
    """Describe a pydantic location: `field 'age', buckets: ` for ("fields", 3, "numeric", "buckets")."""
    if len(location) >= 2 and location[0] == "fields" and isinstance(location[1], int):
        entry = raw["fields"][location[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        rest = [str(part) for part in location[2:] if part not in ("categorical", "multi_categorical", "numeric")]
        return ", ".join([f"field {name!r}" if name else f"field number {location[1] + 1}", *rest]) + ": "
    return ".".join(str(part) for part in location) + (": " if location else "")


def _line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int | None:
    """Return the line of the deepest YAML node along a pydantic location, whose union tags are not in the YAML."""
    if node is None:
        return None
    for part in location:
        child: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            child = next((value for key, value in node.value if key.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = node.value[part]
        node = child or node
    return int(node.start_mark.line) + 1
