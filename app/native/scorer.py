"""The dense tail of a version, compiled: from rows of item states to probabilities in order, in one call.

    logit = user_own + item_own + user_across . item_across + output(relu(... W relu(user_hidden + item_hidden) + b))

It is what `CtrModel.tail` describes. The processor's vector registers and caches decide how weights are laid out, so
they are copied; a program of forty operators, each looked up and started, takes twice as long for 100 candidates.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from app.native import bindings
from app.native.bindings import MAX_LAYERS, MAX_WIDTH

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


class Weights(Protocol):
    """A float32 tensor, or an array."""

    def data_ptr(self) -> int: ...


class Kind(IntEnum):
    """Of a compiled tail: the processor it is for, and the precision of states and weights."""

    BASE = 0
    AVX2 = 1
    AVX512 = 2
    BFLOAT16 = 3
    """Needs AVX-512 BF16; products of bfloat16, everything else in float32."""


KINDS = tuple(kind for kind in Kind if bindings.kinds() >> kind & 1)
"""What this processor can run."""
BEST = max(set(KINDS) - {Kind.BFLOAT16})
"""In float32."""


class Shape(NamedTuple):
    """Of the states: their columns are [hidden | across | own], own being one column or, where it is 0, none."""

    hidden: int
    across: int
    user_own: int = 1
    item_own: int = 1

    @property
    def user_width(self) -> int:
        return self.hidden + self.across + self.user_own

    @property
    def item_width(self) -> int:
        return self.hidden + self.across + self.item_own


class Tail:
    """One version's. Immutable, for any thread."""

    def __init__(
        self,
        shape: Shape,
        layers: list[tuple[Floats, Floats]],
        output: tuple[Floats, float] | None,
        calibration: tuple[float, float],
        kind: Kind = BEST,
    ) -> None:
        """
        Args:
            layers: weights [width, depth] and biases [width] of the hidden layers after the first.
            output: weights [depth] and bias of the output; None where there is no hidden layer at all.
            calibration: a and b of p = sigmoid(a logit + b).
            kind: one of `KINDS`.

        Raises:
            ValueError: more or wider layers than are supported, or one that does not fit the one before.
        """
        self.shape = shape
        self.kind = kind
        tile = bindings.tile(kind)
        widths = [shape.hidden, *(len(bias) for _, bias in layers)]
        if len(layers) > MAX_LAYERS or max(widths) > MAX_WIDTH:
            raise ValueError(f"at most {MAX_LAYERS} layers of at most {MAX_WIDTH}, not {widths}")
        outputs = [] if output is None else [len(output[0])]
        if [weight.shape[1] for weight, _ in layers] + outputs != widths[: len(layers) + len(outputs)]:
            raise ValueError(f"layers of {widths} do not follow each other")
        self._kept: list[npt.NDArray[Any]] = []
        self._struct = struct = bindings.TailStruct(*shape, width=shape.item_width, layers=len(layers))
        struct.a, struct.b = calibration
        for place, (weight, bias) in enumerate(layers):
            padded = _up(len(bias), tile)
            panels = self._keep(_panels(weight, tile, kind))
            struct.layer[place] = bindings.Layer(
                panels, self._keep(np.pad(bias, (0, padded - len(bias)))), len(bias), padded
            )
        if output is not None:
            weight_D, struct.output_bias = output
            struct.last_width = _up(len(weight_D), tile)
            struct.output = self._keep(np.pad(weight_D, (0, struct.last_width - len(weight_D))))
        self._pointer = ctypes.addressof(struct)

    def rank(self, user_D: Weights, states_CD: Weights, row_N: Places) -> tuple[Floats, Places]:
        """Probabilities [N], highest first, and each one's place among the rows. Ties keep order, NaN is first.

        Args:
            user_D, states_CD: contiguous, as wide as the shape says; float32, the states bfloat16 for that kind.
            row_N: rows of `states_CD`, every one of them in it: nothing here checks that.
        """
        n = len(row_N)
        block_4N = np.empty(4 * n, np.int64)  # places, scores and room to sort: to ask numpy for an address takes 1 us
        start = block_4N.ctypes.data
        bindings.rank(
            self._pointer,
            self.kind,
            states_CD.data_ptr(),
            row_N.ctypes.data,
            n,
            user_D.data_ptr(),
            start + n * 8,
            start,
            start + n * 16,
        )
        return block_4N[n : 2 * n].view(np.float32)[:n], block_4N[:n]

    def _keep(self, array: npt.NDArray[Any]) -> int:
        kept = np.ascontiguousarray(array)
        self._kept.append(kept)
        return kept.ctypes.data


def _panels(weight_WD: Floats, tile: int, kind: Kind) -> npt.NDArray[Any]:
    """A layer's weights as its kind reads them: [panels, depth, tile], or bfloat16 [panels, depth / 2, tile, 2]."""
    pair = 2 if kind is Kind.BFLOAT16 else 1
    width, depth = weight_WD.shape
    padded_WD = np.zeros((_up(width, tile), _up(depth, pair)), np.float32)
    padded_WD[:width, :depth] = weight_WD
    panels = padded_WD.reshape(-1, tile, padded_WD.shape[1] // pair, pair).transpose(0, 2, 1, 3).copy()
    if kind is Kind.BFLOAT16:
        return torch.from_numpy(panels).to(torch.bfloat16).view(torch.int16).numpy()
    return panels


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
