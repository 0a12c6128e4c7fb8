"""Parquet of other programs is read, with whatever columns no field reads."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

from app.features.loading.record_file import RecordFile
from app.features.schema import parse_schema
from app.training.data.formats.table import table_source
from app.training.data.readers.bad_rows import BadRows
from app.training.data.schema_proposal import propose_schema

INTERVALS = (
    "c-n1JO-sW-5S^^G=Fk>;m}LVw1R<eHEs0gEkc-lbAf<TlW=oo^7`jcQAEEdo{578ZbxyWL19h2wGqXGI?F{Vr?kPaPE_S<UQ"
    "c%Y_00RKiAOH<}Pq!h42W2HjzQ#b~rN%y0DOCTeR#)|aRpO()M`k@<gJ>q3c%ICrtN2YWB9cSqGI0{CG@i@EJq2t~Zfsp*v`"
    "`=u$E$alt=)6rre#~92R2C|SidBs8$RMA&kRMaY(vz_2RU>qS-TCEjpgiRbEQZ_ix^u?pYVzI910foY5PRoM~AeQrtO;2)K7"
    "!V`!XK>>i9R~re~5Pwy<|2_tI=FmqnzeGnMCy>1(Pe7tJhRE+UnF$mF63Ky-#wJ-l}cxm=}r<`kDbzZW>2*(OzqGe~X*L2xB"
    "+{WB}H0d@v2H0YRqzz-i;Nsa"
)
"""A file of DuckDB: `SELECT i % 2 AS clicked, 'a' || i AS x, to_days(i) AS spent`, of four rows."""


def test_intervals_that_no_field_reads_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "clicks.parquet"
    path.write_bytes(zlib.decompress(base64.b85decode(INTERVALS)))
    schema = parse_schema("fields: [{name: x, entity: item, type: categorical}]")
    (rows,) = table_source(path, schema, "clicked", None).usable_rows(BadRows(str(path), 0.01))
    assert rows.item["x"].to_list() == ["a0", "a1", "a2", "a3"]
    assert [record.values["x"] for record in RecordFile(path)] == ["a0", "a1", "a2", "a3"]
    assert propose_schema(path, label="clicked").label == "clicked"
