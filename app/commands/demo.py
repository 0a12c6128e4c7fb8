"""`ctr demo`: trains on real data, loads the features and serves /rank, on a machine that has nothing yet."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.commands.feature_store import with_redis_url
from app.commands.output import console
from app.commands.serve import APPLICATION
from app.errors import CtrError

if TYPE_CHECKING:
    from app.settings import Settings

DATASET = "movielens"
ENTITIES: tuple[Literal["users", "items"], ...] = ("users", "items")
RUN_CTR = "from app.cli import main; main()"
EXAMPLE = '{"user_id": "42", "item_ids": ["50", "181", "172", "258", "286"], "context": {"hour": 21}}'


def demo(
    retrain: Annotated[bool, typer.Option("--retrain", help="Train even where a model is live.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [CTR_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [CTR_PORT]")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes. [CTR_WORKERS]")] = None,
) -> None:
    """Train on MovieLens-100K, publish, load the features, serve until interrupted.

    What is there already is used again; --retrain publishes a new version.

    Example: ctr demo --port 9000
    """
    from app.commands.load import known_schema, load_file
    from app.registry.store.model_store import ModelStore
    from app.runtime.processes import serve
    from app.settings import load_settings

    settings = load_settings(host=host, port=port, workers=workers)
    exported = settings.data_dir / "features" / DATASET
    live = ModelStore(settings.model_store, settings.model).pointer().stable
    if retrain or live is None or not all((exported / f"{entity}.jsonl").is_file() for entity in ENTITIES):
        _step(1, f"Training {settings.model} on MovieLens-100K")
        _train(settings, exported)
    else:
        _step(1, f"{settings.model} version {live} is live already; RETRAIN=1 or --retrain trains another")
    store = "the Redis of CTR_REDIS_URL" if settings.redis_url else "an embedded Valkey"
    with with_redis_url(settings) as settings:
        _step(2, f"Loading the features into {store}")
        schema = known_schema(settings, None)
        for entity in ENTITIES:
            load_file(settings, entity, exported / f"{entity}.jsonl", schema=schema)
        _step(3, "Serving; Ctrl-C stops everything")
        serve(settings, APPLICATION, _print_invitation)


def _print_invitation(address: str) -> None:
    """Print what to try, once the service listens on the address."""
    address = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "127.0.0.1")
    console.print(f"\n  open  {address}/", highlight=False)
    curl = f"curl -s {address}/rank -H 'Content-Type: application/json' -d {shlex.quote(EXAMPLE)}"
    console.print(f"  try   {curl}\n", markup=False, highlight=False, soft_wrap=True)


def _train(settings: Settings, exported: Path) -> None:
    """Train in a process of its own, whose memory the service does not keep. Raises CtrError if it fails."""
    options = {"--dataset": DATASET, "--model": "deepfm", "--name": settings.model, "--export": str(exported)}
    options["--effort"] = "quick"  # who tries this out waits for it
    arguments = [word for pair in options.items() for word in pair]
    finished = subprocess.run([sys.executable, "-c", RUN_CTR, "train", *arguments, "--publish"], check=False)
    if finished.returncode:
        raise CtrError("training failed; its own message is above")


def _step(number: int, text: str) -> None:
    console.print(f"[bold]\\[{number}/3][/] {text}", highlight=False)
