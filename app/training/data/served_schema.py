"""`ServedSchema`: the schema that served rows are trained by, and how slots that were logged become its slots.

Positions are held while ranking, so that all rows of an answer have the same slots of them. Here each row gets those of
the place that its item had in the answer, 1 for the first. Rows that were served before the schema had a field of the
position, or with another, differ in nothing else, and are used too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.errors import DataError
from app.events.logged_schema import LoggedSchema, read_logged_schema
from app.features.encoder import Encoder
from app.features.schema import FeatureSchema
from app.features.slot_layout import SlotLayout
from app.features.slots import Slots


@dataclass
class ServedSchema:
    """Holds the schema, and knows those of the log that differ from it in fields of the position alone."""

    folder: Path
    """Where `ctr join` has put the schemas of the log."""
    schema: FeatureSchema
    logged: LoggedSchema
    """One such schema of the log, with some users and items."""
    _layouts: dict[str, SlotLayout | None] = field(default_factory=dict)

    def layout_of(self, schema_hash: str) -> SlotLayout | None:
        """Return the layout of the user slots that were logged under a schema; None where it is another schema."""
        if schema_hash not in self._layouts:
            try:
                logged = read_logged_schema(self.folder, schema_hash).to_schema()
            except DataError:
                logged = None
            is_same = logged is not None and logged.without_positions.hash == self.schema.without_positions.hash
            self._layouts[schema_hash] = logged.layout("user") if logged is not None and is_same else None
        return self._layouts[schema_hash]

    def user_slots(self, logged: SlotLayout, slots: Slots, position_N: npt.NDArray[np.int64]) -> Slots:
        """Return the user slots of rows [N, S] by this schema.

        Args:
            logged: the layout of `slots` [N, L], which were logged.
            position_N: the place of each row in its answer, from 1.
        """
        layout = self.schema.layout("user")
        if not any(one.is_position for one in layout.fields) and layout.fields == logged.fields:
            return slots
        target = Slots(
            np.empty((len(position_N), layout.width), np.int64), np.empty((len(position_N), layout.width), np.float32)
        )
        encoder = Encoder(self.schema, "user", logged=True)
        places = [
            encoder.encode({one.raw_name: place for one in layout.fields if one.is_position})
            for place in range(1, max(1, int(position_N.max(initial=0))) + 1)
        ]
        keys_PS, values_PS = np.stack([place.keys for place in places]), np.stack([place.values for place in places])
        for one, columns in layout:
            if one.is_position:
                target.keys[:, columns] = keys_PS[position_N - 1, columns]
                target.values[:, columns] = values_PS[position_N - 1, columns]
            else:
                given = logged.slots[one.name]
                target.keys[:, columns], target.values[:, columns] = slots.keys[:, given], slots.values[:, given]
        return target
