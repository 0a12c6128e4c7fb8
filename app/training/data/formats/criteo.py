"""Read Criteo's display advertising data: tab-separated label, 13 integers, 26 hashed categories, no header."""

from __future__ import annotations

from pathlib import Path

from app.features.schema import FeatureSchema
from app.features.tables.cell_quoting import Quoting
from app.features.tables.delimited_layout import DelimitedLayout
from app.features.tables.table_paths import data_files
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.readers.delimited import delimited_files
from app.training.data.source import Source

LABEL = "label"
HEADER = (LABEL, *(f"I{n}" for n in range(1, 14)), *(f"C{n}" for n in range(1, 27)))
LAYOUT = DelimitedLayout(HEADER, Quoting("\t"), body=0)


def criteo_source(path: Path, schema: FeatureSchema, limits: EncodingLimits = DEFAULT_LIMITS) -> Source:
    """Describe Criteo files. Raises DataError if there are none."""
    return Source(
        "criteo",
        path,
        schema,
        delimited_files(data_files(path).files, fixed=LAYOUT, quoted=False, limits=limits),
        LABEL,
        hint="Criteo's files have 40 tab-separated columns and no header",
        limits=limits,
    )
