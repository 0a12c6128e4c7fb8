"""Every odd file gives the encoded rows of the plain one, or one line of refusal, by every door."""

from __future__ import annotations

import pytest

from tests.corpus.odd_files import ODD_FILES, OddFile
from tests.corpus.outcomes import PAGE, SAME, outcomes, page


def test_there_are_forty_and_more() -> None:
    assert len(ODD_FILES) >= 40
    assert len({(odd.name, odd.escape) for odd in ODD_FILES}) == len(ODD_FILES)


@pytest.mark.parametrize("odd", ODD_FILES, ids=[f"{odd.name}{odd.escape or ''}" for odd in ODD_FILES])
def test_a_file_gives_the_plain_rows_or_one_line(odd: OddFile) -> None:
    train, load, infer = outcomes(odd)
    for outcome in (train, load, infer):
        assert "\n" not in outcome
    assert train.startswith((SAME, "refused: "))
    assert load.startswith((SAME, "refused: "))
    assert infer.startswith(("proposed", "refused: "))
    assert not (train.startswith(SAME) and load.startswith("refused")), load
    if infer.startswith("refused"):
        assert train.startswith("refused")


def test_the_page_says_what_becomes_of_them() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/odd-files.md is out of date: python -m tests.corpus"
