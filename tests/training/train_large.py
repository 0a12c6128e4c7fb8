"""`python -m tests.training.train_large train ...`: `ctr`, to which every file is larger than memory."""

from __future__ import annotations

from app.cli import main
from app.training.data import mapped_dataset as mapped
from app.training.data.readers import line_blocks as blocks

if __name__ == "__main__":
    mapped.IN_MEMORY_BYTES = 0
    blocks.blocks.__kwdefaults__["size"] = 20_000
    main()
