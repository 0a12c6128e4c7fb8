"""The manifest proves every byte of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import ArtifactError
from app.registry.artifact.manifest import (
    MANIFEST,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from app.registry.artifact.manifest_file import read_manifest


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
