"""`ctr synth`: makes a synthetic catalogue and an untrained model of that size."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.feature_store import with_redis_url
from app.commands.options import widths
from app.commands.output import AsJson, ConsoleReporter, console, emit, notify

if TYPE_CHECKING:
    from app.features.fields import Side
    from app.features.loading.synthetic import SyntheticCatalogue
    from app.settings import Settings

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
    as_json: AsJson = False,
) -> None:
    """Make a synthetic catalogue and an untrained DeepFM of that size, for benchmarks and load tests.

    Features go to CTR_REDIS_URL, or to the embedded Valkey where that is empty.

    Example: ctr synth --items 100000 --publish --load
    """
    began = time.perf_counter()
    hidden_widths = widths(hidden, example="256,128,64")

    from app.features.loading.synthetic import SyntheticCatalogue
    from app.settings import load_settings

    settings = load_settings(model=name)
    catalogue = SyntheticCatalogue(users, items, user_fields, item_fields, cardinality, seed)
    document: dict[str, Any] = {
        "model": settings.model,
        **_write(settings, catalogue, dim, hidden_widths, publish),
        "users": users,
        "items": items,
        "keys": cardinality * (user_fields + item_fields),
        "seed": seed,
    }
    notify(f"{'Published as stable' if publish else 'Written to'} {document['version_dir']}")
    if load:
        seconds = _load(settings, catalogue)
        notify(f"Loaded {users:,} users and {items:,} items in {seconds:.1f} s")
        document["load_seconds"] = round(seconds, 3)
    document["seconds"] = round(time.perf_counter() - began, 3)
    if as_json:
        emit(document)


def _write(
    settings: Settings, catalogue: SyntheticCatalogue, dim: int, hidden: tuple[int, ...], publish: bool
) -> dict[str, Any]:
    """Write the model as a version; return its folder, and its number (0 if it is not published)."""
    from app.publishing.synthetic_model import publish_untrained, write_untrained
    from app.registry.store.model_store import ModelStore

    reporter = ConsoleReporter()
    if publish:
        store = ModelStore.from_settings(settings)
        version = publish_untrained(store, catalogue, dim, hidden, reporter)
        return {"version_dir": str(store.path(version)), "version": version}
    RUNS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="synthetic-", dir=RUNS))
    write_untrained(folder, catalogue, dim, hidden, settings.model, reporter)
    return {"version_dir": str(folder), "version": 0}


def _load(settings: Settings, catalogue: SyntheticCatalogue) -> float:
    """Write the features of both sides to the feature store; return the seconds it took."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from app.features.key_template import KeyTemplate
    from app.features.loading.synthetic import load_features
    from app.features.redis_client import open_client

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(with_redis_url(settings)).redis_url
        client = stack.enter_context(open_client(url))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        progress = stack.enter_context(Progress(*columns, console=console))
        began = time.perf_counter()
        templates: dict[Side, str] = {"user": settings.user_key, "item": settings.item_key}
        for side, template in templates.items():
            task = progress.add_task(f"loading {side}s", total=catalogue.count(side))

            def advance(count: int, task: Any = task) -> None:
                progress.advance(task, count)

            load_features(client, KeyTemplate(template), catalogue, side, advance)
        return time.perf_counter() - began
