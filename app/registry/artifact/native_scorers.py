"""What of a program is run compiled, where the program says that it can be (`CtrModel.tail`, `CtrModel.user_map`)."""

from __future__ import annotations

from typing import Any

import torch

from app.native.layout import Isa
from app.native.scorer import SUPPORTED_ISAS, StateLayout, TopMlpScorer
from app.native.user_encoder import NativeUserEncoder


def tails(program: Any) -> dict[torch.dtype, TopMlpScorer]:
    """The program's tail, compiled for item states in each precision; none where the program has to be called."""
    weights = [weight.numpy() for weight in program.tail()]
    if not weights:
        return {}
    shape, *maps = weights
    pairs = list(zip(maps[::2], maps[1::2], strict=True))
    a, b = program.calibration_2.tolist()
    output = (pairs[-1][0][0], float(pairs[-1][1][0])) if pairs else None
    parts = StateLayout(*shape.tolist()), pairs[:-1], output, (a, b)
    try:
        found = {torch.float32: TopMlpScorer(*parts)}
        if Isa.BFLOAT16 in SUPPORTED_ISAS:
            found[torch.bfloat16] = TopMlpScorer(*parts, Isa.BFLOAT16)
    except ValueError:  # wider than what is compiled
        return {}
    return found


def user_state(program: Any) -> NativeUserEncoder | None:
    """The program's `encode_user`, compiled; None where the program has to be called."""
    parts = program.user_map()
    if not parts:
        return None
    map_DI, offset_D, crossed_2 = parts
    try:
        tables = program.vocabulary_V, program.table_RE
        return NativeUserEncoder(program.user, *tables, map_DI, offset_D, *crossed_2.tolist())
    except ValueError:  # more than what is compiled
        return None
