"""The kinds of raw fields that a feature schema declares, and how many slots each of them takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

from app.features.values import FLOAT32_MAX

Entity = Literal["user", "item", "context", "position"]
Side = Literal["user", "item"]
"""The two halves of a model's input. Context and position fields belong to the user side."""
SIDES: tuple[Side, Side] = ("user", "item")
WITHOUT_ID: dict[Side, str] = {
    "user": "each request sends what is known of the user, as `user_features`",
    "item": "each request sends what is known of its items, as `item_features`",
}
"""What serving a side comes to where no id says whose features the store should read."""
NAME = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME)]
RAW_NAME = r"^[^\x00\x1f]{1,256}$"
RawName = Annotated[str, StringConstraints(pattern=RAW_NAME)]
"""What a column or a key of a request may be called: `101`, `user_id:token` and `商品ID` are."""

MAX_SLOTS_PER_FIELD = 256


def _refuse_null(words: object) -> object:
    if isinstance(words, list | tuple) and None in words:
        raise ValueError('quote it ("NULL", "null", "~"): YAML reads it as nothing')
    return tuple(words) if isinstance(words, list) else words  # strict, and no longer JSON, which has no tuples


MissingWords = Annotated[tuple[str | int | float, ...], Field(max_length=100), BeforeValidator(_refuse_null)]
"""Values that stand for a missing one, in whatever spelling."""


class Declaration(BaseModel):
    """Base of everything that a schema declares: immutable, strictly typed, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Field(Declaration):
    name: Name
    entity: Entity
    source: RawName | None = None
    """Raw field to read; two fields may read one raw field, say `age` as a number and as a category.

    It may be called anything; YAML reads 101 as a number unless it is in quotes.
    """

    missing: MissingWords = ()
    """Values of this field that count as missing, beside those of the schema: `"-1"`, `unknown`."""

    serve_as: str | int | float | bool | None = None
    """Of a position: the raw value that it is held at when ranking, whatever is sent or stored."""

    @model_serializer(mode="wrap")
    def _without_what_is_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what only a position has: schemas without one are as they were before there were any."""
        dumped: dict[str, Any] = dump(self)
        if dumped.get("serve_as") is None:
            dumped.pop("serve_as", None)
        return dumped

    @property
    def raw_name(self) -> str:
        """Name of the raw field that this field reads."""
        return self.source or self.name

    @property
    def is_id(self) -> bool:
        """Whether the field is its entity's own id."""
        return False

    @property
    def is_position(self) -> bool:
        """Whether the field says where a row was shown, which training reads and ranking holds at `serve_as`."""
        return self.entity == "position"

    @property
    def is_stored(self) -> bool:
        """Whether the store has it: what comes with a request, or with a row to train on, is not there."""
        return self.entity in ("user", "item")

    @property
    def side(self) -> Side:
        """Side of the model that this field belongs to."""
        return "item" if self.entity == "item" else "user"


class Categorical(_Field):
    """A field with one category per entity."""

    type: Literal["categorical"] = "categorical"
    default: str | int | float | bool | None = None
    """Raw value used where the field is absent, null or empty."""
    space: Name | None = None
    """Name that fields share whose equal values mean the same; the field's own name by default."""
    id: bool = False
    """Marks the entity's own id, which is taken from the request and not from the store."""

    @property
    def is_id(self) -> bool:
        """Whether the field is its entity's own id."""
        return self.id

    @property
    def space_name(self) -> str:
        """Space that the field's keys are hashed in."""
        return self.space or self.name

    @property
    def width(self) -> int:
        """Number of slots that the field takes."""
        return 1


class MultiCategorical(_Field):
    """A field with several categories per entity, weighted or not."""

    type: Literal["multi_categorical"]
    default: str | list[str] | dict[str, float] | None = None
    """Raw value used where the field is absent, null or empty."""
    space: Name | None = None
    """Name that fields share whose equal values mean the same; the field's own name by default."""
    weighted: bool = False
    pooling: Literal["mean", "sum"] = "mean"
    max_length: Annotated[int, Field(ge=1, le=MAX_SLOTS_PER_FIELD)] = 16
    separator: Annotated[str, StringConstraints(min_length=1, max_length=4)] | None = None
    """Splits a text value that is not a JSON array or object: `Adventure|Children`."""

    @property
    def space_name(self) -> str:
        """Space that the field's keys are hashed in."""
        return self.space or self.name

    @property
    def width(self) -> int:
        """Number of slots that the field takes."""
        return self.max_length


class Numeric(_Field):
    """A field with one number per entity."""

    type: Literal["numeric"]
    default: Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX)] | None = None
    """Raw value used where the field is absent, null or empty."""
    transforms: tuple[Literal["log1p", "sqrt", "square", "standardise"], ...] = ("standardise",)
    """Transforms that the model applies in this order, with a learned mean and deviation; none feeds the raw number."""
    buckets: Annotated[int, Field(ge=0, le=1000)] = 0
    """Number of quantile buckets that are embedded beside the number; their borders are learned. 0 is none."""

    @property
    def width(self) -> int:
        """Number of slots that the field takes."""
        return 1


AnyField = Annotated[Categorical | MultiCategorical | Numeric, Field(discriminator="type")]
