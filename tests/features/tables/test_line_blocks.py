"""Blocks and shards of text begin and end where lines do."""

from __future__ import annotations

from pathlib import Path

from app.features.tables.block_lines import lines_with_cells
from app.features.tables.cell_quoting import Quoting
from app.features.tables.line_blocks import next_line_start, read_blocks


def test_blocks_end_with_lines_whatever_their_size(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"x\ny"\n\n2,"z"\n3,w')
    for size in range(4, 30):
        result = list(read_blocks(path, quoting=Quoting(","), size=size))
        assert b"".join(block.text for block in result) == path.read_bytes() + b"\n"
        assert all(block.text.count(b'"') % 2 == 0 for block in result)
        assert result[-1].fraction == 1.0
        lines = [lines_with_cells(block.text, ",", 2, quoted=True) for block in result]
        assert (sum(line.rows for line in lines), sum(len(line.bad) for line in lines)) == (4, 0)


def test_a_line_begins_where_no_quote_is_open(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    text = 'a,b\n"x\ny",1\n"z",2\n'
    path.write_text(text)
    begins = [0, 4, 12, 18]
    for at in range(len(text) + 1):
        odd = text[:at].count('"') % 2 == 1
        expected = next(begin for begin in begins if begin >= at)
        for size in (1, 3, 100):
            assert next_line_start(path, at, within_quotes=odd, quoted=True, size=size) == expected
