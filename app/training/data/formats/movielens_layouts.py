"""Read the layouts in which GroupLens has published MovieLens as one: ratings, users and films.

100K              u.data, u.user, u.item; or the installed `recbole` wheel's ml-100k.inter, .user and .item
1M, 10M           ratings.dat, users.dat (1M only), movies.dat: cells divided by ::
20M, 25M, latest  ratings.csv, movies.csv: no file describes users
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from app.errors import DataError
from app.features.tables.cell_quoting import Quoting
from app.features.tables.delimited_layout import DelimitedLayout
from app.features.tables.line_blocks import TextBlock, read_blocks
from app.training.data.dataset import ID_COLUMN
from app.training.data.formats.movielens_features import GENRES
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.delimited import delimited_files, read_delimited
from app.training.data.readers.table_chunk import ChunkReader, TableChunk
from app.training.data.readers.text_file import read_text, unreadable_file

COLUMNS = ["user_id", "item_id", "rating", "timestamp"]
NO_GENRES = "(no genres listed)"
UNIT = "\x1f"
"""Replaces ::, which is more than one byte, as the separator of cells."""


class MovieLensLayout:
    """Names the file of the ratings, and holds functions that read it and the rest."""

    def __init__(
        self,
        ratings: Path,
        chunks: ChunkReader,
        users: Callable[[], pl.DataFrame] | None,
        items: Callable[[], pl.DataFrame],
        others: list[Path],
    ) -> None:
        """Describe a layout.

        Args:
            users: reads the users; None where only the ratings tell who they are.
            items: reads the films.
            others: the files beside the ratings, of which some may be missing.
        """
        self.ratings, self.chunks, self.users, self.items = ratings, chunks, users, items
        self.others = [path for path in others if path.is_file()]


def find_layout(folder: Path) -> MovieLensLayout:
    """Return the layout of a folder. Raises DataError if it has none of the known ones."""
    for name, make in (
        ("ml-100k.inter", _recbole_layout),
        ("u.data", _original_layout),
        ("ratings.dat", _dat_layout),
        ("ratings.csv", _csv_layout),
    ):
        if (folder / name).is_file():
            return make(folder)
    raise DataError(f"{folder}: has neither u.data nor ratings.dat nor ratings.csv: is it a MovieLens folder?")


def _read(folder: Path, name: str, separator: str, columns: list[str] | None, encoding: str = "utf8") -> pl.DataFrame:
    """Read a small file beside the ratings; `columns` names its columns where it has no header."""
    path = folder / name
    if not path.is_file():
        raise DataError(f"{folder}: has no {name}")
    try:
        frame = read_text(path, separator, header=columns is None, quote=None, encoding=encoding)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable_file(path, error) from error
    if columns and frame.width != len(columns):
        raise DataError(f"{path}: has {frame.width} columns, expected {len(columns)}")
    return frame.rename(dict(zip(frame.columns, columns, strict=True))) if columns else frame


def _without_header(separator: str) -> DelimitedLayout:
    return DelimitedLayout(tuple(COLUMNS), Quoting(separator), body=0)


def _recbole_layout(folder: Path) -> MovieLensLayout:
    def read(name: str) -> pl.DataFrame:
        frame = _read(folder, name, "\t", None)
        return frame.rename({column: column.partition(":")[0] for column in frame.columns})

    def chunks(bad: BadRows) -> Iterator[TableChunk]:
        for chunk in delimited_files((folder / "ml-100k.inter",), quoted=False)(bad):
            yield chunk._replace(frame=chunk.frame.rename(lambda column: column.partition(":")[0]))

    return MovieLensLayout(
        folder / "ml-100k.inter",
        chunks,
        lambda: _users(read("ml-100k.user")),
        lambda: _items(read("ml-100k.item"), pl.col("class").str.split(" ")),
        [folder / "ml-100k.user", folder / "ml-100k.item"],
    )


def _original_layout(folder: Path) -> MovieLensLayout:
    def items() -> pl.DataFrame:
        names = ["item_id", "movie_title", "date", "video", "url", *GENRES]
        flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES]
        frame = _read(folder, "u.item", "|", names, "iso-8859-1")
        return _items(_titled(frame), pl.concat_list(flags).list.drop_nulls())

    def users() -> pl.DataFrame:
        return _users(
            _read(folder, "u.user", "|", ["user_id", "age", "gender", "occupation", "zip_code"], "iso-8859-1")
        )

    return MovieLensLayout(
        folder / "u.data",
        delimited_files((folder / "u.data",), fixed=_without_header("\t"), quoted=False),
        users,
        items,
        [folder / "u.user", folder / "u.item"],
    )


def _dat_layout(folder: Path) -> MovieLensLayout:
    def chunks(bad: BadRows) -> Iterator[TableChunk]:
        # Only :: separates; a row with a lone : keeps it, and its cell is then no number.
        blocks: Iterator[TextBlock] = (
            block._replace(text=block.text.replace(b"::", UNIT.encode()))
            for block in read_blocks(folder / "ratings.dat")
        )
        yield from read_delimited(folder / "ratings.dat", blocks, bad, _without_header(UNIT), quoted=False)

    def read(name: str, columns: list[str]) -> pl.DataFrame:
        path = folder / name
        if not path.is_file():
            raise DataError(f"{folder}: has no {name}")
        raw = path.read_bytes()
        try:
            text = raw.decode()  # 10M
        except UnicodeDecodeError:
            text = raw.decode("iso-8859-1")  # 1M
        lines = pl.Series("line", text.splitlines()).str.split("::")
        if (lines.list.len() != len(columns)).any():
            raise DataError(f"{path}: has lines that are not {len(columns)} cells divided by ::")
        return pl.DataFrame([lines.list.get(index).alias(name) for index, name in enumerate(columns)])

    def users() -> pl.DataFrame:
        return _users(read("users.dat", ["user_id", "gender", "age", "occupation", "zip_code"]))

    def items() -> pl.DataFrame:
        return _items(_titled(read("movies.dat", ["item_id", "movie_title", "genres"])), _split_genres("genres"))

    read_users = users if (folder / "users.dat").is_file() else None
    others = [folder / "users.dat", folder / "movies.dat"]
    return MovieLensLayout(folder / "ratings.dat", chunks, read_users, items, others)


def _csv_layout(folder: Path) -> MovieLensLayout:
    def chunks(bad: BadRows) -> Iterator[TableChunk]:
        for chunk in delimited_files((folder / "ratings.csv",))(bad):
            yield chunk._replace(frame=chunk.frame.rename({"userId": "user_id", "movieId": "item_id"}, strict=False))

    def items() -> pl.DataFrame:
        path = folder / "movies.csv"
        if not path.is_file():
            raise DataError(f"{folder}: has no movies.csv")
        try:
            frame = read_text(path, ",").rename({"movieId": "item_id", "title": "movie_title"})
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable_file(path, error) from error
        return _items(_titled(frame), _split_genres("genres"))

    return MovieLensLayout(folder / "ratings.csv", chunks, None, items, [folder / "movies.csv"])


def _titled(frame: pl.DataFrame) -> pl.DataFrame:
    """Split `Heat (1995)` into a title and a year."""
    return frame.with_columns(
        release_year=pl.col("movie_title").str.extract(r"\((\d{4})\)\s*$"),
        movie_title=pl.col("movie_title").str.replace(r"\s*\(\d{4}\)\s*$", ""),
    )


def _split_genres(name: str) -> pl.Expr:
    genres = pl.when(pl.col(name) != NO_GENRES).then(pl.col(name).str.split("|"))
    return genres.fill_null(pl.lit([], pl.List(pl.String)))


def _users(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        pl.col("user_id").alias(ID_COLUMN),
        pl.col("age").cast(pl.Int64, strict=False),
        "gender",
        "occupation",
        pl.col("zip_code").str.slice(0, 2).alias("zip_prefix"),
    ).unique(ID_COLUMN, keep="first", maintain_order=True)


def _items(frame: pl.DataFrame, genres: pl.Expr) -> pl.DataFrame:
    return frame.select(
        pl.col("item_id").alias(ID_COLUMN),
        pl.col("movie_title").alias("title"),
        pl.col("release_year").cast(pl.Int64, strict=False),
        genres.alias("genres"),
    ).unique(ID_COLUMN, keep="first", maintain_order=True)
