"""A publisher that is forked for each publication, so that 200 of them can be killed within a minute.

`python -m benchmarks.faults.publisher STORE NAME SOURCE` reads lines. `publish` forks a process that publishes a copy
of SOURCE, makes it stable and prunes, and is answered by its id; `wait` by its exit status, once it has ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

KEEP = "3"


def _publish(root: Path, name: str, source: Path) -> None:
    from app.publishing.publish import publish
    from app.registry.store.model_store import ModelStore
    from app.settings import Settings

    store = ModelStore(root, name)
    published = publish(store, source, Settings(keep_versions=int(KEEP)), live=False)
    store.promote(published.version)


def _main(root: Path, name: str, source: Path) -> None:
    import torch

    import app.publishing.publish  # noqa: F401  # before the fork, so that no publication has to import it

    torch.set_num_threads(1)
    child = 0
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "publish":
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    _publish(root, name, source)
                    code = 0
                finally:
                    os._exit(code)
            print(child, flush=True)
        else:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
