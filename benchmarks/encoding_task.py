"""`python -m benchmarks.encoding_task NAME FILE CACHE LIMIT_MB`: run a measurement of `benchmarks.encoding`.

Its process has imported nothing else; torch alone would be half of its memory.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import msgspec


def main(name: str, path: Path, cache: Path, limit_mb: int) -> None:
    """Read, or read and encode, and write rows, seconds and peak memory to standard output.

    Args:
        limit_mb: the limit on the data of this process; 0 for none.
    """
    if limit_mb:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_mb << 20, limit_mb << 20))
    if name == "pandas":
        import pandas as pd

        started = time.perf_counter()
        rows = len(pd.read_csv(path, sep="\t", header=None))
    else:
        from app.features.schema import load_schema
        from app.training.data.encoded_cache import encode_file
        from app.training.data.formats import criteo

        schema = load_schema(Path(criteo.__file__).with_suffix(".yaml"))
        started = time.perf_counter()
        rows = encode_file(criteo.criteo_source(path, schema), cache, max_bad=0.01).meta.rows
    seconds = time.perf_counter() - started
    sys.stdout.write(msgspec.json.encode({"rows": rows, "seconds": seconds, "peak_mb": _peak_mb()}).decode())


def _peak_mb() -> int:
    """Return the peak of this program; `ru_maxrss` would include that of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) >> 10


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
