"""Draw dropout masks on the CPU from 16 random bits a number, so the probability is exact to 1 / 65,536.

torch draws every number of a mask by itself, which costs as much as a layer's product.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from app.models.layers import Dropout


class DropoutMasks:
    """Draws seeded masks (`app.models.layers.MaskSource`) for all dropout layers of a model."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.SFC64(seed)

    def __call__(self, x: Tensor, p: float) -> Tensor:
        """Draw a mask of x's shape and dtype: 0 with probability p, else 1 / (1 - p)."""
        mask = (self.bits(x.numel()) >= keep_threshold(p)).astype(np.float32)
        return torch.from_numpy(mask).to(x.dtype).view(x.shape).mul_(keep_scale(p))

    def bits(self, count: int) -> npt.NDArray[np.uint16]:
        """Draw 16 random bits for each of `count` numbers."""
        words: npt.NDArray[np.uint64] = self._generator.random_raw(-(-count // 4))
        return words.view(np.uint16)[:count]

    def state(self) -> Tensor:
        """Return the generator's state as int64 numbers, for a checkpoint."""
        state = self._generator.state
        words = [*state["state"]["state"].tolist(), state["has_uint32"], state["uinteger"]]
        return torch.from_numpy(np.array(words, np.uint64).view(np.int64))

    def load(self, state: Tensor) -> None:
        """Restore a state that `state` returned."""
        *words, has_uint32, uinteger = state.numpy().view(np.uint64).tolist()
        current = self._generator.state
        current["state"]["state"] = np.array(words, np.uint64)
        current["has_uint32"], current["uinteger"] = has_uint32, uinteger
        self._generator.state = current


def keep_threshold(p: float) -> int:
    """Return the least value of 16 random bits with which a number is kept, for dropout with probability p."""
    return round(p * (1 << 16))


def keep_scale(p: float) -> float:
    """Return the factor of the numbers that dropout keeps, so that their expectation stays."""
    return 1.0 / (1.0 - p) if p < 1 else 0.0


def set_mask_source(model: nn.Module, masks: DropoutMasks | None) -> None:
    """Let all dropout layers of a model draw from `masks`; None gives them back to torch's generator."""
    for layer in model.modules():
        if isinstance(layer, Dropout):
            layer.mask_source = masks
