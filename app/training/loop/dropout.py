"""Dropout for processors: torch draws each number of a mask by itself, which costs as much as a layer's product.

16 random bits decide a number, so the share is right to 1 / 65,536.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


class Masks:
    """Draws the masks of all dropout layers of a model in training."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        self._layers = [layer for layer in model.modules() if type(layer) is nn.Dropout and layer.p > 0]
        self._bits = np.random.SFC64(seed)
        for layer in self._layers:
            # An attribute of the instance hides the method of the class.
            layer.__dict__["forward"] = _Dropout(layer, self._bits)

    def layer(self, layer: nn.Module) -> _Dropout | None:
        """What draws for a layer; None where it drops nothing."""
        return layer.__dict__["forward"] if any(layer is other for other in self._layers) else None

    def state(self) -> Tensor:
        state = self._bits.state
        words = [*state["state"]["state"].tolist(), state["has_uint32"], state["uinteger"]]
        return torch.from_numpy(np.array(words, np.uint64).view(np.int64))

    def load(self, state: Tensor) -> None:
        *words, half, rest = state.numpy().view(np.uint64).tolist()
        known = self._bits.state
        known["state"]["state"] = np.array(words, np.uint64)
        known["has_uint32"], known["uinteger"] = half, rest
        self._bits.state = known

    def close(self) -> None:
        """Give the layers back their own way."""
        for layer in self._layers:
            layer.__dict__.pop("forward", None)


class _Dropout:
    def __init__(self, layer: nn.Dropout, bits: np.random.SFC64) -> None:
        self._layer, self._bits = layer, bits
        self.start = round(layer.p * (1 << 16))
        """From these 16 bits on a number is kept."""
        self.scale = 1.0 / (1.0 - layer.p) if layer.p < 1 else 0.0

    def __call__(self, x_BD: Tensor) -> Tensor:
        if not self._layer.training:
            return x_BD
        kept = (self.bits(x_BD.numel()) >= self.start).astype(np.float32)
        return x_BD * torch.from_numpy(kept).to(x_BD.dtype).view(x_BD.shape).mul_(self.scale)

    def bits(self, count: int) -> npt.NDArray[np.uint16]:
        """16 random bits for each of so many numbers."""
        words: npt.NDArray[np.uint64] = self._bits.random_raw(-(-count // 4))
        return words.view(np.uint16)[:count]
