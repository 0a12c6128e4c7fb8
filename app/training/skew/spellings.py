"""Other ways to write a value, by which one pipeline may differ from another: case, zeros, digits, separators, units.

Slots hold hashes, which cannot be read back. So the value of the table is written in each of these ways and encoded: if
that gives the slot that was served, the service was given it in that way.
"""

from __future__ import annotations

import html
import json
import math
import unicodedata
import urllib.parse
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from app.errors import EncodingError
from app.features.fields import AnyField, MultiCategorical, Numeric
from app.features.values import canonical_text

Respell = Callable[[str], str]
Rewrite = Callable[[object], object]
"""Write a value in another way; None where it cannot be."""

WORDS = (
    "", "nan", "NaN", "None", "none", "null", "NULL", "NA", "N/A", "n/a", "\\N", "<NA>", "nil", "undefined", "unknown",
    "Unknown", "UNKNOWN", "other", "missing", "default", "UNK", "<unk>", "-", "0", "-1", "1", "false",
)  # fmt: skip
"""What programs write where a value is missing, or put in its place."""
SEPARATORS = ("|", ",", ", ", " ", ";", "/", "\t")
BOOLEANS = ({"true": "1", "false": "0"}, {"true": "yes", "false": "no"}, {"true": "Y", "false": "N"})
TEXT_WAYS: Mapping[str, Respell] = {
    "lower case": str.lower,
    "upper case": str.upper,
    "capitalised": str.capitalize,
    "each word capitalised": str.title,
    "without spaces around it": str.strip,
    "with a space behind it": "{} ".format,
    "with a space before it": " {}".format,
    "_ for spaces": lambda text: text.replace(" ", "_"),
    "- for spaces": lambda text: text.replace(" ", "-"),
    "- for _": lambda text: text.replace("_", "-"),
    "_ for -": lambda text: text.replace("-", "_"),
    "spaces for _": lambda text: text.replace("_", " "),
    "without spaces": lambda text: text.replace(" ", ""),
    "without zeros before it": lambda text: text.lstrip("0") or text[:1],
    "in double quotes": '"{}"'.format,
    "in single quotes": "'{}'".format,
    "without quotes": lambda text: text.strip("\"'"),
    "a JSON array of it": lambda text: json.dumps([text], ensure_ascii=False),
    "the text of a list of it": lambda text: str([text]),
    "the text of bytes": lambda text: str(text.encode()),
    "URL-encoded": urllib.parse.quote,
    "URL-decoded": urllib.parse.unquote,
    "HTML-escaped": html.escape,
    "HTML-unescaped": html.unescape,
    "Unicode NFC": lambda text: unicodedata.normalize("NFC", text),
    "Unicode NFD": lambda text: unicodedata.normalize("NFD", text),
    "Unicode NFKC": lambda text: unicodedata.normalize("NFKC", text),
    "without accents": lambda text: _without_accents(text),
    "UTF-8 read as Latin-1": lambda text: text.encode().decode("latin-1"),
    "Latin-1 read as UTF-8": lambda text: text.encode("latin-1").decode(),
}  # fmt: skip


def ways(field: AnyField) -> dict[str, Rewrite]:
    """Return the other ways to write values of a field, by what they are called."""
    if isinstance(field, Numeric):
        return {}  # numbers can be read back: see `number_causes`
    texts = dict(TEXT_WAYS)
    for width in range(2, 13):
        texts[f"zeros before it, {width} letters in all"] = _zfill(width)
    for digits in range(7):
        texts[f"a number with {digits} decimals"] = _decimals(digits)
    texts["a number of 32 bits"] = lambda text: repr(float(np.float32(_number(text))))
    texts["a number of 32 bits, in shortest digits"] = lambda text: str(np.float32(_number(text)))
    texts["a whole number"] = lambda text: str(int(_number(text)))
    texts["a number with an exponent"] = lambda text: f"{_number(text):e}"
    texts["separators between thousands"] = lambda text: f"{_number(text):,}"
    for words in BOOLEANS:
        texts[f"{words['true']} and {words['false']} for booleans"] = _mapped(words)
        texts[f"booleans for {words['true']} and {words['false']}"] = _mapped({v: k for k, v in words.items()})
    for mark in ("=", "_", ":"):
        texts[f"{field.raw_name}{mark} before it"] = f"{field.raw_name}{mark}{{}}".format
    if not isinstance(field, MultiCategorical):
        return {name: _of_text(respell, field.name) for name, respell in texts.items()}
    lists: dict[str, Rewrite] = {
        "without weights": lambda value: _items(value, field),
        "each item once": lambda value: list(dict.fromkeys(_items(value, field))),
    }
    lists |= {name: _of_items(respell, field.name) for name, respell in texts.items()}
    for separator in SEPARATORS:
        lists[f"one text, joined by {separator!r}"] = _joined(separator, field)
        lists[f"split at {separator!r}"] = _split(separator, field)
    return lists


def truncations(field: AnyField, value: object) -> dict[int, object]:
    """Return the shorter texts of a value by their number of letters; of lists, each item is that short."""
    if isinstance(field, MultiCategorical):
        items = _items(value, field)
        longest = max(map(len, items), default=0)
        return {length: [item[:length] for item in items] for length in range(1, longest)}
    text = canonical_text(value, field.name)
    return {length: text[:length] for length in range(1, len(text))}


def truncated(field: AnyField, length: int) -> Rewrite:
    """Return what cuts texts to a number of letters."""
    if isinstance(field, MultiCategorical):
        return _of_items(lambda text: text[:length], field.name)
    return _of_text(lambda text: text[:length], field.name)


def rewritten(rewrite: Rewrite, value: object) -> object:
    """Return a value in another way; None where it cannot be written so."""
    try:
        return rewrite(value)
    except (ValueError, TypeError, OverflowError, KeyError, EncodingError):  # UnicodeError is a ValueError
        return None


def _without_accents(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _zfill(width: int) -> Respell:
    return lambda text: text.zfill(width)


def _decimals(digits: int) -> Respell:
    return lambda text: f"{_number(text):.{digits}f}"


def _mapped(words: Mapping[str, str]) -> Respell:
    return words.__getitem__


def _of_text(respell: Respell, name: str) -> Rewrite:
    return lambda value: respell(canonical_text(value, name))


def _of_items(respell: Respell, name: str) -> Rewrite:
    def rewrite(value: object) -> object:
        if isinstance(value, Mapping):
            return {respell(canonical_text(item, name)): weight for item, weight in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [respell(canonical_text(item, name)) for item in value if item is not None]
        return respell(canonical_text(value, name))

    return rewrite


def _joined(separator: str, field: MultiCategorical) -> Rewrite:
    return lambda value: separator.join(_items(value, field))


def _split(separator: str, field: MultiCategorical) -> Rewrite:
    return lambda value: [part for item in _items(value, field) for part in item.split(separator)]


def _items(value: object, field: MultiCategorical) -> list[str]:
    """Return the items of a value, as the field reads it, as text."""
    if isinstance(value, str):
        if value[:1] in ("[", "{"):
            value = json.loads(value)
        elif field.separator is not None:
            value = value.split(field.separator)
    if isinstance(value, str) or not isinstance(value, Sequence | Mapping):
        value = [value]
    return [canonical_text(item, field.name) for item in value if item is not None]
