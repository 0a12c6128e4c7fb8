"""Slots and field vectors of a side, against the fields counted one by one."""

from __future__ import annotations

from app.features.fields import SIDES, MultiCategorical, Numeric
from app.features.schema import FeatureSchema, parse_schema
from app.features.slot_layout import bucket_name, declared_name
from tests.factories import small_schema

SCHEMA = small_schema()


def numbers(slots: slice) -> list[int]:
    return list(range(slots.start, slots.stop))


def test_every_slot_belongs_to_one_field_in_declared_order() -> None:
    for side in SIDES:
        layout = SCHEMA.layout(side)
        owners = [
            field.name
            for field in SCHEMA.fields
            if (field.entity == "item") == (side == "item")
            for _ in range(field.max_length if isinstance(field, MultiCategorical) else 1)
        ]
        assert layout.width == len(owners)
        assert [field.name for field, slots in layout for _ in numbers(slots)] == owners
        assert [(field.name, slots) for field, slots in layout] == list(layout.slots.items())
        assert [slot for _, slots in layout for slot in numbers(slots)] == list(range(layout.width))


def test_buckets_have_the_slots_behind_those_of_the_fields() -> None:
    for side in SIDES:
        layout = SCHEMA.layout(side)
        bucketed = [f.name for f in SCHEMA.side(side) if isinstance(f, Numeric) and f.buckets]
        assert [field.name for field in layout.bucketed] == bucketed
        assert list(layout.vectors) == [*layout.slots, *map(bucket_name, bucketed)]
        assert [slot for slots in layout.vectors.values() for slot in numbers(slots)] == list(
            range(layout.expanded_width)
        )
        assert [declared_name(name) for name in layout.vectors] == [*layout.slots, *bucketed]


def test_the_vectors_of_both_sides_begin_with_the_users() -> None:
    user, item = (SCHEMA.layout(side) for side in SIDES)
    assert list(SCHEMA.vectors) == [*user.vectors, *item.vectors]
    assert [slot for slots in SCHEMA.vectors.values() for slot in numbers(slots)] == list(
        range(user.expanded_width + item.expanded_width)
    )


def test_kinds_of_fields_and_the_id() -> None:
    layout = SCHEMA.layout("user")
    assert {*layout.categoricals, *layout.numerics} == set(layout.fields)
    assert all(isinstance(field, Numeric) for field in layout.numerics)
    assert layout.id_field is not None
    assert (layout.id_field.name, layout.id_slot) == ("user_id", 0)


def test_a_side_may_have_no_fields() -> None:
    schema: FeatureSchema = parse_schema("fields:\n  - {name: age, entity: user, type: numeric}\n")
    layout = schema.layout("item")
    assert (layout.width, layout.expanded_width, list(layout), layout.id_slot) == (0, 0, [], None)
    assert schema.layout("user").id_field is None
