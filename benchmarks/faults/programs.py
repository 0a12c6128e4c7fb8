"""Programs of versions that do more than compute, or unpack to more than memory holds."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from app.registry.artifact.manifest import PROGRAM, FileProof
from app.registry.artifact.manifest_file import read_manifest, write_manifest
from app.registry.store.model_store import ModelStore
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.live_tables import NAME, copied_store
from benchmarks.faults.row import Check, Row
from benchmarks.process import ctr

BOMB_BYTES = 1_500_000_000
PIECE = b"\0" * (1 << 20)
PEAK_MB = 1200
"""A publication's memory, of which torch takes 400 MB."""


def _hostile_programs(bed: FaultBed) -> Sequence[Check]:
    checks = []
    with copied_store(bed, "hostile") as (service, store):
        before_mb = service.process.resident_mb()
        for what, make in (("writes a file", _writes_a_file), ("unpacks to 1.5 GB", _bomb)):
            mark = bed.testbed.folder / f"stolen-{make.__name__}"
            folder = bed.testbed.folder / f"hostile{make.__name__}"
            shutil.copytree(store.path(2), folder)
            _make_writable(folder)
            make(folder / PROGRAM, mark)
            _prove_anew(folder)
            code, said, took_s, peak_mb = _publish_measured(bed, store, folder)
            checks += [
                Check(f"one that {what}: `ctr publish` exits {code} in {took_s:.1f} s: {said[-120:]}", code == 1),
                Check(f"{peak_mb:.0f} MB at most (of {PEAK_MB})", peak_mb <= PEAK_MB),
            ]
            # A version that somebody copies into the store, with a pointer to it, passes no gate but the service's own.
            number = store.versions()[-1] + 1
            shutil.copytree(folder, store.path(number))
            _number(store.path(number), number)
            store.update_pointer(stable=number)
            refused = service.holds_within(lambda health: bool(health["model"]["problems"]), 20)
            problems = service.health()["model"]["problems"]
            answer = service.rank("1", ["1", "2"])
            checks += [
                Check(
                    f"put into the store: {problems[0]['reason'] if problems else 'not refused'}, version "
                    f"{answer.json().get('version')} answers",
                    refused is not None and answer.json().get("version") == 1,
                ),
                Check("it wrote its file" if mark.exists() else "it wrote nothing", not mark.exists()),
            ]
            store.update_pointer(stable=1)
        grown = service.process.resident_mb() - before_mb
    checks.append(Check(f"the service has {grown:.0f} MB more (at most 100)", grown <= 100))
    return checks


def _make_writable(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o644)


def _writes_a_file(program: Path, mark: Path) -> None:
    """Have `forward` write a file, in the program's own code."""
    with zipfile.ZipFile(program) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, content in members.items():
        if name.endswith(".py") and b"def forward(self" in content:
            source = content.decode()
            start = source.index("def forward(self")
            first = source.index("\n", source.index("-> Tensor:", start)) + 1
            members[name] = (
                source[:first] + f'    torch.save([1], "{mark}")\n    print("hostile")\n' + source[first:]
            ).encode()
    with zipfile.ZipFile(program, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _bomb(program: Path, _: Path) -> None:
    """Add a member of zeros, which deflate to a thousandth."""
    with zipfile.ZipFile(program, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        top = archive.namelist()[0].partition("/")[0]
        with archive.open(f"{top}/data/9999", "w") as member:
            for _ in range(BOMB_BYTES // len(PIECE)):
                member.write(PIECE)


def _prove_anew(folder: Path) -> None:
    """Write the manifest with the program's new hash, as whoever made it would."""
    manifest = read_manifest(folder)
    raw = (folder / PROGRAM).read_bytes()
    proof = FileProof(hashlib.sha256(raw).hexdigest(), len(raw))
    write_manifest(folder, msgspec.structs.replace(manifest, files={**manifest.files, PROGRAM: proof}))


def _number(folder: Path, version: int) -> None:
    write_manifest(folder, msgspec.structs.replace(read_manifest(folder), version=version))


def _publish_measured(bed: FaultBed, store: ModelStore, folder: Path) -> tuple[int, str, float, float]:
    """Publish; return exit status, what was said, the seconds, and the memory of its largest process in MB."""
    command = [ctr(), "publish", str(folder), "--model", NAME, "--model-store", str(store.folder.parent), "--force"]
    began = time.monotonic()
    said = bed.testbed.folder / f"{folder.name}.log"
    with said.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, "CTR_REDIS_URL": bed.testbed.redis_url}, stdout=output, stderr=output
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    peak_mb = _megabytes(used)
    return process.returncode, said.read_text().strip(), time.monotonic() - began, peak_mb


def _megabytes(used: resource.struct_rusage) -> float:
    return used.ru_maxrss / 1024


ROWS = (
    Row(
        "hostile-programs",
        "a TorchScript file that writes files, or unpacks to 1.5 GB",
        "refused before anything of it runs, sizes bounded before unpacking",
        _hostile_programs,
        "found",
    ),
)
