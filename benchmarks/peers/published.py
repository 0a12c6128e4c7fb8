"""Reads the weights of a version of `ctr synth` as plain arrays, for a peer's own model, and the peers' options."""

from __future__ import annotations

import json
import warnings
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file
from xxhash import xxh3_64_intdigest

Array = npt.NDArray[np.float32]


@dataclass
class Published:
    """A DeepFM whose fields are all categorical."""

    user_fields: list[str]
    item_fields: list[str]
    embedding: Array
    """[R, K]"""
    first_order: Array
    """[R]"""
    bias: float
    layers: list[tuple[Array, Array]]
    """Weight [out, in] and bias [out] of each layer of the deep part; the last is the output."""
    keys: npt.NDArray[np.int64]

    @property
    def fields(self) -> list[str]:
        """All fields, those of the user first."""
        return self.user_fields + self.item_fields

    def row(self, field: str, value: str) -> int:
        """Return the table row of a field's value, or of the field's unknown values if the vocabulary lacks it."""
        digest = xxh3_64_intdigest(f"{field}\x1f{value}".encode())
        key = digest - 2**64 if digest >= 2**63 else digest
        position = int(np.searchsorted(self.keys, key))
        in_vocabulary = position < len(self.keys) and self.keys[position] == key
        return position + len(self.fields) if in_vocabulary else self.fields.index(field)

    def vocabulary(self, field: str, cardinality: int) -> dict[str, int]:
        """Return value to table row, for the values "0" to "cardinality-1"."""
        return {str(value): self.row(field, str(value)) for value in range(cardinality)}


def read(version: Path) -> Published:
    """Read the weights from a version's folder."""
    manifest = json.loads((version / "manifest.json").read_bytes())
    tables = load_file(version / "tables.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.jit.load(version / "model.pt")  # type: ignore[no-untyped-call]
        dense = {name: tensor.numpy() for name, tensor in program.named_parameters()}
    names = sorted({name.removesuffix(".weight") for name in dense if name.endswith(".weight")}, key=_depth)
    fields = manifest["feature_schema"]["fields"]
    return Published(
        user_fields=[field["name"] for field in fields if field["entity"] == "user"],
        item_fields=[field["name"] for field in fields if field["entity"] == "item"],
        embedding=np.ascontiguousarray(tables["table_RE"][:, 1:]),
        first_order=np.ascontiguousarray(tables["table_RE"][:, 0]),
        bias=float(dense["bias"][0]),
        layers=[(dense[f"{name}.weight"], dense[f"{name}.bias"]) for name in names],
        keys=tables["vocabulary_V"],
    )


def _depth(name: str) -> tuple[int, int]:
    """Return a sort key for the order `deep.first.linear`, `deep.rest.0.linear`, ..., `deep.output`."""
    parts = name.split(".")
    return ("first", "rest", "output").index(parts[1]), int(parts[2]) if parts[1] == "rest" else 0


def options() -> Namespace:
    """Read the options of a peer from the command line."""
    parser = ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--version", type=Path, required=True, help="folder of a published version")
    parser.add_argument("--redis", required=True, help="URL of the store")
    parser.add_argument("--cardinality", type=int, required=True, help="distinct values of each field")
    return parser.parse_args()
