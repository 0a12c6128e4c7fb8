"""`ctr promote`: gives a published version a label."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.completion import versions
from app.commands.output import AsJson, ConsoleReporter, emit, notify
from app.commands.store_options import Force, LabelName, Model, Store, open_store
from app.errors import ConfigError

CANARY_SHARE = 0.05


def promote(
    version: Annotated[int, typer.Argument(help="A number that `ctr models` lists.", autocompletion=versions)],
    label: Annotated[LabelName, typer.Option("--as", help="Which traffic it gets.")] = LabelName.stable,
    share: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Share of users a canary answers.", show_default=f"{CANARY_SHARE:g}"),
    ] = None,
    force: Force = False,
    model: Model = None,
    model_store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Point a label at a published version, once it has passed the gate. One that was refused needs --force.

    Example: ctr promote 8 --as canary --share 0.05
    """
    from app.publishing.promote import promote as promote_version

    is_canary = label is LabelName.canary
    if share is not None and not is_canary:
        other = (
            "stable answers everybody" if label is LabelName.stable else "a shadow has CTR_SHADOW_SHARE of the requests"
        )
        raise ConfigError(f"--share is of a canary (--as canary), and {other}")
    share = CANARY_SHARE if share is None else share
    settings, store = open_store(model, model_store)
    promotion = promote_version(
        store, version, settings, ConsoleReporter(), label=label.value, share=share, forced=force
    )
    with_share = f" for {share * 100:g} % of users" if is_canary else ""
    notify(f"{store.name} {version} is {label.value}{with_share}")
    if as_json:
        emit(promotion)
