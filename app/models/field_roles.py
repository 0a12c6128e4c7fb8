"""Where a schema's fields sit among slots and field vectors, and which fields play which part.

Orders are those of `SideInput`: a side's declared fields, then the bucket of each number that has buckets, which is
called `<name>:bucket` here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.errors import ConfigError
from app.features.fields import Side
from app.features.schema import FeatureSchema


def field_names(schema: FeatureSchema) -> tuple[list[str], int]:
    """Names of the F field vectors of both sides, user side first, and how many are the user side's."""
    return list(schema.vectors), len(schema.layout("user").vectors)


def field_index(schema: FeatureSchema, name: str) -> int:
    """Place of a field among the F field vectors of both sides. Raises ConfigError."""
    names, _ = field_names(schema)
    if name not in names:
        raise ConfigError(f"there is no field {name!r} to cross; the schema has {', '.join(names)}")
    return names.index(name)


class SidePart(nn.Module):
    """What of one side a network reads: some of its embeddings, flattened, and its numerics if wanted."""

    chosen_F: Tensor

    def __init__(self, fields: Sequence[int], dim: int, numerics: int) -> None:
        """
        Args:
            fields: places among the side's field vectors.
            numerics: how many numbers the side has; 0 leaves them out.
        """
        super().__init__()
        self.width = len(fields) * dim + numerics
        self.with_numerics = numerics > 0
        self.register_buffer("chosen_F", torch.tensor(list(fields), dtype=torch.int64))

    def forward(self, fields_BFE: Tensor, numerics_BM: Tensor) -> Tensor:
        """[B, width] from the side's field vectors [B, F, 1 + K] and numerics [B, M]."""
        chosen_BD = fields_BFE[:, self.chosen_F, 1:].flatten(1)
        return torch.cat([chosen_BD, numerics_BM], 1) if self.with_numerics else chosen_BD


@dataclass(frozen=True)
class Roles:
    """Which fields play the parts that the teaching models name; None where the schema has no such field."""

    movie: str | None
    user: str | None
    movie_genre: str | None
    user_genre: str | None


def find_roles(
    schema: FeatureSchema,
    movie: str | None = None,
    user: str | None = None,
    movie_genre: str | None = None,
    user_genre: str | None = None,
) -> Roles:
    """Fill the roles that were not named: movie and user are the ids, the genres a user's and an item's field that
    share a space. Where there is none, the first field of that side that is left, a categorical one if possible.

    Raises:
        ConfigError: a named field is not in the schema, or not on the side its role is on.
    """
    for side, names in (("item", (movie, movie_genre)), ("user", (user, user_genre))):
        there = {field.name for field in schema.fields if field.side == side}
        for name in names:
            if name is not None and name not in there:
                raise ConfigError(f"{name!r} is no {side} field; the schema has {', '.join(sorted(there)) or 'none'}")
    movie = movie or _id_or_first(schema, "item", movie_genre)
    user = user or _id_or_first(schema, "user", user_genre)
    if movie_genre is None or user_genre is None:
        for user_field, item_field in shared_spaces(schema):
            fits = movie_genre in (None, item_field) and user_genre in (None, user_field)
            if fits and item_field != movie and user_field != user:
                movie_genre, user_genre = item_field, user_field
                break
    return Roles(
        movie,
        user,
        movie_genre or _first(schema, "item", but=movie),
        user_genre or _first(schema, "user", but=user),
    )


def shared_spaces(schema: FeatureSchema) -> list[tuple[str, str]]:
    """Pairs of a user-side and an item-side field whose values are of one space, in declared order."""
    return [
        (user.name, item.name)
        for user in schema.layout("user").categoricals
        for item in schema.layout("item").categoricals
        if user.vocabulary == item.vocabulary
    ]


def _first(schema: FeatureSchema, side: Side, but: str | None) -> str | None:
    layout = schema.layout(side)
    return next((field.name for field in (*layout.categoricals, *layout.numerics) if field.name != but), None)


def _id_or_first(schema: FeatureSchema, side: Side, but: str | None) -> str | None:
    id_field = schema.layout(side).id_field
    return id_field.name if id_field is not None else _first(schema, side, but)
