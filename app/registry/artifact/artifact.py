"""One loaded version: its encoders, its program, its manifest, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.features.encoder import Encoder
from app.features.item_index import Rows
from app.features.schema import FeatureSchema
from app.features.slots import Slots
from app.native.scorer import Floats, Positions, TopMlpScorer
from app.registry.artifact import native_scorers
from app.registry.artifact.manifest import PROGRAM, Manifest
from app.registry.artifact.version_lock import VersionLock
from app.registry.torchscript.served_program import ServedProgram


class Artifact:
    """A loaded version. It is immutable; any thread may call its methods.

    Nothing here asks for gradients; the ranker enters inference mode once for all that it does with a version.
    """

    def __init__(
        self,
        manifest: Manifest,
        schema: FeatureSchema,
        program: ServedProgram,
        device: torch.device,
        manifest_sha256: str,
        version_lock: VersionLock | None = None,
    ) -> None:
        """
        Args:
            program: the model, with the version's tables attached.
            manifest_sha256: of the manifest's bytes as read.
            version_lock: keeps the folder from being pruned while this object lives.
        """
        self.manifest = manifest
        self.manifest_sha256 = manifest_sha256
        """The manifest proves all other files, so this tells any two versions apart."""
        self.schema = schema
        self.user_encoder = Encoder(schema, "user")
        self.item_encoder = Encoder(schema, "item")
        self.device = device
        self.program = program
        # Bound once, because looking up a method of a program costs a request as much as an operator.
        self._program_encode_user, self._program_ranked = program.encode_user, program.ranked
        self._on_cpu = device.type == "cpu"
        self.scorers: Mapping[torch.dtype, TopMlpScorer] = native_scorers.scorers(program) if self._on_cpu else {}
        """The compiled scorers by the precision of item states; empty if the program has to score."""
        self._native_user_encoder = native_scorers.user_encoder(program) if self._on_cpu else None
        self._version_lock = version_lock

    @property
    def version(self) -> int:
        """The number of the version in its store; 0 before it is published."""
        return self.manifest.version

    @property
    def schema_hash(self) -> str:
        """The hash of the feature schema."""
        return self.manifest.schema_hash

    @property
    def program_sha256(self) -> str:
        """The SHA-256 of the program file."""
        return self.manifest.files[PROGRAM].sha256

    def encode_user(self, slots: Slots) -> Tensor:
        """Encode one user's slots [S] to the user state [D]."""
        if self._native_user_encoder is not None:
            return self._native_user_encoder(slots.keys, slots.values)
        keys_1S, values_1S = self._tensor(slots.keys[None]), self._tensor(slots.values[None])
        return self._program_encode_user(keys_1S, values_1S).view(-1)

    def encode_items(self, slots: Slots) -> Tensor:
        """Encode N items' slots [N, S] to item states [N, D]."""
        return self.program.encode_items(self._tensor(slots.keys), self._tensor(slots.values))

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        """Compute calibrated click probabilities [N] by the program."""
        return self.program.probability(self.program.score(user_D, items_ND))

    def ranked(self, user_D: Tensor, states_CD: Tensor, row_N: Rows) -> tuple[Floats, Positions]:
        """Compute what a request is answered with: probabilities [N], highest first, and each one's position [N].

        Ties keep their order; NaN comes first.

        Args:
            states_CD: a table of item states.
            row_N: the candidates' rows in it.
        """
        scorer = self.scorers.get(states_CD.dtype)
        if scorer is not None:
            return scorer.ranked(user_D, states_CD, row_N)
        return _arrays(*self._program_ranked(user_D, states_CD, self._tensor(row_N)))

    def score_users(self, users_UD: Tensor, items_PD: Tensor, counts: list[int]) -> Tensor:
        """Compute calibrated probabilities [P] of several requests in one call.

        Args:
            items_PD: the states of each request's items, one request after the other; they are overwritten.
            counts: the number of items of each request.
        """
        return self.program.probability(self.program.score_users(users_UD, items_PD, counts))

    def logits_of_pairs(self, users: Slots, items: Slots) -> Tensor:
        """Compute logits [B], before calibration, of B pairs of slots [B, S] by the plain `forward`."""
        return self.program(*(self._tensor(array) for array in (*users, *items)))

    def score_rows(self, users: Slots, items: Slots) -> Tensor:
        """Compute probabilities [B] of B pairs of slots [B, S] as requests of one candidate each are answered."""
        users_BD = self._program_encode_user(self._tensor(users.keys), self._tensor(users.values))
        return self.score_users(users_BD, self.encode_items(items), [1] * len(users.keys))

    def score_pairs(self, users: Slots, items: Slots) -> Tensor:
        """Compute probabilities [B] of B pairs of slots [B, S] by the plain `forward`, the reference for checks."""
        return self.program.probability(self.logits_of_pairs(users, items))

    def score_by_forward(self, user: Slots, items: Slots) -> Tensor:
        """Compute probabilities [N] of one user's slots [S] and N items' [N, S] by the plain `forward`."""
        n = len(items.keys)
        return self.score_pairs(Slots(np.repeat(user.keys[None], n, 0), np.repeat(user.values[None], n, 0)), items)

    def _tensor(self, array: npt.NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._on_cpu else tensor.to(self.device)


def sort_descending(p_N: Tensor) -> tuple[Floats, Positions]:
    """Sort probabilities [N] as `Artifact.ranked` does."""
    return _arrays(*torch.sort(p_N, stable=True, descending=True))


def _arrays(score_N: Tensor, position_N: Tensor) -> tuple[Floats, Positions]:
    return score_N.cpu().numpy(), position_N.cpu().numpy()
