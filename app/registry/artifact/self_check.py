"""The check of a loaded version by itself: golden requests are replayed, and all ways to score them have to agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.errors import ArtifactError, EncodingError
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.manifest import GoldenRequest
from app.runtime.thread_pacer import throttle

GOLDEN_TOLERANCE = 1e-5
SPLIT_TOLERANCE = 1e-5


def replay_golden_requests(artifact: Artifact) -> None:
    """Score the golden requests in every way: as when they were written, plainly, and as requests are answered.

    The first call of each way compiles it, in some 5 ms of the processor, so the thread is throttled after each.

    Raises:
        ArtifactError: with the reason `golden`, `split` or `finite`.
    """
    if not artifact.manifest.golden:
        raise ArtifactError("golden", "the manifest holds no golden requests to replay")
    for number, golden in enumerate(artifact.manifest.golden):
        try:
            split_N, plain_N, served_2N = _score(artifact, golden)
        except (RuntimeError, ValueError, IndexError, EncodingError) as error:
            raise ArtifactError("golden", f"golden request {number} fails: {last_line(error)}") from error
        _check_positions(artifact, golden, number)
        if not bool(torch.isfinite(split_N).all()):
            raise ArtifactError("finite", f"golden request {number} has scores that are not finite")
        if len(golden.scores) != len(split_N):
            message = f"golden request {number}: {len(split_N)} scores, not {len(golden.scores)}"
            raise ArtifactError("golden", message)
        difference = _difference(split_N, torch.tensor(golden.scores))
        if not difference <= GOLDEN_TOLERANCE:
            raise ArtifactError("golden", f"golden request {number} differs by {difference:.2g}")
        difference = _difference(split_N, plain_N)
        if not difference <= SPLIT_TOLERANCE:
            raise ArtifactError("split", f"split and forward differ by {difference:.2g} on golden request {number}")
        difference = _difference(served_2N, split_N)
        if not difference <= SPLIT_TOLERANCE:
            raise ArtifactError("split", f"ranked and score differ by {difference:.2g} on golden request {number}")


def _check_positions(artifact: Artifact, golden: GoldenRequest, number: int) -> None:
    """Raise ArtifactError if what a request sends or the store has for a position changes what is scored."""
    encoder = artifact.user_encoder
    held = encoder.encode(golden.user, golden.user_id)
    for name in dict.fromkeys(field.raw_name for field in encoder.fields if field.is_position):
        for sent in ("1", 2, 1000, None):
            given = {**golden.user, name: sent}
            for slots in (encoder.encode(given, golden.user_id), encoder.patch(held, {name: sent})):
                if not (np.array_equal(slots.keys, held.keys) and _same_values(slots.values, held.values)):
                    message = f"golden request {number}: its scores depend on {name}, which is held at its serve_as"
                    raise ArtifactError("golden", message)


def _same_values(values_S: npt.NDArray[np.float32], others_S: npt.NDArray[np.float32]) -> bool:
    return np.array_equal(values_S, others_S, equal_nan=True)


def _score(artifact: Artifact, golden: GoldenRequest) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities [N] by `score`, [N] by the plain `forward`, and [2, N] by the two ways that answer requests."""
    user = artifact.user_encoder.encode(golden.user, golden.user_id)
    items = artifact.item_encoder.encode_many(golden.items, golden.item_ids)
    user_D = artifact.encode_user(user)
    throttle()
    items_ND = artifact.encode_items(items)
    throttle()
    split_N = artifact.score(user_D, items_ND).cpu()
    throttle()
    plain_N = artifact.score_by_forward(user, items).cpu()
    throttle()
    widths = user_D.shape[-1], items_ND.shape[-1]
    for scorer in artifact.scorers.values():
        if widths != (scorer.state_layout.user_width, scorer.state_layout.item_width):
            raise ValueError(f"states of {widths} columns do not fit the scorer of {scorer.state_layout}")
    served_2N = _score_as_requests(artifact, user_D, items_ND)
    throttle()
    return split_N, plain_N, served_2N


def _score_as_requests(artifact: Artifact, user_D: Tensor, items_ND: Tensor) -> Tensor:
    """Probabilities [2, N] of a request by itself and of one in a batch."""
    with torch.inference_mode():
        score_N, position_N = map(torch.from_numpy, artifact.ranked(user_D, items_ND, np.arange(len(items_ND))))
        throttle()
        batched_N = artifact.score_users(user_D.unsqueeze(0), items_ND.clone(), [len(items_ND)])
        return torch.stack([torch.empty_like(score_N).index_copy_(0, position_N, score_N), batched_N.cpu()])


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def last_line(error: Exception) -> str:
    """Return the last line of an error's message: TorchScript puts a traceback of its own before what went wrong."""
    return (str(error).strip().splitlines() or [repr(error)])[-1][:200]
