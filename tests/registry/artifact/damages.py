"""Damages to the files of a version, and the reason with which each is refused."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch

from app.features.schema import FeatureSchema
from app.registry.artifact.manifest import (
    MANIFEST,
    PROGRAM,
    TABLES,
    FileProof,
)
from app.registry.artifact.manifest_file import read_manifest, write_manifest
from tests.factories import small_schema, write_tiny

FILES = (PROGRAM, TABLES, MANIFEST)


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """Change the manifest and make its proofs and checksum fit again, as a careless tool would."""
    manifest = read_manifest(folder)
    proofs = {
        file: FileProof(hashlib.sha256((folder / file).read_bytes()).hexdigest(), (folder / file).stat().st_size)
        for file in (PROGRAM, TABLES)
    }
    write_manifest(folder, msgspec.structs.replace(manifest, **({"files": proofs} | changes)))


def punch_hole(folder: Path) -> None:
    with (folder / TABLES).open("r+b") as file:
        file.seek(4096)
        file.write(bytes(2048))


def delete(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def replace_by_link(file: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / file).rename(folder / "elsewhere")
        (folder / file).symlink_to("elsewhere")

    return damage


def replace_by_fifo(file: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return damage


def replace_by_folder(file: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return damage


def swap_files(folder: Path) -> None:
    (folder / PROGRAM).rename(folder / "program")
    (folder / TABLES).rename(folder / PROGRAM)
    (folder / "program").rename(folder / TABLES)


def claim_newer_format(folder: Path) -> None:
    rewrite_manifest(folder, format="ctr-torchscript-2")


def edit_manifest(folder: Path) -> None:
    raw = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(raw.replace(b'"auc": 0.75', b'"auc": 0.99'))


def keep_manifest_of_other_files(folder: Path) -> None:
    manifest = read_manifest(folder)
    write_tiny(folder, seed=1)
    write_manifest(folder, manifest)


def rename_schema_field(folder: Path) -> None:
    schema = read_manifest(folder).feature_schema
    schema["fields"][0]["name"] = "visitor"
    rewrite_manifest(folder, feature_schema=schema)


def break_schema(folder: Path) -> None:
    rewrite_manifest(folder, feature_schema={"fields": [{"name": "x"}]})


def use_another_models_schema(folder: Path) -> None:
    """Write a schema that is consistent in itself, but not the one that the program was made for."""
    schema = FeatureSchema(fields=small_schema().fields[1:])
    rewrite_manifest(folder, feature_schema=schema.model_dump(mode="json"), schema_hash=schema.hash)


def _set_table_value(folder: Path, value: float) -> None:
    raw = bytearray((folder / TABLES).read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = msgspec.json.decode(raw[8:start])
    begin = start + header["table_RE"]["data_offsets"][0] + 4 * 100
    raw[begin : begin + 4] = np.float32(value).tobytes()
    (folder / TABLES).write_bytes(raw)
    rewrite_manifest(folder)


def put_nan_in_table(folder: Path) -> None:
    _set_table_value(folder, np.nan)


def put_infinity_in_table(folder: Path) -> None:
    _set_table_value(folder, np.inf)


def put_nan_in_program(folder: Path) -> None:
    program = torch.jit.load(str(folder / PROGRAM))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        program.bias.fill_(float("nan"))
    torch.jit.save(program, str(folder / PROGRAM))
    rewrite_manifest(folder)


def make_golden_scores_text(folder: Path) -> None:
    raw = (folder / MANIFEST).read_bytes()
    raw = re.sub(rb'"scores": \[\s+[0-9.e-]+', b'"scores": [ "high"', raw, count=1)
    raw = re.sub(rb'"checksum": "[0-9a-f]+"', b'"checksum": ""', raw)
    digest = hashlib.sha256(raw).hexdigest().encode()
    (folder / MANIFEST).write_bytes(raw.replace(b'""', b'"' + digest + b'"', 1))


def change_weights(folder: Path) -> None:
    """Write weights that are finite and well-formed, but not the trained ones: only the golden requests can tell."""
    program = torch.jit.load(str(folder / PROGRAM))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        program.deep.output.bias.add_(0.01)
    torch.jit.save(program, str(folder / PROGRAM))
    rewrite_manifest(folder)


def write_no_program(folder: Path) -> None:
    (folder / PROGRAM).write_bytes(b"PK\x03\x04" + bytes(500))
    rewrite_manifest(folder)


def write_another_program(folder: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(folder / PROGRAM))
    rewrite_manifest(folder)


def empty_tables(folder: Path) -> None:
    (folder / TABLES).write_bytes((2).to_bytes(8, "little") + b"{}")
    rewrite_manifest(folder)


def extend_tables_beyond_end(folder: Path) -> None:
    header = b'{"table_RE":{"dtype":"F32","shape":[400,9],"data_offsets":[0,14400]}}'
    (folder / TABLES).write_bytes(len(header).to_bytes(8, "little") + header)
    rewrite_manifest(folder)


def claim_huge_header(folder: Path) -> None:
    (folder / TABLES).write_bytes((2**63).to_bytes(8, "little") + b"{}")
    rewrite_manifest(folder)


def nest_brackets(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"[" * 200_000)


def change_type_in_golden(folder: Path) -> None:
    request = read_manifest(folder).golden[0]
    rewrite_manifest(folder, golden=[msgspec.structs.replace(request, user={"age": "old"})])


def remove_golden_scores(folder: Path) -> None:
    request = read_manifest(folder).golden[0]
    rewrite_manifest(folder, golden=[msgspec.structs.replace(request, scores=[])])


def remove_golden(folder: Path) -> None:
    rewrite_manifest(folder, golden=[])


DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    ("hash", punch_hole),
    *(("file", delete(file)) for file in FILES),
    *(("file", replace_by_link(file)) for file in FILES),
    *(("file", replace_by_fifo(file)) for file in FILES),
    *(("file", replace_by_folder(file)) for file in FILES),
    ("hash", swap_files),
    ("format", claim_newer_format),
    ("hash", edit_manifest),
    ("hash", keep_manifest_of_other_files),
    ("schema", rename_schema_field),
    ("schema", break_schema),
    ("golden", use_another_models_schema),
    ("finite", put_nan_in_table),
    ("finite", put_infinity_in_table),
    ("finite", put_nan_in_program),
    ("golden", change_weights),
    ("program", write_no_program),
    ("program", write_another_program),
    ("tables", empty_tables),
    ("tables", extend_tables_beyond_end),
    ("tables", claim_huge_header),
    ("manifest", nest_brackets),
    ("golden", change_type_in_golden),
    ("golden", remove_golden_scores),
    ("golden", remove_golden),
    ("manifest", make_golden_scores_text),
]
