"""The parts of a program that run compiled, if the program hands over their weights (`app.models.native_weights`)."""

from __future__ import annotations

import torch

from app.models.native_weights import TopMlpWeights, UserAffineWeights
from app.native.layout import Isa
from app.native.scorer import SUPPORTED_ISAS, StateLayout, TopMlpScorer
from app.native.user_encoder import NativeUserEncoder
from app.registry.artifact.positional_weights import named_top_mlp, named_user_affine
from app.registry.torchscript.served_program import ServedProgram


def scorers(program: ServedProgram) -> dict[torch.dtype, TopMlpScorer]:
    """Return the program's scorer for item states in each precision that is supported.

    The result is empty if the program computes scores in another way, or is wider than what is compiled; the program
    must then be called.
    """
    weights = _top_mlp(program)
    if weights is None:
        return {}
    layout = StateLayout(weights.hidden, weights.cross, weights.user_bias, weights.item_bias)
    layers = [(layer.weight.numpy(), layer.bias.numpy()) for layer in weights.layers]
    output = None
    if weights.output is not None:
        output = weights.output.weight[0].numpy(), float(weights.output.bias)
    scale, offset = program.calibration_2.tolist()
    parts = layout, layers, output, (scale, offset)
    try:
        by_precision = {torch.float32: TopMlpScorer(*parts)}
        if Isa.BFLOAT16 in SUPPORTED_ISAS:
            by_precision[torch.bfloat16] = TopMlpScorer(*parts, Isa.BFLOAT16)
    except ValueError:  # wider than what is compiled
        return {}
    return by_precision


def user_encoder(program: ServedProgram) -> NativeUserEncoder | None:
    """Return the program's compiled `encode_user`, or None if the program must be called."""
    weights = _user_affine(program)
    if weights is None:
        return None
    try:
        return NativeUserEncoder(
            program.user,
            program.vocabulary_V,
            program.table_RE,
            weights.weight_DI,
            weights.bias_D,
            weights.cross_start,
            weights.cross_width,
        )
    except ValueError:  # more than what is compiled
        return None


def _top_mlp(program: ServedProgram) -> TopMlpWeights | None:
    named = getattr(program, "top_mlp", None)
    weights: TopMlpWeights | None = named() if named is not None else named_top_mlp(program)
    return weights


def _user_affine(program: ServedProgram) -> UserAffineWeights | None:
    named = getattr(program, "user_affine", None)
    weights: UserAffineWeights | None = named() if named is not None else named_user_affine(program)
    return weights
