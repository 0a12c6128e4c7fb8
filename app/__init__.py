"""ctr-serving: train CTR models, publish them, and rank candidates by click probability within milliseconds."""

__version__ = "0.1.0"

import os

# Polars reads it when it is imported: files of DuckDB with intervals are read, which it otherwise panics at.
os.environ.setdefault("POLARS_IMPORT_INTERVAL_AS_STRUCT", "1")
