"""The compiled scorer of a version: rows of item states to probabilities in order, in one call.

    logit = user_bias + item_bias + user_cross . item_cross + output(relu(... W relu(user_hidden + item_hidden) + b))

`CtrModel.top_mlp` describes which models compute this. The weights are copied, because the processor's vector registers
decide how they are laid out. A program of forty operators, each looked up and started, takes twice as long for 100
candidates.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from app.native import bindings, layout
from app.native.layout import MAX_LAYERS, MAX_WIDTH, Isa

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

SUPPORTED_ISAS = tuple(isa for isa in Isa if bindings.supported_isas() >> isa & 1)
"""The instruction sets that this processor can run."""
BEST_FLOAT32_ISA = max(set(SUPPORTED_ISAS) - {Isa.BFLOAT16})


class HasDataPointer(Protocol):
    """A contiguous tensor, by its address."""

    def data_ptr(self) -> int: ...


class StateLayout(NamedTuple):
    """The columns of user and item states: [hidden | cross | bias], where a bias is one column or none (0)."""

    hidden: int
    cross: int
    user_bias: int = 1
    item_bias: int = 1

    @property
    def user_width(self) -> int:
        """The number of columns of a user state."""
        return self.hidden + self.cross + self.user_bias

    @property
    def item_width(self) -> int:
        """The number of columns of an item state."""
        return self.hidden + self.cross + self.item_bias


class TopMlpScorer:
    """The compiled scorer of one version for one instruction set. It is immutable; any thread may call it."""

    def __init__(
        self,
        state_layout: StateLayout,
        layers: list[tuple[Floats, Floats]],
        output: tuple[Floats, float] | None,
        calibration: tuple[float, float],
        isa: Isa = BEST_FLOAT32_ISA,
    ) -> None:
        """
        Args:
            layers: weights [width, depth] and biases [width] of the hidden layers after the first.
            output: weights [depth] and bias of the output; None if there is no hidden layer at all.
            calibration: a and b of p = sigmoid(a logit + b).
            isa: one of `SUPPORTED_ISAS`.

        Raises:
            ValueError: there are more or wider layers than are supported, or one does not fit the one before.
        """
        self.state_layout = state_layout
        self.isa = isa
        columns = bindings.panel_columns(isa)
        widths = [state_layout.hidden, *(len(bias) for _, bias in layers)]
        if len(layers) > MAX_LAYERS or max(widths) > MAX_WIDTH:
            raise ValueError(f"at most {MAX_LAYERS} layers of at most {MAX_WIDTH}, not {widths}")
        outputs = [] if output is None else [len(output[0])]
        if [weight.shape[1] for weight, _ in layers] + outputs != widths[: len(layers) + len(outputs)]:
            raise ValueError(f"layers of {widths} do not follow each other")
        self._arrays: list[npt.NDArray[np.generic]] = []
        """The memory that the structure points to."""
        self._struct = struct = layout.TopMlp(*state_layout, item_width=state_layout.item_width, layers=len(layers))
        struct.calibration_scale, struct.calibration_offset = calibration
        for number, (weight, bias) in enumerate(layers):
            padded = _round_up(len(bias), columns)
            panels = self._address(_panels(weight, columns, isa))
            bias_pointer = self._address(np.pad(bias, (0, padded - len(bias))))
            struct.layer[number] = layout.Layer(panels, bias_pointer, len(bias), padded)
        if output is not None:
            weight_D, struct.output_bias = output
            struct.output_width = _round_up(len(weight_D), columns)
            struct.output_weight = self._address(np.pad(weight_D, (0, struct.output_width - len(weight_D))))
        self._pointer = ctypes.addressof(struct)

    def ranked(self, user_D: HasDataPointer, states_CD: HasDataPointer, row_N: Positions) -> tuple[Floats, Positions]:
        """Score N candidates: probabilities [N], highest first, and the position [N] of each among the rows.

        Ties keep their order; NaN comes first.

        Args:
            user_D, states_CD: contiguous and as wide as `state_layout` says; float32, but the states are bfloat16 for
                `Isa.BFLOAT16`.
            row_N: rows of `states_CD`; they are not checked to be in it.
        """
        n = len(row_N)
        # One array for positions, scores and scratch space, because asking numpy for an address takes 1 us.
        block_4N = np.empty(4 * n, np.int64)
        start = block_4N.ctypes.data
        bindings.ranked(
            self._pointer,
            self.isa,
            states_CD.data_ptr(),
            row_N.ctypes.data,
            n,
            user_D.data_ptr(),
            start + n * 8,
            start,
            start + n * 16,
        )
        return block_4N[n : 2 * n].view(np.float32)[:n], block_4N[:n]

    def _address(self, array: npt.NDArray[np.generic]) -> int:
        """Keep a contiguous copy of the array for as long as this object lives, and return its address."""
        contiguous = np.ascontiguousarray(array)
        self._arrays.append(contiguous)
        return contiguous.ctypes.data


def _panels(weight_WD: Floats, columns: int, isa: Isa) -> npt.NDArray[np.generic]:
    """Lay a layer's weights out as C reads them: [panels, depth, columns]; bfloat16 [panels, depth / 2, columns, 2]."""
    pair = 2 if isa is Isa.BFLOAT16 else 1
    width, depth = weight_WD.shape
    padded_WD = np.zeros((_round_up(width, columns), _round_up(depth, pair)), np.float32)
    padded_WD[:width, :depth] = weight_WD
    panels = padded_WD.reshape(-1, columns, padded_WD.shape[1] // pair, pair).transpose(0, 2, 1, 3).copy()
    if isa is Isa.BFLOAT16:
        return torch.from_numpy(panels).to(torch.bfloat16).view(torch.int16).numpy()
    return panels


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
