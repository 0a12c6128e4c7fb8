"""Files as programs and people write them, each of which says what a plain table says, or cannot be read as one.

`ODD_FILES` lists them; each is written by a function, small, into a folder of its own.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

START = 1_790_000_000
TITLES = (
    "Plain",
    'Screen 42" black',
    "one, two",
    "naïve",
    "",
    "semi; colon",
    "C:\\temp",
    "two\nlines",
    "tab\there",
    "a|b",
)
SIMPLE_TITLES = ("Plain", "Fancy", "naïve", "Blue")
NAMES = ("clicked", "user_id", "item_id", "title", "price", "at")

Row = dict[str, Any]
Write = Callable[[Path], None]


def table(titles: tuple[str, ...], rows: int = 60) -> list[Row]:
    """Return clicks of which some have no price and no title."""
    return [
        {
            "clicked": row % 2,
            "user_id": f"u{row % 7}",
            "item_id": f"i{row % 11}",
            "title": titles[row % len(titles)],
            "price": None if row % 13 == 0 else row + 0.25,
            "at": START + 3600 * row,
        }
        for row in range(rows)
    ]


RICH, SIMPLE = table(TITLES), table(SIMPLE_TITLES)


@dataclass(frozen=True, eq=False)
class OddFile:
    """One file, or folder, and what is odd about it; it is equal to itself alone."""

    name: str
    what: str
    write: Write
    rows: list[Row]
    """What it says."""
    escape: str | None = None


ODD_FILES: list[OddFile] = []


def odd(name: str, what: str, rows: list[Row] = SIMPLE, escape: str | None = None) -> Callable[[Write], Write]:
    def add(write: Write) -> Write:
        ODD_FILES.append(OddFile(name, what, write, rows, escape))
        return write

    return add


def delimited(rows: list[Row], separator: str = ",", **options: Any) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, **{"lineterminator": "\n", **options})
    writer.writerow(rows[0])
    writer.writerows(["" if value is None else value for value in row.values()] for row in rows)
    return file.getvalue()


def plainly(rows: list[Row], separator: str = ",", end: str = "\n") -> str:
    """Return text without quotes, as programs write it that know none."""
    lines = [list(rows[0]), *(["" if value is None else str(value) for value in row.values()] for row in rows)]
    return "".join(separator.join(cells) + end for cells in lines)


def lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def frame(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows)


def text(name: str, what: str, content: str | bytes, rows: list[Row] = SIMPLE, escape: str | None = None) -> None:
    raw = content.encode() if isinstance(content, str) else content
    odd(name, what, rows, escape)(lambda path: path.write_bytes(raw) and None)


def parquet(name: str, what: str, table: pl.DataFrame, rows: list[Row] = SIMPLE) -> None:
    odd(name, what, rows)(table.write_parquet)


def folder(name: str, what: str, parts: dict[str, bytes | str], rows: list[Row] = SIMPLE) -> None:
    def write(path: Path) -> None:
        for part, content in parts.items():
            (path / part).parent.mkdir(parents=True, exist_ok=True)
            (path / part).write_bytes(content.encode() if isinstance(content, str) else content)

    odd(name, what, rows)(write)


def replaced(name: str, make: Callable[[Row], Any], rows: list[Row] = SIMPLE) -> list[Row]:
    """Return the rows with other values in one column."""
    return [{**row, name: make(row)} for row in rows]


def moment(row: Row) -> datetime:
    return datetime.fromtimestamp(row["at"], UTC)


BOM = "\ufeff"
PARQUET = io.BytesIO()
frame(SIMPLE).write_parquet(PARQUET)
ZIP = io.BytesIO()
with zipfile.ZipFile(ZIP, "w") as archive:
    archive.writestr("xl/workbook.xml", "<workbook/>")
BAD_TAIL = "0,u1,i1,"
NO_ACCENTS = table(("Plain", "Fancy", "Blue"))

# Lines, encodings and headers.
text("plain.csv", "the plain file: quotes where they are needed, also around line feeds", delimited(RICH), RICH)
text("crlf.csv", "lines end as on Windows", delimited(RICH, lineterminator="\r\n"), RICH)
text("cr.csv", "lines end as on old Macs", plainly(SIMPLE, end="\r"))
text("no_last_line_end.csv", "the last line does not end", plainly(SIMPLE).rstrip("\n"))
text("blank_lines.csv", "blank lines between rows", plainly(SIMPLE, end="\n\n"))
text("bom.csv", "begins with a byte order mark, as Excel writes it", BOM + delimited(RICH), RICH)
text("bom_quoted.csv", "the same, and the first name in quotes", BOM + delimited(RICH, quoting=csv.QUOTE_ALL), RICH)
text("bom.jsonl", "JSON lines that begin with a byte order mark", BOM + lines(RICH), RICH)
text("utf16.csv", "UTF-16 with its mark", delimited(SIMPLE).encode("utf-16"))
text("utf16_without_mark.csv", "UTF-16 without a mark", delimited(SIMPLE).encode("utf-16-le"))
text("utf16.jsonl", "JSON lines in UTF-16", lines(SIMPLE).encode("utf-16"))
text("latin1.csv", "every fourth row in Latin-1", delimited(SIMPLE).encode("latin-1"))
text(
    "one_latin1_row.csv",
    "a row more, in Latin-1",
    plainly(SIMPLE).encode() + BAD_TAIL.encode() + b"na\xefve,1,1790000000\n",
)
text("nul.csv", "a row more, with a NUL byte", plainly(SIMPLE) + BAD_TAIL + "x\0y,1,1790000000\n")
text(
    "carriage_return.csv",
    "a row more, with a carriage return in a cell",
    plainly(SIMPLE) + BAD_TAIL + "x\ry,1,1790000000\n",
)
text("empty.csv", "no bytes", "")
text("header_only.csv", "a header and no rows", ",".join(NAMES) + "\n")
text("names_twice.csv", "two columns of one name", plainly(SIMPLE).replace("price", "title", 1))
text("spaces_in_header.csv", "spaces around the names", plainly(SIMPLE).replace(",", " , ", len(NAMES) - 1))
text(
    "index.csv",
    "a first column without a name, as pandas writes its index",
    plainly([{"": n, **row} for n, row in enumerate(SIMPLE)]),
)
text("trailing_separator.csv", "every line ends in a comma", plainly(SIMPLE, end=",\n"))
text(
    "trailing_in_rows.csv",
    "every row ends in a comma, and the header does not",
    plainly(SIMPLE, end=",\n").replace(",\n", "\n", 1),
)
text(
    "row_names.csv",
    "names of the rows that the header does not name, as R writes them",
    plainly(SIMPLE).replace("\n", "\n9,")[:-2],
)
text(
    "empty_columns.csv",
    "empty columns at the end, as spreadsheets write those that were used once",
    plainly(SIMPLE, end=",,,\n"),
)
text("latin1_header.csv", "a column's name in Latin-1", plainly(SIMPLE).replace("title", "título", 1).encode("latin-1"))
text("short_row.csv", "a row more, with a cell less", plainly(SIMPLE) + "0,u1,i1,x,1\n")
text("header_again.csv", "two files put together: the header comes again", plainly(SIMPLE[:30]) + plainly(SIMPLE[30:]))
text("comment.csv", "a comment before the header", "# exported on Monday\n" + plainly(SIMPLE))
text("unread_columns.csv", "columns that no field reads", plainly([{**row, "note": "x", "é": 1} for row in SIMPLE]))
text("other_order.csv", "columns in another order", plainly([dict(reversed(row.items())) for row in SIMPLE]))

# What divides and quotes cells.
text("quoted.csv", "every cell in quotes", delimited(RICH, quoting=csv.QUOTE_ALL), RICH)
INCHES = table(("Plain", 'Screen 42" black', 'TV 55"'))
text("inches.csv", "a quote in the midst of a cell without quotes", plainly(INCHES), INCHES)
WORDS = table(("Plain", "Deluxe edition"))
text(
    "quoted_words.tsv",
    "a quoted word at the beginning of a cell",
    plainly(WORDS, "\t").replace("Deluxe", '"Deluxe"'),
    WORDS,
)
text("open_quote.csv", "a row more, whose cell opens a quote", plainly(SIMPLE) + BAD_TAIL + '"x,1,1790000000\n')
text("semicolons.csv", "semicolons, as Excel writes them in much of Europe", delimited(RICH, ";"), RICH)
text("sep.csv", "the same, and a first line that tells Excel", "sep=;\n" + delimited(RICH, ";"), RICH)
text("bars.csv", "vertical bars", delimited(RICH, "|"), RICH)
text("bars.txt", "the same as .txt", delimited(RICH, "|"), RICH)
text("tabs.csv", "tabs in a .csv", delimited(RICH, "\t"), RICH)
text("commas.tsv", "commas in a .tsv", delimited(RICH), RICH)
text("spaces.csv", "a space after every comma", plainly(SIMPLE, ", "))
text(
    "spaces_quoted.csv",
    "the same, and quotes after it",
    delimited(RICH, quoting=csv.QUOTE_ALL).replace('","', '", "'),
    RICH,
)
TABLE_LINES = plainly(SIMPLE, " | ", "\n").splitlines()
text(
    "psql.txt",
    "a table for the eye, as psql prints it",
    "".join(f" {line} \n" for line in TABLE_LINES) + "(60 rows)\n",
)
text(
    "markdown.csv",
    "a table of Markdown",
    f"| {TABLE_LINES[0]} |\n|{'---|' * 6}\n" + "".join(f"| {line} |\n" for line in TABLE_LINES[1:]),
)
text(
    "fixed_width.csv",
    "cells and names padded with spaces to one width",
    plainly(
        [{name.ljust(12): str("" if cell is None else cell).ljust(12) for name, cell in row.items()} for row in SIMPLE]
    ),
)
text(
    "padded.csv",
    "a column padded with spaces, as those of CHAR are",
    plainly(replaced("title", lambda row: row["title"].ljust(8))),
    replaced("title", lambda row: row["title"].ljust(8)),
)
text(
    "formulas.csv",
    "ids as formulas, by which spreadsheets are made to keep text",
    delimited(replaced("item_id", lambda row: f'="{row["item_id"]}"')),
)
text(
    "formulas_plain.csv",
    "the same without quotes around",
    plainly(replaced("item_id", lambda row: f'="{row["item_id"]}"')),
)
EQUALS = table(("a,=", 'class,="x" y', "=1"))
text("equals.csv", "text with equals signs and quotes that is no formula", delimited(EQUALS), EQUALS)
SLASHES = table(("Plain", 'the "best" one, really', 'size 7"', "C:\\temp\\"))
ESCAPED = delimited(SLASHES, doublequote=False, escapechar="\\", quoting=csv.QUOTE_ALL)
text("backslashes.csv", "quotes escaped by backslashes, as Spark and Hive do", ESCAPED, SLASHES)
text("backslashes.csv", "the same", ESCAPED, SLASHES, escape="\\")
text(
    "path.csv",
    "a quoted cell that ends in a backslash",
    delimited(table(("C:\\",)), quoting=csv.QUOTE_ALL),
    table(("C:\\",)),
)

# JSON.
text("plain.jsonl", "JSON lines", lines(RICH), RICH)
text("lines.json", "JSON lines that are called .json, as Spark does", lines(RICH), RICH)
text("array.json", "one JSON array", json.dumps(SIMPLE))
text("pretty.json", "objects over several lines", "\n".join(json.dumps(row, indent=2) for row in SIMPLE))
text(
    "nan.jsonl",
    "NaN, which is not JSON, as Python writes it",
    lines(replaced("price", lambda row: float("nan") if row["price"] is None else row["price"])),
)
text(
    "absent.jsonl",
    "keys without a value are left out",
    "".join(json.dumps({k: v for k, v in row.items() if v not in (None, "")}) + "\n" for row in RICH),
    RICH,
)
text(
    "key_twice.jsonl",
    "a row more, that names a key twice",
    lines(SIMPLE)
    + '{"clicked": 0, "user_id": "a", "user_id": "b", "item_id": "i", "title": "x", "price": 1, "at": 1790000000}\n',
)
text("truncated.jsonl", "a row more, that breaks off", lines(SIMPLE) + '{"clicked": 0, "user_id": "a", "ti')

# Other kinds of files, and other names.
text("UPPER.CSV", "the name in capitals", plainly(SIMPLE))
text("clicks.csv.gz", "compressed with gzip", gzip.compress(delimited(RICH).encode()), RICH)
text("clicks.jsonl.gz", "JSON lines compressed with gzip", gzip.compress(lines(RICH).encode()), RICH)
text("truncated.csv.gz", "gzip that breaks off", gzip.compress(delimited(RICH).encode())[:-20], RICH)
text("gzip.csv", "gzip that does not say so", gzip.compress(plainly(SIMPLE).encode()))
text("parquet.csv", "Parquet that is called .csv", PARQUET.getvalue())
text("csv.parquet", "CSV that is called .parquet", plainly(SIMPLE))
text("excel.csv", "a spreadsheet that is called .csv", ZIP.getvalue())
text("clicks.xlsx", "a spreadsheet", ZIP.getvalue())
text("arrow.parquet", "Arrow's format that is called .parquet", b"ARROW1\0\0")
text("stream.csv", "Arrow's stream that is called .csv", b"\xff\xff\xff\xff\x10\0\0\0\0\0\n\0")
text("noise.parquet", "other bytes that are called .parquet", b"\x93NUMPY\x01\0")
text("clicks.csv.zst", "compressed with zstd", b"\x28\xb5\x2f\xfd")
text("clicks.csv.bz2", "compressed with bzip2", bz2.compress(plainly(SIMPLE).encode()))
text("clicks.zip", "an archive", ZIP.getvalue())
text("clicks.feather", "Arrow's format", b"ARROW1")
text("clicks.orc", "ORC", b"ORC")
text("clicks.avro", "Avro", b"Obj\x01")
text("clicks", "a name that does not say what it is", plainly(SIMPLE))

# Times.
text("milliseconds.csv", "times in milliseconds", plainly(replaced("at", lambda row: row["at"] * 1000)))
text("nanoseconds.csv", "times in nanoseconds", plainly(replaced("at", lambda row: row["at"] * 10**9)))
text("iso.csv", "times in ISO 8601", plainly(replaced("at", lambda row: moment(row).strftime("%Y-%m-%dT%H:%M:%SZ"))))
text(
    "zone.csv",
    "times in ISO 8601 and another zone",
    plainly(
        replaced("at", lambda row: datetime.fromtimestamp(row["at"] + 19800, UTC).strftime("%Y-%m-%d %H:%M:%S+05:30"))
    ),
)
text(
    "compact.csv", "times as 20260921141320", plainly(replaced("at", lambda row: moment(row).strftime("%Y%m%d%H%M%S")))
)
text(
    "day_first.csv", "times as 21/09/2026", plainly(replaced("at", lambda row: moment(row).strftime("%d/%m/%Y %H:%M")))
)
text(
    "am_pm.csv",
    "times as 09/21/2026 02:13 PM",
    plainly(replaced("at", lambda row: moment(row).strftime("%m/%d/%Y %I:%M %p"))),
)
text(
    "serial.csv",
    "times as days, as spreadsheets hold them",
    plainly(replaced("at", lambda row: f"{row['at'] / 86400 + 25569:.10f}")),
)
text(
    "fractions.csv",
    "times that count from 0 to 1",
    plainly(replaced("at", lambda row: (row["at"] - START) / 1e6)),
)
text(
    "zone_name.csv",
    "times with the name of a zone and no offset",
    plainly(replaced("at", lambda row: f"{moment(row):%Y-%m-%dT%H:%M:%S}[Europe/Berlin]")),
)
text("week.csv", "times as 2026-W39-1", plainly(replaced("at", lambda row: moment(row).strftime("%G-W%V-%u"))))
text(
    "placeholder.csv",
    "a row more, of 9999-12-31",
    plainly(replaced("at", lambda row: moment(row).isoformat())) + BAD_TAIL + "x,1,9999-12-31\n",
)

# Parquet.
AT = pl.from_epoch("at", "s")
parquet("plain.parquet", "Parquet", frame(RICH), RICH)
parquet(
    "types.parquet",
    "dictionaries, decimals, small integers",
    frame(SIMPLE).cast({"title": pl.Categorical, "price": pl.Decimal(12, 4), "clicked": pl.Int8}),
)
parquet(
    "binary.parquet",
    "text as bytes, as Impala writes it",
    frame(SIMPLE).cast({"title": pl.Binary, "user_id": pl.Binary}),
)
parquet("milliseconds.parquet", "datetimes in milliseconds", frame(SIMPLE).with_columns(AT.cast(pl.Datetime("ms"))))
parquet(
    "zone.parquet",
    "datetimes in nanoseconds with a zone",
    frame(SIMPLE).with_columns(AT.cast(pl.Datetime("ns", "UTC")).dt.convert_time_zone("Asia/Shanghai")),
)
parquet(
    "unread_types.parquet",
    "columns of structs, times of day, durations that no field reads",
    frame(SIMPLE).with_columns(
        pl.struct("price").implode().over("user_id").alias("history"),
        pl.time(10, 11).alias("clock"),
        pl.duration(hours=1).alias("spent"),
    ),
)

# Folders.
PARTS = [plainly(SIMPLE[start : start + 5]) for start in range(0, 60, 5)]
folder(
    "numbered",
    "parts 1 to 12, whose names have no leading zeros",
    {f"part-{n}.csv": part for n, part in enumerate(PARTS, 1)},
)
folder(
    "by_day",
    "folders of days and hours",
    {f"day=2026-09-{21 + n // 6}/hour={n % 6 * 4}/part.csv": part for n, part in enumerate(PARTS)},
)
folder(
    "beside",
    "files beside the parts",
    {
        "a.csv": PARTS[0],
        **{f"b{n}.csv.gz": gzip.compress(p.encode()) for n, p in enumerate(PARTS[1:])},
        "_SUCCESS": "",
        ".a.csv.crc": "x",
        "c.csv": "",
        "README.md": "x",
    },
)
folder("kinds", "parts of two kinds", {"a.csv": PARTS[0], "b.jsonl": lines(SIMPLE[5:])})
folder("compressed", "a part that cannot be read", {"a.csv": PARTS[0], "b.csv.zst": b"\x28\xb5\x2f\xfd"})
folder(
    "lacking",
    "a part without a column",
    {"a.csv": PARTS[0], "b.csv": plainly([{k: v for k, v in row.items() if k != "price"} for row in SIMPLE[5:]])},
)
folder("separators", "parts that are divided otherwise", {"a.csv": PARTS[0], "b.csv": delimited(SIMPLE[5:], ";")})
folder(
    "units",
    "parts whose times differ in their unit",
    {"a.csv": PARTS[0], "b.csv": plainly(replaced("at", lambda row: row["at"] * 10**6, SIMPLE[5:]))},
)
folder("nothing", "a folder without data", {"README.md": "x"})
folder("delta", "a Delta table", {"a.csv": PARTS[0], "_delta_log/0.json": "{}"})
folder("tree", "folders without keys", {f"2026/09/{n + 1}/part.csv": part for n, part in enumerate(PARTS)})
text("gzip_of_nothing.csv.gz", "gzip of no bytes", gzip.compress(b""))
text("bom_alone.csv", "a byte order mark alone", BOM)
text("spaces_alone.csv", "a header and a row of spaces", ",".join(NAMES) + "\n   \n")
folder(
    "clicks.parquet",
    "a folder called .parquet, as Spark writes it",
    {"part-0.snappy.parquet": PARQUET.getvalue(), "_SUCCESS": ""},
)
folder("damaged", "a part that is damaged", {"a.parquet": PARQUET.getvalue(), "b.parquet": PARQUET.getvalue()[:-9]})
