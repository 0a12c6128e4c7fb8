"""`NewProject`: a folder to begin with, a commented features.yaml and the commands from a table to a ranked answer."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from app.errors import ConfigError, EncodingError
from app.features.loading.record_file import RecordFile
from app.features.loading.stored_text import stored_id, stored_text
from app.features.schema import parse_schema
from app.training.data.schema_proposal import propose_schema
from app.training.schema_template import DATA, EXAMPLE_CONTEXT, EXAMPLE_IDS, LABEL, TEMPLATE, TIMESTAMP

FEATURES, SETTINGS, COMMANDS = "features.yaml", ".env", "README.md"
EXAMPLE_ROWS = 100
"""Rows in which a user, items and values of the request are looked for."""
MAX_CONTEXT = 3


class Command(NamedTuple):
    """One of the commands, and what it is for."""

    words: tuple[str, ...]
    purpose: str

    @property
    def line(self) -> str:
        """The command as a shell reads it."""
        return shlex.join(self.words)


@dataclass(frozen=True)
class NewProject:
    """The content of a folder that is not written yet."""

    name: str
    features: str
    commands: tuple[Command, ...]
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> list[Path]:
        """Write the files, and return them. Raises ConfigError if one is there already, or cannot be written."""
        lines = "\n".join(f"{command.line}    # {command.purpose}" for command in self.commands)
        texts = {
            FEATURES: self.features,
            SETTINGS: "# Which model the commands in this folder mean; any other setting can stand here too.\n"
            f"CTR_MODEL={self.name}\n",
            COMMANDS: f"# {self.name}\n\nIn this folder, one after the other; `ctr serve` in a shell of its own:\n\n"
            f"```sh\n{lines}\n```\n",
        }
        there = [name for name in texts if (folder / name).exists()]
        if there:
            raise ConfigError(f"{folder} has {', '.join(there)} already, which is kept: name another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                with (folder / name).open("x", encoding="utf-8") as file:
                    file.write(text)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
        return [folder / name for name in texts]


def model_name(folder: Path) -> str:
    """Return the name that a model in this folder gets: that of the folder, in letters that a model's may have."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.")[:64]
    return name if re.match(r"[A-Za-z0-9]", name) else "model"


def example_project(name: str) -> NewProject:
    """Return a project of the example's columns, which a user replaces."""
    user, items = EXAMPLE_IDS
    commands = _commands(name, DATA, ["--label", LABEL], TIMESTAMP, user, items, EXAMPLE_CONTEXT)
    return NewProject(name, TEMPLATE, commands)


def proposed_project(
    name: str,
    folder: Path,
    data: Path,
    *,
    label: str | None = None,
    positive: str | None = None,
    user_id: str | None = None,
    item_id: str | None = None,
    escape: str | None = None,
) -> NewProject:
    """Return a project for a file, with the schema that is proposed for it.

    Raises:
        ConfigError, DataError: as for `propose_schema`.
    """
    proposal = propose_schema(data, label=label, positive=positive, user_id=user_id, item_id=item_id, escape=escape)
    reading = ["--label", proposal.label]
    reading += ["--positive", positive] if positive is not None else []
    reading += ["--escape", escape] if escape is not None else []
    # The folder may be a link, and the file is looked for from within it.
    path = os.path.relpath(data.resolve(), folder.resolve())
    features = proposal.text.replace(f"--data {data} ", f"--data {path} ")
    user, items, context = _examples(data, features, escape)
    commands = _commands(name, path, reading, proposal.timestamp, user, items, context)
    return NewProject(name, features, commands, proposal.notes)


def _commands(
    name: str,
    data: str,
    reading: Sequence[str],
    timestamp: str | None,
    user: str,
    items: Sequence[str],
    context: dict[str, str],
) -> tuple[Command, ...]:
    timed = [*reading, *(["--timestamp", timestamp] if timestamp else [])]
    train = ["ctr", "train", "--dataset", "table", "--data", data, "--features", FEATURES, *timed, "--effort", "quick"]
    given = [word for field, value in context.items() for word in ("--context", f"{field}={value}")]
    again = (
        ["ctr", "retrain", "--data", data, *timed],
        "later, with newer rows in the file: the scheduled job, which publishes nothing that is worse",
    )
    score = ["ctr", "score", "--data", data, "--out", "scores.csv"], "every row scored as requests are"
    lines = (
        ([*train, "--name", name, "--publish", "--load"], "a version, live; users and items in the store"),
        (["ctr", "check", "--data", data], "does it all match?"),
        (["ctr", "serve"], "in a shell of its own"),
        (["ctr", "rank", user, *items, *given, "--explain"], "a ranked answer, and why"),
        again if timestamp else score,
    )
    return tuple(Command(tuple(words), purpose) for words, purpose in lines)


def _examples(data: Path, features: str, escape: str | None) -> tuple[str, list[str], dict[str, str]]:
    """Return a user, up to three items, and values of the request, of the first rows of a file."""
    schema = parse_schema(features)
    ids: dict[str, dict[str, None]] = {"user": {}, "item": {}}
    context: dict[str, str] = {}
    of_request = list(dict.fromkeys(one.raw_name for one in schema.fields if one.entity == "context"))[:MAX_CONTEXT]
    for record in itertools.islice(RecordFile(data, escape=escape), EXAMPLE_ROWS):
        for side, found in ids.items():
            field = schema.layout("item" if side == "item" else "user").id_field
            if field is not None and record.values.get(field.raw_name) not in (None, ""):
                try:
                    found[stored_id(record.values[field.raw_name], field.raw_name)] = None
                except EncodingError:
                    continue
        for name in of_request:
            try:
                text = stored_text(record.values.get(name), name)
            except EncodingError:
                continue
            if text is not None:
                context.setdefault(name, text)
    return next(iter(ids["user"]), ""), list(ids["item"])[:3] or ["1", "2", "3"], context
