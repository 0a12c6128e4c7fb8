"""`ctr synth`: a synthetic catalogue and an untrained model of that size."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.output import console, emit
from app.errors import ConfigError

if TYPE_CHECKING:
    from app.features.fields import Side
    from app.settings import Settings
    from app.synthetic import Catalogue

RUNS = Path("runs")


def synth(
    users: Annotated[int, typer.Option(min=1, help="User ids are 0 to this less one.")] = 1000,
    items: Annotated[int, typer.Option(min=1, help="Item ids are 0 to this less one.")] = 20_000,
    user_fields: Annotated[int, typer.Option(min=1, help="Fields user_f0, user_f1 and so on.")] = 12,
    item_fields: Annotated[int, typer.Option(min=1, help="Fields item_f0, item_f1 and so on.")] = 20,
    cardinality: Annotated[int, typer.Option(min=1, help="Distinct values of each field.")] = 1000,
    dim: Annotated[int, typer.Option(min=1, max=4096, help="Embedding size.")] = 16,
    hidden: Annotated[str, typer.Option(help="Hidden layers.")] = "256,128,64",
    seed: Annotated[int, typer.Option(help="Same seed: same features and weights, on every machine.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name in the model store.", show_default="CTR_MODEL")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Put it in the model store and make it live.")] = False,
    load: Annotated[bool, typer.Option("--load", help="Write all features to Redis, over what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Make a synthetic catalogue and an untrained DeepFM of that size, for benchmarks and load tests.

    Features go to CTR_REDIS_URL, or to the embedded Valkey where that is empty.

    Example: ctr synth --items 100000 --publish --load
    """
    began = time.perf_counter()
    widths = _widths(hidden)

    from app.settings import load_settings
    from app.synthetic import Catalogue

    settings = load_settings(model=name)
    catalogue = Catalogue(users, items, user_fields, item_fields, cardinality, seed)
    document: dict[str, Any] = {
        "model": settings.model,
        **_write(settings, catalogue, dim, widths, publish),
        "users": users,
        "items": items,
        "keys": cardinality * (user_fields + item_fields),
        "seed": seed,
    }
    console.print(
        f"{'Published as stable' if publish else 'Written to'} {document['version_dir']}", markup=False, highlight=False
    )
    if load:
        seconds = _load(settings, catalogue)
        console.print(f"Loaded {users:,} users and {items:,} items in {seconds:.1f} s", highlight=False)
        document["load_seconds"] = round(seconds, 3)
    document["seconds"] = round(time.perf_counter() - began, 3)
    if as_json:
        emit(document)


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise ConfigError(f"--hidden {text}: expected widths such as 256,128,64") from None


def _write(
    settings: Settings, catalogue: Catalogue, dim: int, hidden: tuple[int, ...], publish: bool
) -> dict[str, Any]:
    """Write the model as a version; where it is, and its number (0 where it is not published)."""
    from app.registry.artifact.export import write
    from app.registry.store.model_store import ModelStore
    from app.synthetic import build_model

    with console.status("building the model"):
        model = build_model(catalogue, dim, hidden)
    details: dict[str, Any] = {
        "name": settings.model,
        "golden": catalogue.golden(),
        "config": {"synthetic": True, "dim": dim, "hidden": list(hidden), "seed": catalogue.seed},
    }
    if not publish:
        RUNS.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="synthetic-", dir=RUNS))
        write(folder, model, catalogue.schema, **details)
        return {"version_dir": str(folder), "version": 0}
    store = ModelStore.from_settings(settings)
    with store.staging() as staged, console.status("writing the version"):
        write(staged, model, catalogue.schema, **details)
        version = store.publish(staged)
    store.update_pointer(stable=version)
    return {"version_dir": str(store.path(version)), "version": version}


def _load(settings: Settings, catalogue: Catalogue) -> float:
    """Seconds it took."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from app.features.key_template import KeyTemplate
    from app.features.loading.embedded_valkey import EmbeddedValkey
    from app.features.loading.loader import open_client
    from app.synthetic import load_features

    with contextlib.ExitStack() as stack:
        url = settings.redis_url
        if not url:
            url = stack.enter_context(EmbeddedValkey(settings.data_dir / "valkey")).url
        client = stack.enter_context(open_client(url))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        progress = stack.enter_context(Progress(*columns, console=console))
        began = time.perf_counter()
        templates: dict[Side, str] = {"user": settings.user_key, "item": settings.item_key}
        for side, template in templates.items():
            task = progress.add_task(f"loading {side}s", total=catalogue.count(side))

            def written(more: int, task: Any = task) -> None:
                progress.advance(task, more)

            load_features(client, KeyTemplate(template), catalogue, side, written)
        return time.perf_counter() - began
