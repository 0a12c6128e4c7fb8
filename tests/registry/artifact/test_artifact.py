"""A version survives the round trip exactly, and whatever is done to its files, it is refused with a reason."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from app.errors import ArtifactError
from app.models import MODELS
from app.registry.artifact.export import write, write_manifest
from app.registry.artifact.load import load, read_manifest
from app.registry.artifact.manifest import (
    MANIFEST,
    PROGRAM,
    TABLES,
    FileProof,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from tests.factories import (
    fitted,
    golden,
    raw_context,
    raw_item,
    raw_user,
    small_schema,
    tiny_model,
    write_tiny,
)

FILES = (PROGRAM, TABLES, MANIFEST)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("version")
    write_tiny(folder)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "version"))


def remade(folder: Path, **changes: object) -> None:
    """Change the manifest and make its proofs and checksum fit again, as a careless tool would."""
    manifest = read_manifest(folder)
    proofs = {
        file: FileProof(hashlib.sha256((folder / file).read_bytes()).hexdigest(), (folder / file).stat().st_size)
        for file in (PROGRAM, TABLES)
    }
    write_manifest(folder, msgspec.structs.replace(manifest, **({"files": proofs} | changes)))


@pytest.mark.parametrize("architecture", MODELS)
def test_what_is_loaded_scores_as_the_model_did(tmp_path: Path, architecture: str) -> None:
    manifest = write_tiny(tmp_path, seed=3, architecture=architecture)
    loaded = load(tmp_path)
    assert loaded.manifest == msgspec.structs.replace(manifest, checksum=loaded.manifest.checksum)
    assert (loaded.version, loaded.manifest.architecture) == (0, architecture)
    model = tiny_model(3, architecture)
    items = loaded.item_encoder.encode_many([raw_item(n) for n in range(80)], [str(n) for n in range(80)])
    for number in (0, 3, 77):  # one with a missing age, one the training never saw
        user = loaded.user_encoder.encode(raw_user(number) | raw_context(number), str(number))
        scores_N = loaded.score(loaded.encode_user(user), loaded.encode_items(items))
        with torch.no_grad():
            slots = [np.repeat(user.keys[None], 80, 0), np.repeat(user.values[None], 80, 0), *items]
            expected_N = model.probability(model(*(torch.from_numpy(array) for array in slots)))
        assert float((scores_N - expected_N).abs().max()) < 1e-5
        assert float((scores_N - loaded.reference(user, items)).abs().max()) < 1e-5
        assert float(scores_N.std()) > 0.001, "a test on equal scores would see nothing"


def test_writing_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = tiny_model(1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write(tmp_path, model, small_schema(), name="deepfm", golden=golden())
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_golden_scores_are_those_of_the_loaded_program(pristine: Path) -> None:
    manifest = read_manifest(pristine)
    assert len(manifest.golden) == 3
    for request in manifest.golden:
        assert len(request.scores) == len(request.item_ids)
        assert all(0 < score < 1 for score in request.scores)


def test_the_program_is_small_and_the_tables_beside_it(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    rows = tiny_model().table_RE.numel()
    assert (tmp_path / TABLES).stat().st_size > rows * 4
    program = torch.jit.load(str(tmp_path / PROGRAM))  # type: ignore[no-untyped-call]
    assert [len(program.table_RE), len(program.vocabulary_V)] == [1, 1]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("seed", range(3))
def test_every_flipped_bit_is_refused(folder: Path, file: str, seed: int) -> None:
    dice = random.Random(seed)
    good = (folder / file).read_bytes()
    for _ in range(50):
        raw, offset = bytearray(good), dice.randrange(len(good))
        raw[offset] ^= 1 << dice.randrange(8)
        (folder / file).write_bytes(raw)
        with pytest.raises(ArtifactError) as refused:
            load(folder)
        assert refused.value.reason in {"hash", "manifest", "format"}
    (folder / file).write_bytes(good)
    load(folder)


@pytest.mark.parametrize("file", FILES)
def test_every_truncation_is_refused(folder: Path, file: str) -> None:
    good = (folder / file).read_bytes()
    for size in {0, 1, 7, 8, 9, len(good) // 2, len(good) - 1}:
        (folder / file).write_bytes(good[:size])
        with pytest.raises(ArtifactError) as refused:
            load(folder)
        assert refused.value.reason in {"hash", "manifest", "file"}
    (folder / file).write_bytes(good + b"\0")
    with pytest.raises(ArtifactError):
        load(folder)


def a_hole(folder: Path) -> None:
    with (folder / TABLES).open("r+b") as file:
        file.seek(4096)
        file.write(bytes(2048))


def absent(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def a_link(file: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / file).rename(folder / "elsewhere")
        (folder / file).symlink_to("elsewhere")

    return damage


def a_fifo(file: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return damage


def a_folder(file: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return damage


def swapped_files(folder: Path) -> None:
    (folder / PROGRAM).rename(folder / "kept")
    (folder / TABLES).rename(folder / PROGRAM)
    (folder / "kept").rename(folder / TABLES)


def a_newer_format(folder: Path) -> None:
    remade(folder, format="ctr-torchscript-2")


def an_edited_manifest(folder: Path) -> None:
    raw = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(raw.replace(b'"auc": 0.75', b'"auc": 0.99'))


def a_manifest_of_other_files(folder: Path) -> None:
    manifest = read_manifest(folder)
    write_tiny(folder, seed=1)
    write_manifest(folder, manifest)


def a_wrong_schema(folder: Path) -> None:
    schema = read_manifest(folder).feature_schema
    schema["fields"][0]["name"] = "visitor"
    remade(folder, feature_schema=schema)


def a_broken_schema(folder: Path) -> None:
    remade(folder, feature_schema={"fields": [{"name": "x"}]})


def another_models_schema(folder: Path) -> None:
    """Consistent in itself, but not the one the program was made for."""
    schema = small_schema().model_copy(update={"fields": small_schema().fields[1:]})
    remade(folder, feature_schema=schema.model_dump(mode="json"), schema_hash=schema.hash)


def _edited_table(folder: Path, value: float) -> None:
    raw = bytearray((folder / TABLES).read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = msgspec.json.decode(raw[8:start])
    begin = start + header["table_RE"]["data_offsets"][0] + 4 * 100
    raw[begin : begin + 4] = np.float32(value).tobytes()
    (folder / TABLES).write_bytes(raw)
    remade(folder)


def a_nan_in_the_table(folder: Path) -> None:
    _edited_table(folder, np.nan)


def an_infinity_in_the_table(folder: Path) -> None:
    _edited_table(folder, np.inf)


def a_nan_in_the_program(folder: Path) -> None:
    program = torch.jit.load(str(folder / PROGRAM))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        program.bias.fill_(float("nan"))
    torch.jit.save(program, str(folder / PROGRAM))
    remade(folder)


def golden_scores_not_numbers(folder: Path) -> None:
    raw = (folder / MANIFEST).read_bytes()
    raw = re.sub(rb'"scores": \[\s+[0-9.e-]+', b'"scores": [ "high"', raw, count=1)
    raw = re.sub(rb'"checksum": "[0-9a-f]+"', b'"checksum": ""', raw)
    digest = hashlib.sha256(raw).hexdigest().encode()
    (folder / MANIFEST).write_bytes(raw.replace(b'""', b'"' + digest + b'"', 1))


def other_weights(folder: Path) -> None:
    """Finite and well-formed, but not what the trainer saw: only the golden requests can tell."""
    program = torch.jit.load(str(folder / PROGRAM))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        program.deep.output.bias.add_(0.01)
    torch.jit.save(program, str(folder / PROGRAM))
    remade(folder)


def a_program_that_is_none(folder: Path) -> None:
    (folder / PROGRAM).write_bytes(b"PK\x03\x04" + bytes(500))
    remade(folder)


def another_program(folder: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(folder / PROGRAM))
    remade(folder)


def no_tables(folder: Path) -> None:
    (folder / TABLES).write_bytes((2).to_bytes(8, "little") + b"{}")
    remade(folder)


def tables_beyond_the_end(folder: Path) -> None:
    header = b'{"table_RE":{"dtype":"F32","shape":[400,9],"data_offsets":[0,14400]}}'
    (folder / TABLES).write_bytes(len(header).to_bytes(8, "little") + header)
    remade(folder)


def a_huge_header(folder: Path) -> None:
    (folder / TABLES).write_bytes((2**63).to_bytes(8, "little") + b"{}")
    remade(folder)


def nested_brackets(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"[" * 200_000)


def golden_of_another_kind(folder: Path) -> None:
    request = read_manifest(folder).golden[0]
    remade(folder, golden=[msgspec.structs.replace(request, user={"age": "old"})])


def golden_scores_missing(folder: Path) -> None:
    request = read_manifest(folder).golden[0]
    remade(folder, golden=[msgspec.structs.replace(request, scores=[])])


def no_golden(folder: Path) -> None:
    remade(folder, golden=[])


DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    ("hash", a_hole),
    *(("file", absent(file)) for file in FILES),
    *(("file", a_link(file)) for file in FILES),
    *(("file", a_fifo(file)) for file in FILES),
    *(("file", a_folder(file)) for file in FILES),
    ("hash", swapped_files),
    ("format", a_newer_format),
    ("hash", an_edited_manifest),
    ("hash", a_manifest_of_other_files),
    ("schema", a_wrong_schema),
    ("schema", a_broken_schema),
    ("golden", another_models_schema),
    ("finite", a_nan_in_the_table),
    ("finite", an_infinity_in_the_table),
    ("finite", a_nan_in_the_program),
    ("golden", other_weights),
    ("program", a_program_that_is_none),
    ("program", another_program),
    ("tables", no_tables),
    ("tables", tables_beyond_the_end),
    ("tables", a_huge_header),
    ("manifest", nested_brackets),
    ("golden", golden_of_another_kind),
    ("golden", golden_scores_missing),
    ("golden", no_golden),
    ("manifest", golden_scores_not_numbers),
]


@pytest.mark.parametrize(("reason", "damage"), DAMAGES, ids=[f"{r}-{n}" for n, (r, _) in enumerate(DAMAGES)])
def test_damage_is_refused_with_its_reason(folder: Path, reason: str, damage: Callable[[Path], None]) -> None:
    damage(folder)
    with pytest.raises(ArtifactError) as refused:
        load(folder)
    assert refused.value.reason == reason, str(refused.value)
    assert 10 < len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


def test_a_manifest_of_another_version_is_refused(folder: Path) -> None:
    remade(folder, version=6)
    assert load(folder, version=6).version == 6
    with pytest.raises(ArtifactError, match="of version 6, not 7") as refused:
        load(folder, version=7)
    assert refused.value.reason == "manifest"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
@pytest.mark.parametrize("file", FILES)
def test_a_file_without_permission_is_refused(folder: Path, file: str) -> None:
    (folder / file).chmod(0)
    with pytest.raises(ArtifactError, match="Permission denied"):
        load(folder)


def test_a_nan_model_is_not_even_written(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.table_RE[5, 2] = float("nan")
    with pytest.raises(ArtifactError) as refused:
        write(tmp_path, model, small_schema(), name="deepfm", golden=golden())
    assert refused.value.reason == "finite"


def test_the_manifest_proves_every_byte_of_itself(pristine: Path) -> None:
    manifest = read_manifest(pristine)
    raw = encode_manifest(manifest)
    assert decode_manifest(raw) == manifest
    assert raw == (pristine / MANIFEST).read_bytes(), "written alike whenever it is written"
    for tampered in (raw.replace(b" ", b"\t", 1), raw + b" ", raw.replace(manifest.checksum.encode(), b"")):
        with pytest.raises(ArtifactError) as refused:
            decode_manifest(tampered)
        assert refused.value.reason == "hash"


def test_a_manifest_with_fields_of_its_own_still_finds_its_checksum() -> None:
    manifest = Manifest(
        name="", version=1, format="ctr-torchscript-1", created_at="", architecture="", files={}, feature_schema={},
        schema_hash="0" * 64, golden=[], data={"checksum": "", "note": '""'},
    )  # fmt: skip
    assert decode_manifest(encode_manifest(manifest)).data == manifest.data


def test_a_vocabulary_of_one_machine_serves_another(tmp_path: Path) -> None:
    """Nothing of the writer's folder is kept: a version can be moved."""
    (tmp_path / "a").mkdir()
    write_tiny(tmp_path / "a")
    moved = (tmp_path / "a").rename(tmp_path / "b")
    assert str(tmp_path).encode() not in (moved / MANIFEST).read_bytes()
    assert load(moved).schema == fitted().schema
