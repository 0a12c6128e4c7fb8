"""The slots of one side's fields: the only place that knows which slots a field has.

A side's fields own consecutive runs of its S slots, in declared order. A model appends one slot for the quantile bucket
of each number that has buckets and, behind those, two for each target statistic, which makes T. It sums the slots of a
field to the field's vector: F vectors, those of the declared fields first, those of buckets and statistics behind them.
The vector of a bucket is called `<field>:bucket`, those of a statistic `<field>:rate` and `<field>:count`; a statistic
of two fields has both names, `<field>+<field>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from types import MappingProxyType

from app.features.fields import Categorical, MultiCategorical, Numeric, Side


class SlotLayout:
    """The slots of one side's fields. Immutable."""

    def __init__(
        self,
        side: Side,
        fields: tuple[Categorical | MultiCategorical | Numeric, ...],
        statistics: tuple[str, ...] = (),
    ) -> None:
        """
        Args:
            fields: the side's fields in declared order.
            statistics: names of the vectors of target statistics, which are numbers and no declared fields.
        """
        self.side = side
        self.fields = fields
        self.statistics = statistics
        slots: dict[str, slice] = {}
        width = 0
        for field in fields:
            slots[field.name] = slice(width, width + field.width)
            width += field.width
        self.slots: Mapping[str, slice] = MappingProxyType(slots)
        """Slots of each declared field among the side's S."""
        self.width = width
        """S, the number of slots of the side."""

    def __iter__(self) -> Iterator[tuple[Categorical | MultiCategorical | Numeric, slice]]:
        """Yield each declared field with its slots among the side's S."""
        return zip(self.fields, self.slots.values(), strict=True)

    @cached_property
    def id_field(self) -> Categorical | None:
        """The field that is the entity's own id, or None where the side declares none."""
        return next((field for field in self.fields if isinstance(field, Categorical) and field.id), None)

    @cached_property
    def id_slot(self) -> int | None:
        """Slot of the entity's own id, or None where the side declares no id field."""
        return None if self.id_field is None else int(self.slots[self.id_field.name].start)

    @cached_property
    def categoricals(self) -> tuple[Categorical | MultiCategorical, ...]:
        """Fields of one or several categories, in declared order."""
        return tuple(field for field in self.fields if not isinstance(field, Numeric))

    @cached_property
    def numerics(self) -> tuple[Numeric, ...]:
        """Numeric fields in declared order, M of them."""
        return tuple(field for field in self.fields if isinstance(field, Numeric))

    @cached_property
    def bucketed(self) -> tuple[Numeric, ...]:
        """Numeric fields that have buckets, in declared order."""
        return tuple(field for field in self.numerics if field.buckets)

    @cached_property
    def vectors(self) -> Mapping[str, slice]:
        """Slots of each field vector among the side's T, in the order of the F vectors."""
        appended = (*(bucket_name(field.name) for field in self.bucketed), *self.statistics)
        slots = {name: slice(slot, slot + 1) for slot, name in enumerate(appended, self.width)}
        return MappingProxyType({**self.slots, **slots})

    @cached_property
    def expanded_width(self) -> int:
        """T, the number of slots once the buckets of numbers and target statistics are appended."""
        return self.width + len(self.bucketed) + len(self.statistics)


def vectors_of(user: SlotLayout, item: SlotLayout) -> Mapping[str, slice]:
    """Return the slots of each field vector among the T of both sides, user side first."""
    start = user.expanded_width
    item_vectors = {name: slice(start + s.start, start + s.stop) for name, s in item.vectors.items()}
    return MappingProxyType({**user.vectors, **item_vectors})


def bucket_name(field: str) -> str:
    """Name of the field vector that a number's quantile bucket has; no declared field can have it."""
    return f"{field}:bucket"


def declared_name(vector: str) -> str:
    """Name of the declared field that a field vector belongs to, or of both fields of a pair's statistic."""
    return vector.partition(":")[0]
