"""Fields of the position: where on the screen an item was, which training reads and ranking holds at one value.

What is shown further down is clicked less, whatever it is. A model that knows where each row was shown need not put
that down to the items; ranking asks it for the clicks of all candidates as if they were shown at `serve_as`, so that
the value is a constant of the user side.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.features.fields import AnyField, Categorical, MultiCategorical


def check_positions(fields: Sequence[AnyField]) -> None:
    """Raise ValueError where a field of the position could depend on a request, or another field is held."""
    read = {field.raw_name: field.name for field in fields if not field.is_position}
    spaces = {getattr(field, "space_name", None): field.name for field in fields if not field.is_position}
    for field in fields:
        where = f"field {field.name!r}"
        if not field.is_position:
            if field.serve_as is not None:
                raise ValueError(f"{where}: `serve_as` is for fields of `entity: position`")
            continue
        if isinstance(field, MultiCategorical):
            raise ValueError(f"{where}: a position is categorical or numeric")
        if field.serve_as is None or field.serve_as == "":
            raise ValueError(f"{where}: a position needs `serve_as`, the value that it is held at when ranking, say 1")
        if isinstance(field, Categorical) and field.space_name in spaces:
            raise ValueError(
                f"{where}: {spaces[field.space_name]!r} has values of the same space; a position has one of its own"
            )
        if field.raw_name in read:
            raise ValueError(
                f"{where}: {read[field.raw_name]!r} reads {field.raw_name!r} too, so that scores would depend on it"
            )
