"""The fields that play roles, and the vectors that fields have."""

from __future__ import annotations

import pytest

from app.errors import ConfigError
from app.features.fields import SIDES
from app.features.schema import FeatureSchema, parse_schema
from app.models.field_roles import FieldRoles, find_roles, shared_spaces
from app.models.pairwise import vector_index
from app.models.side_input import SideInput
from tests.factories import fitted, small_schema


def schema_of(*fields: str) -> FeatureSchema:
    return parse_schema("fields:\n" + "".join(f"  - {{{field}}}\n" for field in fields))


def test_field_vectors_are_those_of_the_side_input() -> None:
    schema = small_schema()
    for side in SIDES:
        layout = schema.layout(side)
        module = SideInput(fitted(), side)
        slots = [list(range(vector.start, vector.stop)) for vector in layout.vectors.values()]
        assert [slot for of_vector in slots for slot in of_vector] == list(range(module.width))
        if module.pooled:
            assert slots == [module.pool_FT[field].nonzero().flatten().tolist() for field in range(module.fields)]
    names = list(schema.vectors)
    assert names[len(schema.layout("user").vectors) - 1] == "age:bucket"
    assert names[-1] == "year:bucket"
    assert names[vector_index(fitted(), "genres")] == "genres"
    with pytest.raises(ConfigError, match="no field 'genre' to cross"):
        vector_index(fitted(), "genre")


def test_roles_are_ids_and_the_shared_space() -> None:
    assert find_roles(small_schema()) == FieldRoles("item_id", "user_id", "genres", "liked_genres")
    assert shared_spaces(small_schema()) == [("liked_genres", "genres")]


def test_a_history_in_the_space_of_the_ids_is_no_genre() -> None:
    schema = schema_of(
        "name: user, entity: user, type: categorical, id: true",
        "name: watched, entity: user, type: multi_categorical, space: film",
        "name: taste, entity: user, type: multi_categorical, space: genre",
        "name: film, entity: item, type: categorical, id: true",
        "name: genre, entity: item, type: multi_categorical",
    )
    assert shared_spaces(schema) == [("watched", "film"), ("taste", "genre")]
    assert find_roles(schema) == FieldRoles("film", "user", "genre", "taste")
    assert find_roles(schema, movie="genre", user_genre="watched") == FieldRoles("genre", "user", "film", "watched")


@pytest.mark.parametrize(
    ("fields", "roles"),
    [
        (
            ["name: a, entity: user, type: categorical", "name: b, entity: item, type: categorical"],
            FieldRoles("b", "a", None, None),
        ),
        (
            ["name: n, entity: context, type: numeric", "name: b, entity: item, type: categorical"],
            FieldRoles("b", "n", None, None),
        ),
        (
            [
                "name: n, entity: user, type: numeric",
                "name: hour, entity: context, type: categorical",
                "name: year, entity: item, type: numeric",
                "name: b, entity: item, type: categorical",
            ],
            FieldRoles("b", "hour", "year", "n"),
        ),
    ],
)
def test_other_fields_step_in(fields: list[str], roles: FieldRoles) -> None:
    assert find_roles(schema_of(*fields)) == roles
