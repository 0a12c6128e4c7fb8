"""A read-only folder keeps accidents out, and can still be written to and removed on purpose."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.runtime.read_only import make_read_only, opened_for_writing, remove_folder
from tests.users import as_nobody, folder_of_nobody

__all__ = ["folder_of_nobody"]


@pytest.fixture
def version(folder_of_nobody: Path) -> Path:
    folder = folder_of_nobody / "7"
    with as_nobody():
        folder.mkdir(mode=0o700)
        (folder / "tables").write_bytes(b"right")
        make_read_only(folder)
    return folder


def test_copying_over_a_file_is_refused_and_reading_is_not(version: Path) -> None:
    with as_nobody():
        (version.parent / "other").write_bytes(b"wrong")
        with pytest.raises(PermissionError):
            shutil.copyfile(version.parent / "other", version / "tables")
        with pytest.raises(PermissionError):
            (version.parent / "other").replace(version / "tables")
        with pytest.raises(PermissionError):
            (version / "tables").unlink()
    assert (version / "tables").read_bytes() == b"right"
    assert {path.stat().st_mode & 0o777 for path in (version / "tables",)} == {0o444}
    assert version.stat().st_mode & 0o777 == 0o555


def test_it_is_opened_for_a_moment(version: Path) -> None:
    with as_nobody():
        with opened_for_writing(version):
            (version / "report").write_text("passed")
        with pytest.raises(PermissionError):
            (version / "another").write_text("no")
        assert (version / "report").read_text() == "passed"


def test_a_folder_that_was_not_read_only_stays_as_it_was(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    with opened_for_writing(tmp_path):
        pass
    assert tmp_path.stat().st_mode & 0o777 == 0o770


def test_it_can_be_removed_and_so_can_what_is_not_there(version: Path) -> None:
    with as_nobody():
        remove_folder(version)
        assert not version.exists()
        remove_folder(version)


def test_a_link_is_not_followed(version: Path) -> None:
    link = version.parent / "link"
    link.symlink_to(version)
    remove_folder(link)
    assert version.stat().st_mode & 0o777 == 0o555
    assert (version / "tables").exists()
