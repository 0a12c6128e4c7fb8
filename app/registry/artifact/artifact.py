"""One version on disk: written from a trained model, read back into something that scores.

The program (TorchScript, small) and the tables (safetensors, memory-mapped and shared by all processes) are two files;
`manifest.json` beside them proves both. Only this module and `app.registry.torchscript.incremental_import` call
torch.jit (docs/adr/0001); `app.registry.artifact.export` writes a version with what is here,
`app.registry.artifact.mapped_file` opens its files.
"""

from __future__ import annotations

import copy
import hashlib
import io
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.errors import ArtifactError, EncodingError, SchemaError
from app.features.encoder import Encoder
from app.features.item_index import Rows
from app.features.schema import FeatureSchema, schema_from_json
from app.features.slots import Slots
from app.models.base import CtrModel
from app.native.scorer import Floats, Positions
from app.registry.artifact import native_scorers
from app.registry.artifact.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PROGRAM,
    TABLES,
    FileProof,
    Manifest,
    decode_manifest,
)
from app.registry.artifact.mapped_file import Mapped, parse_tables
from app.registry.artifact.signing import Trust
from app.registry.artifact.version_lock import Hold
from app.registry.torchscript import incremental_import as pieces
from app.registry.torchscript.program_cache import Programs
from app.runtime.thread_pacer import SLICE_BYTES, throttle

MAX_PROGRAM_BYTES = 1 << 30
GOLDEN_TOLERANCE = 1e-5
SPLIT_TOLERANCE = 1e-5

_load_lock = threading.Lock()
torch._C._jit_set_profiling_mode(False)  # else the first calls of each size are 10x slower


def load_program(raw: bytes, device: torch.device) -> Any:
    """The program of an archive, with the interpreter held for as short as it can be. Raises what torch.jit raises."""
    try:
        return pieces.load(raw, device)
    except Exception:  # what is wrong with it, if anything is, is for torch to say
        return torch.jit.load(io.BytesIO(raw), map_location=device)  # type: ignore[no-untyped-call]


_programs = Programs(load_program)


class Artifact:
    """A loaded version: encoders, program and manifest. Immutable; methods may be called from any thread."""

    def __init__(
        self, manifest: Manifest, schema: FeatureSchema, program: Any, device: torch.device, manifest_sha256: str
    ) -> None:
        self.manifest = manifest
        self.manifest_sha256 = manifest_sha256
        """Of the manifest's bytes as read: the manifest proves the rest, so this tells any two versions apart."""
        self.schema = schema
        self.user_encoder = Encoder(schema, "user")
        self.item_encoder = Encoder(schema, "item")
        self.device = device
        self.program = program
        # Asked on each request: to look a method of a program up costs as much as an operator.
        self._encode_user, self._ranked = program.encode_user, program.ranked
        self._on_cpu = device.type == "cpu"
        self._tails = native_scorers.tails(program) if self._on_cpu else {}
        self._user_state = native_scorers.user_state(program) if self._on_cpu else None
        self.hold: Hold | None = None
        """Keeps the folder from being pruned while this lives."""

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def schema_hash(self) -> str:
        return self.manifest.schema_hash

    @property
    def sha256(self) -> str:
        """Of the program file."""
        return self.manifest.files[PROGRAM].sha256

    # Nothing here asks for gradients; the ranker enters inference mode once for all it does with a version.

    def encode_user(self, slots: Slots) -> Tensor:
        """One user's slots [S] to the user state [D]."""
        if self._user_state is not None:
            return self._user_state(slots.keys, slots.values)
        keys_1S, values_1S = self._tensor(slots.keys[None]), self._tensor(slots.values[None])
        return self._encode_user(keys_1S, values_1S).view(-1)  # type: ignore[no-any-return]

    def encode_items(self, slots: Slots) -> Tensor:
        """N items' slots [N, S] to item states [N, D]."""
        return self.program.encode_items(self._tensor(slots.keys), self._tensor(slots.values))  # type: ignore[no-any-return]

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        """Calibrated click probabilities [N]."""
        return self.program.probability(self.program.score(user_D, items_ND))  # type: ignore[no-any-return]

    def ranked(self, user_D: Tensor, states_CD: Tensor, row_N: Rows) -> tuple[Floats, Positions]:
        """Calibrated probabilities [N] of candidates by their rows among item states [C, D], highest first, and the
        place [N] of each among the rows. Ties keep their order; NaN comes first."""
        tail = self._tails.get(states_CD.dtype)
        if tail is not None:
            return tail.ranked(user_D, states_CD, row_N)
        return _arrays(*self._ranked(user_D, states_CD, self._tensor(row_N)))

    def probabilities(self, users_UD: Tensor, items_PD: Tensor, counts: list[int]) -> Tensor:
        """Calibrated probabilities [P] of several requests, `counts` items each, in one call; `items_PD` is used up."""
        return self.program.probability(self.program.score_users(users_UD, items_PD, counts))  # type: ignore[no-any-return]

    def pairs(self, users: Slots, items: Slots) -> Tensor:
        """Probabilities [B] of B pairs of slots [B, S] by the plain `forward`: the reference, for checks."""
        slots = [self._tensor(array) for array in (*users, *items)]
        return self.program.probability(self.program(*slots))  # type: ignore[no-any-return]

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._on_cpu else tensor.to(self.device)

    def reference(self, user: Slots, items: Slots) -> Tensor:
        """The same for one user's slots [S] and N items' [N, S]."""
        n = len(items.keys)
        return self.pairs(Slots(np.repeat(user.keys[None], n, 0), np.repeat(user.values[None], n, 0)), items)

    def check(self) -> None:
        """Replay the golden requests, all ways. Raises ArtifactError("golden" | "split" | "finite").

        Each way is compiled by its first call, for some 5 ms of the processor, and so rests by itself.
        """
        if not self.manifest.golden:
            raise ArtifactError("golden", "the manifest holds no golden requests to replay")
        for number, golden in enumerate(self.manifest.golden):
            try:
                user = self.user_encoder.encode(golden.user, golden.user_id)
                items = self.item_encoder.encode_many(golden.items, golden.item_ids)
                user_D = self.encode_user(user)
                throttle()
                items_ND = self.encode_items(items)
                throttle()
                split_N = self.score(user_D, items_ND).cpu()
                throttle()
                plain_N = self.reference(user, items).cpu()
                throttle()
                widths = user_D.shape[-1], items_ND.shape[-1]
                for tail in self._tails.values():
                    if widths != (tail.state_layout.user_width, tail.state_layout.item_width):
                        raise ValueError(f"states of {widths} columns do not fit the tail of {tail.state_layout}")
                served_2N = self._served(user_D, items_ND)
                throttle()
            except (RuntimeError, ValueError, IndexError, EncodingError) as error:
                raise ArtifactError("golden", f"golden request {number} fails: {_last_line(error)}") from error
            if not bool(torch.isfinite(split_N).all()):
                raise ArtifactError("finite", f"golden request {number} has scores that are not finite")
            if len(golden.scores) != len(split_N):
                raise ArtifactError(
                    "golden", f"golden request {number}: {len(split_N)} scores, not {len(golden.scores)}"
                )
            difference = float((split_N - torch.tensor(golden.scores)).abs().max())
            if not difference <= GOLDEN_TOLERANCE:
                raise ArtifactError("golden", f"golden request {number} differs by {difference:.2g}")
            difference = float((split_N - plain_N).abs().max())
            if not difference <= SPLIT_TOLERANCE:
                raise ArtifactError("split", f"split and forward differ by {difference:.2g} on golden request {number}")
            difference = float((served_2N - split_N).abs().max())
            if not difference <= SPLIT_TOLERANCE:
                raise ArtifactError("split", f"ranked and score differ by {difference:.2g} on golden request {number}")

    def _served(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        """Probabilities [2, N] by the two routes that answer requests, which are compiled by it."""
        with torch.inference_mode():
            ranked_N, place_N = map(torch.from_numpy, self.ranked(user_D, items_ND, np.arange(len(items_ND))))
            throttle()
            together_N = self.probabilities(user_D.unsqueeze(0), items_ND.clone(), [len(items_ND)])
            return torch.stack([torch.empty_like(ranked_N).index_copy_(0, place_N, ranked_N), together_N.cpu()])


def descending(p_N: Tensor) -> tuple[Floats, Positions]:
    """Probabilities [N] as `Artifact.ranked` gives them."""
    return _arrays(*torch.sort(p_N, stable=True, descending=True))


def _arrays(score_N: Tensor, place_N: Tensor) -> tuple[Floats, Positions]:
    return score_N.cpu().numpy(), place_N.cpu().numpy()


def _proof_of(manifest: Manifest, file: str) -> FileProof:
    if file not in manifest.files:
        raise ArtifactError("manifest", f"the manifest names no {file}")
    return manifest.files[file]


def serving_form(model: CtrModel) -> CtrModel:
    """A copy ready to be exported: evaluation mode, float32, batch norms folded, nothing that asks for gradients."""
    copied = copy.deepcopy(model).cpu().float().eval()
    copied.fuse()
    return copied.requires_grad_(False)


def load(
    folder: Path,
    device: torch.device | str = "cpu",
    *,
    version: int | None = None,
    name: str | None = None,
    trust: Trust | None = None,
    manifest_sha256: str | None = None,
) -> Artifact:
    """Read, verify and check a version.

    Args:
        version: refuse a manifest that says it is another version.
        name: the model it is served as; with `trust`, a manifest of another name is refused too.
        trust: refuse what is not signed by one of its keys, before anything is parsed.
        manifest_sha256: refuse another manifest than that one, whose signature somebody else has checked.

    Raises:
        ArtifactError: anything at all is wrong with it; `reason` says which check refused it.
    """
    hold = Hold(folder / MANIFEST)
    raw = read_manifest_bytes(folder)
    if trust is not None:
        trust.check_manifest(folder, raw)
    digest = hashlib.sha256(raw).hexdigest()
    if manifest_sha256 not in (None, digest):
        raise ArtifactError("hash", "the manifest changed while it was looked at")
    manifest = decode_manifest(raw)
    if version is not None and manifest.version != version:
        # Where it has a good signature it was one of ours, and somebody has put it in another one's place.
        reason = "manifest" if trust is None else "replayed"
        raise ArtifactError(reason, f"the manifest is of version {manifest.version}, not {version}")
    if trust is not None and name is not None and manifest.name != name:
        raise ArtifactError("replayed", f"the manifest is of a model called {manifest.name}, not {name}")
    artifact = assemble(folder, manifest, torch.device(device), digest)
    artifact.hold = hold
    artifact.check()
    return artifact


def verify(folder: Path) -> None:
    """Only that the files are those the manifest names; nothing of the version is run. Raises ArtifactError."""
    manifest = read_manifest(folder)
    for file in (PROGRAM, TABLES):
        with Mapped(folder / file) as mapped:
            mapped.verify(_proof_of(manifest, file))


def read_manifest(folder: Path, trust: Trust | None = None) -> Manifest:
    """Raises ArtifactError."""
    raw = read_manifest_bytes(folder)
    if trust is not None:
        trust.check_manifest(folder, raw)
    return decode_manifest(raw)


def read_manifest_bytes(folder: Path) -> bytes:
    """Raises ArtifactError("file")."""
    with Mapped(folder / MANIFEST, MAX_MANIFEST_BYTES) as mapped:
        return bytes(mapped.view)


def assemble(folder: Path, manifest: Manifest, device: torch.device, manifest_sha256: str = "") -> Artifact:
    """What the manifest proves, verified and put together, but not asked anything yet. Raises ArtifactError."""
    try:
        schema = schema_from_json(manifest.feature_schema)
    except SchemaError as error:
        raise ArtifactError("schema", f"the feature schema does not fit: {str(error).splitlines()[0]}") from error
    if schema.hash != manifest.schema_hash:
        raise ArtifactError("schema", "the feature schema does not have the hash the manifest says")
    with Mapped(folder / PROGRAM, MAX_PROGRAM_BYTES) as mapped:
        mapped.verify(_proof_of(manifest, PROGRAM))
        program_bytes = bytes(mapped.view)
    tables_file = Mapped(folder / TABLES)
    tables_file.verify(_proof_of(manifest, TABLES))
    tables = parse_tables(tables_file)
    if {name: list(table.shape) for name, table in tables.items()} != manifest.tables:
        raise ArtifactError("tables", f"{TABLES} does not hold the tables the manifest names")
    with _load_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            program = _programs(program_bytes, device)
            absent = [name for name in (*CtrModel.served, *tables) if not hasattr(program, name)]
            if absent:
                raise ValueError(f"it has no {absent}")
            for name, table in tables.items():
                setattr(program, name, table.to(device))
            program.eval()
            for parameter in program.parameters():
                parameter.requires_grad_(False)
        except (RuntimeError, ValueError, AttributeError) as error:
            raise ArtifactError("program", f"{PROGRAM} cannot be loaded: {_last_line(error)}") from error
    for name, tensor in [*program.named_parameters(), *program.named_buffers()]:  # the tables are among the buffers
        if tensor.is_floating_point() and not name.endswith("borders_GQ"):  # whose rows are padded with infinity
            _check_finite(name, tensor)
    try:
        return Artifact(manifest, schema, program, device, manifest_sha256)
    except SchemaError as error:
        raise ArtifactError("schema", f"the feature schema does not fit: {error}") from error


def scripted(served: CtrModel) -> bytes:
    """TorchScript of the model with its tables replaced by empty ones of the same kind."""
    shell = copy.copy(served)
    shell._parameters, shell._buffers = dict(served._parameters), dict(served._buffers)
    for table in served.tables:
        tensor = getattr(served, table)
        shell._parameters.pop(table, None)
        shell._buffers[table] = torch.zeros((1, *tensor.shape[1:]), dtype=tensor.dtype)
    for method in served.served:
        torch.jit.export(getattr(type(served), method))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(shell), buffer)
    return buffer.getvalue()


def _last_line(error: Exception) -> str:
    """TorchScript puts a traceback of its own before what went wrong."""
    return (str(error).strip().splitlines() or [repr(error)])[-1][:200]


def _check_finite(name: str, tensor: Tensor) -> None:
    for piece in torch.split(tensor.reshape(-1), SLICE_BYTES // tensor.itemsize):
        if not bool(torch.isfinite(piece).all()):
            raise ArtifactError("finite", f"{name} holds weights that are not finite")
        throttle()
