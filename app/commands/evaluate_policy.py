"""`ctr evaluate-policy`: estimates what another order or version would have brought, from a log with exploration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.completion import published_models, versions
from app.commands.event_options import EventsOption, Since, Until, files_from, in_utc, named_log
from app.commands.options import interval_seconds
from app.commands.output import AsJson, console, emit, figures_table, notify, show_table, warn
from app.commands.store_options import load_version
from app.errors import ConfigError

if TYPE_CHECKING:
    from app.events.evaluation.estimates import Estimate
    from app.events.evaluation.evaluate import Evaluation
    from app.events.evaluation.recorded_answers import LabelledAnswers, Period

FEW = 100
"""Effective answers below which intervals are too narrow."""
FAR_FROM_ONE = 0.1
"""By how much the mean weight may be off 1, where chance does not explain it."""


def evaluate_policy(
    data: Annotated[Path | None, typer.Option(help="Folder that `ctr join` wrote.", show_default="the log")] = None,
    events: EventsOption = None,
    policy: Annotated[
        str, typer.Option(help="The order to evaluate: greedy (descending scores), softmax:0.1 or epsilon:0.05.")
    ] = "greedy",
    version: Annotated[
        int | None,
        typer.Option(
            min=1, help="The version whose scores it orders by.", show_default="as recorded", autocompletion=versions
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Of which model.", show_default="CTR_MODEL", autocompletion=published_models)
    ] = None,
    places: Annotated[int, typer.Option(min=1, max=100, help="How many places of an answer count.")] = 3,
    window: Annotated[
        str, typer.Option(help="Of a log: how long after an answer feedback counts, as 30m, 12h or 2d.")
    ] = "30m",
    label: Annotated[str, typer.Option(help="Of a log: type of feedback that counts as a click.")] = "click",
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the clicks that another order or another version would have brought in an answer's first places.

    That takes answers whose order was drawn (CTR_EXPLORE): their propensities say how much each tells about the order
    in question. Read are rows of `ctr join` (--data), or the event log. Estimates are SNIPS and IPS with intervals that
    hold the truth in 95 of 100 cases; effective answers are how many of the order itself would tell as much.

    Example: ctr evaluate-policy --data joined --version 8
    """
    from app.events.evaluation.evaluate import evaluate
    from app.events.evaluation.recorded_answers import Period
    from app.features.item_tables import STATE_DTYPES
    from app.ranking_policy import parse_policy
    from app.registry.store.model_store import ModelStore
    from app.settings import load_settings

    if data is not None and events is not None:
        raise ConfigError("--data and --events are two sources; give one of them")
    settings, chosen = load_settings(model=model), parse_policy(policy)
    artifact = None if version is None else load_version(ModelStore.from_settings(settings), version)
    period = Period(in_utc(since), in_utc(until))
    with (
        console.status("reading answers") as status,
        _answers(data, events, period, timedelta(seconds=interval_seconds(window, "--window")), label) as source,
    ):
        found = evaluate(
            source,
            chosen,
            places,
            artifact=artifact,
            dtype=STATE_DTYPES[settings.precision],
            report=lambda answers: status.update(f"{answers:,} answers"),
        )
    sums = found.sums
    estimates = {"logged": sums.logged(), "snips": sums.snips(), "ips": sums.ips(), "gain": sums.gain()}
    if as_json:
        emit(
            {
                "policy": str(chosen),
                "version": version,
                "places": places,
                "answers": sums.answers,
                "policies": dict(found.policies),
                **{name: _as_document(estimate) for name, estimate in estimates.items()},
                "effective_answers": sums.effective_answers,
                "mean_weights": sums.mean_weights,
                "complete": found.complete,
                "left_out": found.left_out,
                "other_schemas": found.other_schemas,
                "without_slots": found.without_slots,
            }
        )
    else:
        of_version = "" if version is None else f" by version {version}"
        _show(found, f"{chosen}{of_version}", estimates)
    _warn(found)


@contextlib.contextmanager
def _answers(
    data: Path | None, events: str | None, period: Period, window: timedelta, label: str
) -> Iterator[Iterator[LabelledAnswers]]:
    from app.events.delivery.open_log import open_log
    from app.events.evaluation.recorded_answers import joined_answers, logged_answers

    if data is not None:
        yield joined_answers(data, period)
        return
    with open_log(named_log(events), since=files_from(period.since)) as folder:
        yield logged_answers(folder, period, window=window, label=label)


def _as_document(estimate: Estimate) -> dict[str, float]:
    low, high = estimate.interval
    return {"value": estimate.value, "error": estimate.error, "low": low, "high": high}


def _show(found: Evaluation, policy: str, estimates: dict[str, Estimate]) -> None:
    sums = found.sums
    logged = ", ".join(name for name, _ in found.policies.most_common())
    effective = f"{min(sums.effective_answers):,.0f}"
    title = f"clicks in the first {sums.places} places of an answer" if sums.places > 1 else "clicks in the first place"
    table = figures_table(title, "", "clicks", "95 % interval", "effective answers")
    for name, words, count in (
        ("logged", f"as shown: {logged}", f"{sums.answers:,}"),
        ("snips", f"{policy}: SNIPS", effective),
        ("ips", f"{policy}: IPS", effective),
        ("gain", f"{policy} over what was shown", effective),
    ):
        low, high = estimates[name].interval
        sign = "+" if name == "gain" else ""
        table.add_row(words, f"{estimates[name].value:{sign}.4f}", f"{low:{sign}.4f} to {high:{sign}.4f}", count)
    show_table(table)
    for number, words in (
        (found.left_out, "answers in descending order of scores are left out: they have no propensities"),
        (found.other_schemas, "answers by another schema are left out"),
        (found.without_slots, "answers are left out for items whose slots the log lacks"),
    ):
        if number:
            notify(f"{number:,} {words}")


def _warn(found: Evaluation) -> None:
    sums = found.sums
    if min(sums.effective_answers) < FEW:
        warn(
            f"the estimates rest on {min(sums.effective_answers):.0f} effective answers, and are less certain than "
            "they look: count fewer --places, record more answers, or explore more"
        )
    weight, effective = sums.mean_weights[-1], sums.effective_answers[-1]
    chance = 3.0 * weight * max(0.0, 1.0 / max(effective, 1e-9) - 1.0 / sums.answers) ** 0.5
    if abs(weight - 1.0) > FAR_FROM_ONE + chance and found.complete < sums.answers:
        warn(
            f"weights average {weight:.2f} and not 1: the order in question takes items that are not recorded; record "
            f"as many as there are candidates by CTR_EVENTS_TOP (all are recorded of {found.complete:,} answers)"
        )
