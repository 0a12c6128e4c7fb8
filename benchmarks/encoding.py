"""`python -m benchmarks.encoding`: compare reading and encoding a file with pandas.read_csv, and limit its memory.

The file has the shape of Criteo's: 40 tab-separated columns, the number of distinct values that each of Criteo's 26
categories has in 45.8 million rows, drawn with a long tail, and missing cells. It is generated, so that nothing has to
be downloaded, and the same seed gives the same file.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

from app.commands.output import AsJson
from benchmarks import machine

CARDINALITIES = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652,
    2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip
"""C1 to C26 have so many distinct values in the Kaggle set."""
MISSING_NUMBERS = (0.45, 0.0, 0.21, 0.22, 0.03, 0.22, 0.04, 0.0, 0.04, 0.45, 0.04, 0.77, 0.22)
MISSING_CATEGORIES = {2: 0.03, 3: 0.03, 5: 0.12, 11: 0.03, 15: 0.03, 18: 0.44, 19: 0.44, 20: 0.03, 21: 0.76, 23: 0.03}
PIECE_ROWS = 100_000
MIN_RATIO = 0.5
"""The project's target: rows a second over those of pandas."""
LIMIT_MB = 400
"""Polars, its threads and its allocator reserve some 140 of it before the first row is read."""
RESULTS = Path(__file__).parent / "results"
TIMES_LARGER = 4

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def generate(path: Path, rows: int, seed: int = 0) -> int:
    """Write a Criteo-shaped TSV of so many rows and return their number."""
    rng = np.random.default_rng(seed)
    written = 0
    with path.open("wb") as file:
        while written < rows:
            count = min(PIECE_ROWS, rows - written)
            file.write(_piece(rng, count))
            written += count
    return written


def generate_repeated(path: Path, size: int, pieces: int = 4, seed: int = 1) -> int:
    """Write at least so many bytes of rows, the same pieces again and again, and return the number of rows."""
    rng = np.random.default_rng(seed)
    texts = [_piece(rng, PIECE_ROWS) for _ in range(pieces)]
    written = 0
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(texts[written // PIECE_ROWS % pieces])
            written += PIECE_ROWS
    return written


def _piece(rng: np.random.Generator, rows: int) -> bytes:
    import polars as pl

    columns = {"label": pl.Series((rng.random(rows) < 0.256).astype(np.int8))}
    for index, missing in enumerate(MISSING_NUMBERS):
        numbers = np.floor(rng.lognormal(1.5 + 0.4 * (index % 7), 1.7, rows)).astype(np.int64) - (
            2 if index == 1 else 0
        )
        columns[f"I{index + 1}"] = _with_missing(rng, pl.Series(numbers), missing)
    for index, cardinality in enumerate(CARDINALITIES):
        rank = np.floor(cardinality ** rng.random(rows)).astype(np.uint32)
        names = (rank * np.uint32(2654435761) + np.uint32(index * 97)).astype(">u4")
        text = np.frombuffer(names.tobytes().hex().encode(), "S8")
        columns[f"C{index + 1}"] = _with_missing(
            rng, pl.Series(text.astype("U8").tolist()), MISSING_CATEGORIES.get(index, 0.0)
        )
    return pl.DataFrame(columns).write_csv(separator="\t", include_header=False).encode()


def _with_missing(rng: np.random.Generator, column: Any, share: float) -> Any:
    import polars as pl

    if not share:
        return column
    is_missing = pl.Series(rng.random(len(column)) < share)
    return pl.select(pl.when(~is_missing).then(column)).to_series()


@cli.command()
def main(
    rows: Annotated[int, typer.Option(min=1000, help="Of the file that is timed.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Medians are of this many, interleaved.")] = 3,
    limit_mb: Annotated[int, typer.Option(min=64, help="On the data of the process in the memory part.")] = LIMIT_MB,
    memory: Annotated[bool, typer.Option(help="Also encode a file 4 times larger than the limit.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Where the files are generated; removed afterwards.")] = None,
    page: Annotated[bool, typer.Option(help="Write benchmarks/results/<date>-encoding.md.")] = True,
    as_json: AsJson = False,
) -> None:
    """Time reading and encoding; then encode a file larger than memory within a limit."""
    results: dict[str, Any] = {"machine": machine.describe(), "load_average": os.getloadavg()}
    with tempfile.TemporaryDirectory(prefix="ctr-encoding-", dir=folder) as scratch:
        results["speed"] = _speed(Path(scratch), rows, rounds)
        if memory:
            results["memory"] = _memory(Path(scratch), limit_mb)
    text = _page(results, rounds)
    if page:
        path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-encoding.md"
        path.write_text(text)
        print(f"written to {path}", file=sys.stderr)
    if as_json:
        sys.stdout.write(msgspec.json.encode(results).decode() + "\n")
    else:
        print(text)


def _page(results: dict[str, Any], rounds: int) -> str:
    speed, facts = results["speed"], results["machine"]
    lines = [
        f"# Reading and encoding, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python -m benchmarks.encoding`, commit {facts['commit']}; {facts['cores']} cores of {facts['cpu']};",
        f"load average {results['load_average'][0]:.1f} at the start. A Criteo-shaped file: {speed['rows']:,} rows,",
        f"{speed['megabytes']} MB; medians of {rounds} interleaved rounds, each in a process of its own, imports not",
        "counted. Ours includes writing the encoded form and syncing it to disk.",
        "",
        "| | rows/s | over pandas | |",
        "|---|---|---|---|",
    ]
    titles = {
        "pandas": "pandas.read_csv alone",
        "ours": "read, encode, write",
        "ours_one_thread": "the same with POLARS_MAX_THREADS=1",
        "ours_again": "opened again",
    }
    for name, title in titles.items():
        if name in speed:
            ratio = f"{speed[name] / speed['pandas']:.2f}" if "pandas" in speed else "not measured"
            verdict = (
                f"{_verdict(speed['ratio'] >= MIN_RATIO)}: at least {MIN_RATIO}"
                if name == "ours" and "ratio" in speed
                else ""
            )
            lines.append(f"| {title} | {speed[name]:,.0f} | {ratio} | {verdict} |")
    if "memory" in results:
        memory = results["memory"]
        lines += [
            "",
            f"Memory: a file of {memory['file_mb']:,} MB, {TIMES_LARGER} times the limit of {memory['limit_mb']} MB on",
            f"the data of the process (RLIMIT_DATA): {memory['rows']:,} rows encoded, at most {memory['peak_mb']} MB",
            f"resident ({_verdict(memory['within'])}: within the limit). The process holds what encoding needs, and",
            "no torch, which `ctr train` has beside it.",
        ]
    return "\n".join(lines) + "\n"


def _verdict(met: bool) -> str:
    return "held" if met else "**missed**"


def _speed(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    path = folder / "day_0.tsv"
    generate(path, rows)
    peers = {"pandas": "pandas", "ours": "encode", "ours_one_thread": "encode"}
    if subprocess.run([sys.executable, "-c", "import pandas"], capture_output=True, check=False).returncode:
        del peers["pandas"]
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(rounds):
        for name, task in peers.items():
            cache = folder / f"{name}{number}"
            seconds[name].append(_task(task, path, cache, one_thread=name.endswith("one_thread"))["seconds"])
            if number or name != "ours":
                shutil.rmtree(cache, ignore_errors=True)
    again = _task("encode", path, folder / "ours0")["seconds"]
    rates = {name: rows / statistics.median(taken) for name, taken in seconds.items()}
    ratio = {"ratio": rates["ours"] / rates["pandas"]} if "pandas" in rates else {}
    return {"rows": rows, "megabytes": path.stat().st_size >> 20, **rates, "ours_again": rows / again, **ratio}


def _memory(folder: Path, limit_mb: int) -> dict[str, Any]:
    path = folder / "large.tsv"
    rows = generate_repeated(path, TIMES_LARGER * limit_mb << 20)
    done = _task("encode", path, folder / "large", limit_mb)
    return {
        "file_mb": path.stat().st_size >> 20,
        "limit_mb": limit_mb,
        "peak_mb": done["peak_mb"],
        "rows": done["rows"],
        "rows_per_second": rows / done["seconds"],
        "within": done["rows"] == rows and done["peak_mb"] <= limit_mb,
    }


def _task(name: str, path: Path, cache: Path, limit_mb: int = 0, *, one_thread: bool = False) -> dict[str, Any]:
    """Measure once in a process of its own, imports not counted; `one_thread` limits polars to one thread."""
    environment = os.environ | ({"POLARS_MAX_THREADS": "1"} if one_thread else {})
    command = [sys.executable, "-m", "benchmarks.encoding_task", name, str(path), str(cache), str(limit_mb)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode:
        raise SystemExit(f"error: {name} failed: {ran.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = msgspec.json.decode(ran.stdout)
    return answer


if __name__ == "__main__":
    cli()
