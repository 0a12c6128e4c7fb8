"""`python -m tests.training.train_large train ...`: `ctr`, to which every file is larger than memory."""

from __future__ import annotations

from app.cli import main
from app.training.datasets import blocks, mapped

if __name__ == "__main__":
    mapped.IN_MEMORY_BYTES = 0
    blocks.blocks.__kwdefaults__["size"] = 20_000
    main()
