"""The fields of a schema that play the roles of the teaching models: a movie, a user, and the genres of both."""

from dataclasses import dataclass

from app.errors import ConfigError
from app.features.fields import Side
from app.features.schema import FeatureSchema


@dataclass(frozen=True)
class FieldRoles:
    """Names of the fields that play each role; None where the schema has no such field."""

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
) -> FieldRoles:
    """Fill the roles that are not named.

    Movie and user are the ids, the genres a user's and an item's field that share a space. If there is no such field,
    the role goes to the first field of its side without a role, a categorical one if possible.

    Raises:
        ConfigError: a named field is not in the schema, or not on the side its role is on.
    """
    for side, names in (("item", (movie, movie_genre)), ("user", (user, user_genre))):
        declared = {field.name for field in schema.fields if field.side == side}
        for name in names:
            if name is not None and name not in declared:
                listed = ", ".join(sorted(declared)) or "none"
                raise ConfigError(f"{name!r} is no {side} field; the schema has {listed}")
    movie = movie or _id_or_first(schema, "item", movie_genre)
    user = user or _id_or_first(schema, "user", user_genre)
    if movie_genre is None or user_genre is None:
        for user_field, item_field in shared_spaces(schema):
            fits = movie_genre in (None, item_field) and user_genre in (None, user_field)
            if fits and item_field != movie and user_field != user:
                movie_genre, user_genre = item_field, user_field
                break
    return FieldRoles(
        movie,
        user,
        movie_genre or _first(schema, "item", except_for=movie),
        user_genre or _first(schema, "user", except_for=user),
    )


def shared_spaces(schema: FeatureSchema) -> list[tuple[str, str]]:
    """Return pairs of a user-side and an item-side field whose values are of one space, in declared order."""
    return [
        (user.name, item.name)
        for user in schema.layout("user").categoricals
        for item in schema.layout("item").categoricals
        if user.space_name == item.space_name
    ]


def _first(schema: FeatureSchema, side: Side, except_for: str | None) -> str | None:
    layout = schema.layout(side)
    names = [field.name for field in (*layout.categoricals, *layout.numerics) if not field.is_position]
    return next((name for name in names if name != except_for), None)


def _id_or_first(schema: FeatureSchema, side: Side, except_for: str | None) -> str | None:
    id_field = schema.layout(side).id_field
    return id_field.name if id_field is not None else _first(schema, side, except_for)
