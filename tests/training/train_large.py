"""`python -m tests.training.train_large train ...`: `ctr` with limits under which every file is larger than memory."""

from __future__ import annotations

import functools

from app.cli import main
from app.training.data import catalogue
from app.training.data.encoding_limits import EncodingLimits

if __name__ == "__main__":
    limits = EncodingLimits(in_memory_bytes=0, block_bytes=20_000)
    catalogue.open_dataset = functools.partial(catalogue.open_dataset, limits=limits)
    main()
