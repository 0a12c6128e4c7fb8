"""`ctr rank`: sends one request from the shell."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from app.commands.completion import labels_and_versions
from app.commands.output import emit, notify, show_table
from app.commands.service_options import UNAUTHORIZED, ApiKey, address_and_key, key_advice
from app.errors import ConfigError, CtrError

if TYPE_CHECKING:
    from rich.table import Table

TIMEOUT_S = 10.0
SHOWN = 4
"""Fields and parts shown for an item that is explained, the strongest."""


def rank(
    user: Annotated[str, typer.Argument(help="User id.")],
    items: Annotated[list[str], typer.Argument(help="Candidate item ids.")],
    url: Annotated[str | None, typer.Option(help="The service.", show_default="that of CTR_HOST and CTR_PORT")] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(help="A field of the request as hour=21, repeatable, or all as JSON: '{\"hour\": 21}'."),
    ] = None,
    explain: Annotated[
        bool, typer.Option(help="Say why the first items got their scores: the parts of their logits, and the fields.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="A label or a version number.", autocompletion=labels_and_versions)
    ] = None,
    api_key: ApiKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="The service's answer on standard output.")] = False,
) -> None:
    """Rank items for a user on a running service.

    Example: ctr rank 42 50 181 172 --context hour=21 --explain
    """
    import httpx

    url, api_key = address_and_key(url, api_key)
    body: dict[str, Any] = {"user_id": user, "item_ids": items, "explain": explain}
    if context:
        body["context"] = read_context(context)
    if model is not None:
        body["model"] = model
    headers = {"X-API-Key": api_key} if api_key else {}
    try:
        response = httpx.post(f"{url.rstrip('/')}/rank", json=body, headers=headers, timeout=TIMEOUT_S)
        answer = response.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CtrError(f"{url} does not answer ({error}); start it with `ctr serve`") from error
    except ValueError as error:
        raise CtrError(f"{url} answered something that is not JSON: is it this service?") from error
    if response.status_code == UNAUTHORIZED:
        raise CtrError(f"{answer.get('title', response.reason_phrase)} by {url}; {key_advice(api_key)}")
    if response.status_code != 200:
        raise CtrError(f"{answer.get('title', response.reason_phrase)}: {answer.get('detail', '')}")
    if as_json:
        emit(answer)
        return
    _show(answer, user, timing_in_words(response.headers.get("server-timing", "")))


def timing_in_words(header: str) -> str:
    """Write a `Server-Timing` header for people: `0.4 ms in the service (decode 0.1, score 0.3)`."""
    stages = [(name, float(value)) for name, value in re.findall(r"([\w-]+);dur=([\d.]+)", header)]
    if not stages:
        return ""
    total = sum(milliseconds for _, milliseconds in stages)
    return f"{total:.1f} ms in the service ({', '.join(f'{name} {value:.1f}' for name, value in stages)})"


def read_context(given: list[str]) -> dict[str, Any]:
    """Read `--context`: `name=value` each, or one JSON object; a value that is JSON is what it says, else text.

    Raises ConfigError for anything else.
    """
    fields: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if text.lstrip().startswith("{"):
            try:
                fields |= msgspec.json.decode(text, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeError) as error:
                raise ConfigError(f"--context {text}: not a JSON object: {error}") from error
        elif equals and name.strip():
            try:
                fields[name.strip()] = msgspec.json.decode(value)
            except (msgspec.DecodeError, UnicodeError):
                fields[name.strip()] = value
        else:
            raise ConfigError(f"--context {text}: expected name=value, or a JSON object")
    return fields


def _show(answer: dict[str, Any], user: str, timing: str) -> None:
    from rich.table import Table

    explained = [item for item in answer["items"] if "explanation" in item]
    is_drawn = "exploration" in answer
    table = Table(
        "", "item", "probability", *(["propensity"] if is_drawn else []), *(["what fields change"] if explained else [])
    )
    for position, item in enumerate(answer["items"], 1):
        effects = item.get("explanation", {}).get("effects", [])[:SHOWN]
        unknown = " (unknown)" if item["item_id"] in answer["missing"]["items"] else ""
        cells = [str(position), item["item_id"] + unknown, f"{item['score']:.4f}"]
        if is_drawn:
            cells.append(f"{item['propensity']:.4f}" if "propensity" in item else "")
        reasons = ", ".join(f"{effect['field']} {effect['effect']:+.2f}" for effect in effects)
        table.add_row(*cells, *([reasons] if explained else []))
    show_table(table)
    notes = [f"{answer['model']} version {answer['version']}", timing]
    if explained:
        scale, offset = (explained[0]["explanation"]["calibration"][name] for name in ("scale", "offset"))
        notes.append(
            f"the probability is 1 / (1 + exp(-({scale:.3f} x logit {offset:+.3f}))), which is the calibration"
        )
    if split := [item for item in explained if "parts" in item["explanation"]]:
        if not sys.stdout.isatty():
            sys.stdout.write("\n")
        show_table(parts_table(split))
    elif explained:
        notes.append(explained[0]["explanation"]["no_parts"])
    if is_drawn:
        notes.append("drawn by {policy}:{parameter:g}".format(**answer["exploration"]))
    if answer["missing"]["user"]:
        notes.append("the store does not know this user" if user else "a guest: scored as a user who is missing")
    if ignored := answer.get("ignored"):
        notes.append(f"read by no field of version {answer['version']}: {', '.join(ignored)}")
    if answer["degraded"]:
        notes.append("degraded: " + ", ".join(answer["degraded"]))
    for note in filter(None, notes):
        notify(note)


def parts_table(items: list[dict[str, Any]]) -> Table:
    """Make a table of the parts of items' logits: their sums by kind, the logit, and the strongest parts of fields."""
    from rich.table import Table

    kinds = list(dict.fromkeys(part["part"] for item in items for part in item["explanation"]["parts"]))
    table = Table("item", *kinds, "= logit", "strongest")
    for item in items:
        explanation = item["explanation"]
        sums = dict.fromkeys(kinds, 0.0)
        for part in explanation["parts"]:
            sums[part["part"]] += part["value"]
        of_fields = sorted(
            (part for part in explanation["parts"] if part["fields"]), key=lambda part: -abs(part["value"])
        )
        strongest = [f"{' x '.join(part['fields'])} {part['value']:+.2f}" for part in of_fields[:SHOWN]]
        cells = [f"{value:+.3f}" for value in (*sums.values(), explanation["logit"])]
        table.add_row(item["item_id"], *cells, ", ".join(strongest))
    return table
