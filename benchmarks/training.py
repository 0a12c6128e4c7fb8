"""`python -m benchmarks.training`: samples a second of training beside peers, and what many keys cost a step."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from app.commands.output import AsJson, emit
from benchmarks import machine
from benchmarks.figure import Figure
from benchmarks.report import FIGURE_COLUMNS, console, figure_rows, figure_table, markdown
from benchmarks.training_contenders import Contender, deepctr, epochs_of, ours, sklearn_mlp
from benchmarks.training_data import Columns, columns, many_keys

RESULTS = Path(__file__).parent / "results"
PEER_VERSION = "0.3.0"
ASKED = {256: 4.0, 4096: 3.0}
KEYS = (100_000, 10_000_000)
KEY_ROWS, KEY_FIELDS = 40_960, 26
cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@dataclass
class Speeds:
    """Samples a second by contender and round."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, contenders: dict[str, Contender], rounds: int) -> Speeds:
        """Measure in rounds that go from one contender to the next, so that a busy machine is busy for all."""
        for epoch in contenders.values():
            epoch()
        for _ in range(rounds):
            for name, epoch in contenders.items():
                began = time.perf_counter()
                count = epoch()
                self.rounds.setdefault(name, []).append(count / (time.perf_counter() - began))
        return self

    def median(self, name: str) -> float:
        """Return the median of a contender."""
        return statistics.median(self.rounds[name])

    def ratio(self, name: str, other: str) -> float:
        """Return the median of the rounds' ratios: within a round the machine was in the same state for both."""
        return statistics.median(a / b for a, b in zip(self.rounds[name], self.rounds[other], strict=True))


@cli.command()
def main(
    rounds: Annotated[int, typer.Option(min=1, help="Medians are of this many.")] = 5,
    threads: Annotated[str, typer.Option(help="Of torch, each measured; a contender's best counts.")] = "1,2",
    quick: Annotated[bool, typer.Option("--quick", help="One round of batch 256: a smoke run.")] = False,
    processes: Annotated[bool, typer.Option(help="Also 2 processes under torchrun over 1.")] = True,
    page: Annotated[bool, typer.Option(help="Write benchmarks/results/<date>-training.md.")] = True,
    as_json: AsJson = False,
) -> None:
    """Compare training with its peers, in one process and one run."""
    began, load = time.perf_counter(), os.getloadavg()[0]
    if quick:
        rounds, page, processes = 1, False, False
    counts = [1] if quick else [int(count) for count in threads.split(",")]
    data = columns()
    _notify(f"{data.source}: {len(data):,} rows, {len(data.categories)} categories, {len(data.numbers)} numbers")
    table: list[dict[str, Any]] = []
    figures: list[Figure] = []
    for batch in [256] if quick else list(ASKED):
        figures += _beside_peers(data, batch, counts, rounds, table)
    if not quick:
        torch.set_num_threads(1)
        figures += _many_keys(rounds)
    if processes:
        figures += _two_processes()
    facts = {
        **machine.describe(),
        "versions": {
            name: installed
            for name in ("torch", "numpy", "scikit-learn", "deepctr-torch")
            if (installed := _installed_version(name))
        },
        "load average before": round(load, 2),
        "load average after": round(os.getloadavg()[0], 2),
        "minutes": round((time.perf_counter() - began) / 60, 1),
    }
    console.print(figure_table(figures))
    if page:
        _notify(f"written to {_write(facts, data, table, figures, rounds)}")
    if as_json:
        emit({"machine": facts, "speeds": table, "figures": [asdict(f) | {"met": f.met} for f in figures]})


def _beside_peers(
    data: Columns, batch: int, threads: list[int], rounds: int, table: list[dict[str, Any]]
) -> list[Figure]:
    own_name, peer = "ours", "deepctr-torch"
    contenders = {
        own_name: ours(data, batch, regularised=False),
        "ours, regularised": ours(data, batch, regularised=True),
    }
    has_peer = _installed_version(peer) == PEER_VERSION
    if has_peer:
        contenders[peer] = deepctr(data, batch)
    contenders["scikit-learn MLP"] = sklearn_mlp(data, batch)
    speeds: dict[int, Speeds] = {}
    for count in threads:
        torch.set_num_threads(count)
        _notify(f"batch {batch}, {count} thread{'s' * (count > 1)}")
        speeds[count] = Speeds().measure(contenders, rounds)
    for name in contenders:
        medians = {f"{count} threads": round(speeds[count].median(name)) for count in threads}
        table.append({"batch": batch, "who": name, **medians})
    figures = []
    for name in (own_name, "ours, regularised"):
        figure = Figure(f"samples/s over {peer} {PEER_VERSION}, batch {batch}", "at least", ASKED[batch])
        if name != own_name:
            figure.what += ", ours with batch norm and dropout"
        if not has_peer:
            figure.note = f"{peer}=={PEER_VERSION} is not installed: make bench-train does it"
        else:
            # Each with the number of threads that suits it best.
            best = {who: max(threads, key=lambda count, who=who: speeds[count].median(who)) for who in (name, peer)}
            reached = {who: speeds[count].median(who) for who, count in best.items()}
            figure.reached = reached[name] / reached[peer]
            figure.note = f"{reached[name]:,.0f} with {best[name]} over {reached[peer]:,.0f} with {best[peer]} threads"
            same = [f"{speeds[count].ratio(name, peer):.2f}x at {count}" for count in threads]
            figure.note += f"; with as many threads each: {', '.join(same)}"
        figures.append(figure)
    return figures


def _many_keys(rounds: int) -> list[Figure]:
    figures = []
    for batch, tail, same in ((512, "long", True), (4096, "long", True), (512, "long", False), (512, "even", False)):
        _notify(f"{KEYS[1]:,} keys over {KEYS[0]:,}, batch {batch}, {tail} tail{', the same batches' * same}")
        contenders = {
            f"{keys:,}": epochs_of(
                *many_keys(keys, KEY_ROWS, KEY_FIELDS, tail=tail, drawn_of=KEYS[0] if same else None),
                batch,
                batch_norm=False,
                dropout=0.0,
            )
            for keys in KEYS
        }
        speeds = Speeds().measure(contenders, rounds)
        few, many = contenders
        step = {name: 1000 * batch / speeds.median(name) for name in contenders}
        what = f"step time, {many} over {few} keys, batch {batch}"
        if same:
            what += ", the same batches"
        elif tail == "even":
            what += ", other batches, every key as likely"
        else:
            what += ", other batches: more distinct keys"
        figures.append(
            Figure(
                what, "at most", 1.3, reached=speeds.ratio(few, many), note=f"{step[many]:.2f} over {step[few]:.2f} ms"
            )
        )
    return figures


def _two_processes() -> list[Figure]:
    _notify("2 processes under torchrun over 1")
    command = [sys.executable, "-m", "benchmarks.training_processes", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return [Figure("samples/s, 2 processes over 1", "at least", 1.5, note=f"failed: {reason}")]
    return [Figure(**{k: v for k, v in figure.items() if k != "met"}) for figure in json.loads(done.stdout)]


def _write(
    facts: dict[str, Any], data: Columns, table: list[dict[str, Any]], figures: list[Figure], rounds: int
) -> Path:
    day = datetime.now(UTC).date().isoformat()
    versions = ", ".join(f"{name} {installed}" for name, installed in facts["versions"].items())
    heads = list(table[0])
    lines = [
        f"# Training, {day}, commit {facts['commit']}",
        "",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}. Python {facts['python']}, {versions}. "
        f"Load average {facts['load average before']} before, {facts['load average after']} after; "
        f"{facts['minutes']} minutes.",
        "",
        f"Data: {data.source}: {len(data):,} rows, {len(data.categories)} categorical and {len(data.numbers)} "
        "numeric columns, the same for all. DeepFM, embedding 10, hidden 128-128. *ours* has the peer's network (no "
        "batch norm, no dropout) and still averages its weights, decays its whole table and crosses the numbers; "
        "*regularised* adds batch norm and dropout, as by default. Reading and encoding are not timed. An epoch each "
        f"in turn, {rounds} rounds, medians of samples a second.",
        "",
        markdown(heads, [[f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()] for row in table]),
        "",
        markdown(FIGURE_COLUMNS, figure_rows(figures)),
        "",
        f"Keys: {KEY_FIELDS} categorical fields, {KEY_ROWS:,} rows, one thread. The r-th most frequent key of a field "
        "is drawn with a chance as 1 / r, unless said; frequent rows are spread over the table.",
    ]
    path = RESULTS / f"{day}-training.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _notify(text: str) -> None:
    console.print(text, markup=False, highlight=False)


if __name__ == "__main__":
    cli()
