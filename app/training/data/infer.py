"""`features.yaml` proposed from a file: names first, then what the values do; every line says why it is so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from app.errors import ConfigError, DataError
from app.features.fields import Entity
from app.features.schema import parse_schema
from app.training.data.column_profile import Profile, shared
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.table_chunks import stacked, table_chunks
from app.training.data.source import LABELS

ROWS = 100_000
LABEL_NAMES = ("label", "click", "clicked", "is_click", "is_clicked", "target", "y", "converted", "conversion", "liked")
TIME_WORDS = {"time", "timestamp", "ts", "date", "datetime", "day", "created", "at", "epoch"}
USER_WORDS = {"user", "u", "uid", "visitor", "customer", "member", "device", "session", "client", "person", "viewer"}
ITEM_WORDS = {
    "item", "i", "iid", "movie", "film", "product", "ad", "ads", "article", "video", "creative", "campaign", "song",
    "track", "book", "news", "doc", "document", "sku", "listing", "hotel", "offer", "banner",
}  # fmt: skip
CODE_WORDS = {
    "id", "code", "zip", "type", "category", "cat", "class", "kind", "group", "segment", "brand", "genre", "country",
    "city", "region", "hour", "weekday", "month", "gender", "os", "browser",
}  # fmt: skip
FOLLOWS = 0.98
"""Share of rows that have their id's usual value, from which a column is a trait of that id."""
FEW_NUMBERS = 12
MAX_LIST = 32
OVERLAP = 0.5
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


@dataclass
class Guess:
    """One field of the proposal."""

    profile: Profile
    entity: Entity
    why: str
    kind: str
    because: str
    options: dict[str, object] = field(default_factory=dict)

    def line(self) -> str:
        pairs = {"name": self.profile.name, "entity": self.entity, "type": self.kind, **self.options}
        missing = f"; {self.profile.missing:.0%} missing" if self.profile.missing >= 0.005 else ""
        inner = ", ".join(f"{key}: {_yaml(value)}" for key, value in pairs.items())
        return f"  # {self.entity}: {self.why}; {self.because}{missing}\n  - {{{inner}}}"


@dataclass(frozen=True)
class Proposal:
    text: str
    """YAML with comments; parses as a schema."""
    label: str
    timestamp: str | None
    left_out: dict[str, str]
    """Columns that are no features, and why."""


def infer(
    path: Path, *, label: str | None = None, user_id: str | None = None, item_id: str | None = None, rows: int = ROWS
) -> Proposal:
    """A proposal from the first `rows` rows of a table with names.

    Raises:
        ConfigError: a named column is not there, none looks like a label, or none can be a feature.
        DataError: the file cannot be read.
    """
    profiles = {series.name: Profile(series) for series in _head(path, rows)}
    for name in (label, user_id, item_id):
        if name and name not in profiles:
            raise ConfigError(f"{path}: no column {name}; it has {', '.join(list(profiles)[:40])}")
    label = label or _label(path, profiles)
    labels = _labels(profiles[label])
    left_out: dict[str, str] = {label: "the label"}
    timestamp = next((name for name, profile in profiles.items() if name not in left_out and _is_time(profile)), None)
    if timestamp:
        left_out[timestamp] = "the time; `ctr train --timestamp` splits by it"
    for name, profile in profiles.items():
        reason = "" if name in left_out else _useless(profile, labels, name in (user_id, item_id))
        if reason:
            left_out[name] = reason
    usable = {name: profile for name, profile in profiles.items() if name not in left_out}
    user_id = user_id or _id(usable, USER_WORDS)
    item_id = item_id or _id({name: profile for name, profile in usable.items() if name != user_id}, ITEM_WORDS)
    ids: dict[Entity, str] = {}
    if user_id:
        ids["user"] = user_id
    if item_id:
        ids["item"] = item_id
    guesses = [_guess(profile, usable, ids) for profile in usable.values()]
    if not guesses:
        raise ConfigError(f"{path}: no column can be a feature: {'; '.join(f'{n}: {r}' for n, r in left_out.items())}")
    _share_spaces(guesses, ids)
    text = _text(path, guesses, label, timestamp, left_out, len(labels))
    parse_schema(text, origin=f"the proposal for {path.name}")
    return Proposal(text, label, timestamp, left_out)


def _head(path: Path, rows: int) -> Iterable[pl.Series]:
    frames: list[pl.DataFrame] = []
    for chunk in table_chunks(path)(BadRows(str(path), 1.0)):
        frames.append(chunk.frame)
        if sum(len(frame) for frame in frames) >= rows:
            break
    whole = stacked(frames)[:rows]
    if whole.is_empty():
        raise DataError(f"{path}: has no rows")
    for series in whole:
        if series.dtype == pl.String:
            yield series.replace("", None)
        else:
            yield series.fill_nan(None) if series.dtype.is_float() else series


def _label(path: Path, profiles: dict[str, Profile]) -> str:
    binary = [
        name for name, profile in profiles.items() if _labels(profile).null_count() == 0 and profile.distinct == 2
    ]
    named = [name for name in binary if name.lower() in LABEL_NAMES]
    if named or len(binary) == 1:
        return (named or binary)[0]
    raise ConfigError(
        f"{path}: {'several columns are' if binary else 'no column is'} 0 or 1 throughout"
        f"{' (' + ', '.join(binary) + ')' if binary else ''}: name the label with --label"
    )


def _labels(profile: Profile) -> pl.Series:
    if isinstance(profile.series.dtype, pl.List):
        return pl.Series([None], dtype=pl.Float64)
    text = profile.series.cast(pl.String, strict=False).str.strip_chars().str.to_lowercase()
    return text.replace_strict(LABELS, default=None, return_dtype=pl.Float64)


def _words(name: str) -> list[str]:
    """`userRatedMovie12` and `user_rated_movie_12` are user, rated, movie."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _is_time(profile: Profile) -> bool:
    if not TIME_WORDS & set(_words(profile.name)) or profile.numbers is None or profile.missing > 0.01:
        return False
    return float(profile.numbers.max()) > 1e8 and float(profile.numbers.min()) > 0  # type: ignore[arg-type]


def _useless(profile: Profile, labels: pl.Series, is_id: bool) -> str:
    if not NAME.fullmatch(profile.name):
        return "its name cannot be a field's: letters, digits, _, - and . only; rename the column"
    if profile.missing == 1.0:
        return "always missing"
    if isinstance(profile.series.dtype, pl.Struct | pl.Date | pl.Datetime | pl.Time | pl.Duration):
        return f"{profile.series.dtype} is no kind of field; write it as numbers or text"
    listed = isinstance(profile.series.dtype, pl.List)
    if not listed and profile.distinct == 1 and profile.missing == 0:
        return f"always {profile.known[0]}"
    if (
        not listed
        and not is_id
        and profile.distinct == len(profile.series) > 20
        and (profile.numbers is None or profile.whole)
    ):
        return "another value in every row: it tells rows apart, not users or items"
    if not listed and profile.answers(labels):
        return "tells the label: it would not be known when a request is made"
    return ""


def _id(profiles: dict[str, Profile], words: set[str]) -> str | None:
    """The column that names the entity: `user_id`, `uid`, `user`; of several the most varied one."""

    def names(profile: Profile) -> bool:
        parts = _words(profile.name)
        if not parts or parts[0] not in words or isinstance(profile.series.dtype, pl.List):
            return False
        return parts[1:] == ["id"] or (len(parts) == 1 and len(parts[0]) > 1)

    found = [profile for profile in profiles.values() if names(profile) and (profile.numbers is None or profile.whole)]
    return max(found, key=lambda profile: profile.distinct).name if found else None


def _guess(profile: Profile, usable: dict[str, Profile], ids: dict[Entity, str]) -> Guess:
    for entity, name in ids.items():
        if profile.name == name:
            return Guess(
                profile, entity, "its id by its name", "categorical", f"{profile.distinct:,} values", {"id": True}
            )
    entity, why = _entity(profile, usable, ids)
    kind, because, options = _kind(profile)
    if kind == "numeric" and profile.whole:
        for name in ids.values():
            # `userRatedMovie1` ends in what `movieId` names, and holds its values: not a quantity.
            if _words(profile.name)[-1:] == _words(name)[:1] and shared(profile, usable[name]) >= OVERLAP:
                kind, because, options = "categorical", f"holds the values of {name}", {}
    return Guess(profile, entity, why, kind, because, options)


def _entity(profile: Profile, usable: dict[str, Profile], ids: dict[Entity, str]) -> tuple[Entity, str]:
    words = _words(profile.name)
    sides: tuple[tuple[Entity, set[str]], ...] = (("user", USER_WORDS), ("item", ITEM_WORDS))
    for entity, known in sides:
        if words and words[0] in known:
            return entity, f"named {words[0]}..."
    share = {entity: profile.constant_within(usable[name].series) for entity, name in ids.items()}
    for entity in sorted(share, key=lambda entity: -share[entity]):
        if share[entity] >= FOLLOWS:
            return entity, f"the same in {share[entity]:.0%} of the rows of one {ids[entity]}"
    for entity, known in sides:
        if set(words) & known:
            return entity, "by a word in its name"
    if not ids:
        return "context", "no id column was found: move it to user or item where you know better"
    return "context", f"changes with the request: {' and '.join(ids.values())} do not decide it"


def _kind(profile: Profile) -> tuple[str, str, dict[str, object]]:
    if profile.weighted:
        return "multi_categorical", "JSON objects", {"weighted": True, "max_length": _length(profile)}
    if isinstance(profile.series.dtype, pl.List) or profile.is_json:
        return "multi_categorical", "lists", {"max_length": _length(profile)}
    if profile.separator:
        because = f"lists divided by {profile.separator}"
        return "multi_categorical", because, {"separator": profile.separator, "max_length": _length(profile)}
    if profile.numbers is None or profile.padded:
        return "categorical", f"text, {profile.distinct:,} values", {}
    if profile.whole and CODE_WORDS & set(_words(profile.name)):
        return "categorical", f"whole numbers that name something, {profile.distinct:,} values", {}
    if profile.whole and profile.distinct <= FEW_NUMBERS:
        return "categorical", f"only {profile.distinct} whole numbers", {}
    if profile.skewed:
        return (
            "numeric",
            "most are small and some large, as counts are",
            {"transforms": ["log1p", "standardise"], "buckets": 10},
        )
    return "numeric", "numbers", {"buckets": 10}


def _length(profile: Profile) -> int:
    return min(MAX_LIST, profile.longest)


def _share_spaces(guesses: list[Guess], ids: dict[Entity, str]) -> None:
    """Give one space to categories that are the same things: a user's liked genres and a film's."""
    named: dict[str, Guess] = {}
    order = sorted(guesses, key=lambda guess: (guess.entity != "item", guess.profile.name != ids.get(guess.entity)))
    for guess in (guess for guess in order if guess.kind != "numeric"):
        for space, owner in named.items():
            related = set(_words(guess.profile.name)) & set(_words(owner.profile.name)) - USER_WORDS - {"id"}
            text = guess.profile.numbers is None and owner.profile.numbers is None and not guess.profile.is_json
            if (related or text) and shared(guess.profile, owner.profile) >= OVERLAP:
                owner.options["space"] = guess.options["space"] = space
                guess.because += f"; has the values of {owner.profile.name}"
                break
        else:
            named[guess.profile.name] = guess


def _text(
    path: Path, guesses: list[Guess], label: str, timestamp: str | None, left_out: dict[str, str], rows: int
) -> str:
    told = " --timestamp " + timestamp if timestamp else ""
    lines = [
        f"# Proposed from the first {rows:,} rows of {path.name}. A guess: read it, mend it, keep it with your code.",
        f"# ctr train --dataset table --data {path.name} --features features.yaml --label {label}{told}",
        *(f"# Left out: {name}: {reason}" for name, reason in left_out.items()),
        "version: 1",
        "fields:",
    ]
    for entity in ("user", "context", "item"):
        lines += [guess.line() for guess in guesses if guess.entity == entity]
    # A comment ends with its line, whatever a column is called.
    return "\n".join(line.replace("\r", " ") for line in lines) + "\n"


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) and text.lower() not in YAML_WORDS
    return text if isinstance(value, int) or plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
