"""Compatibility: weights for the compiled scorers in programs published before they were named.

Such programs have `tail` and `user_map`, which return positional lists of tensors, empty where the program must be
called:

    tail       [numbers of columns: hidden, cross, user bias, item bias]; weight and bias of each hidden layer after the
               first; weight and bias of the output. The latter two only if there is a network.
    user_map   weight [D, I] and bias [D] of the affine map; [first column of S, number of its columns].
"""

from __future__ import annotations

from app.models.native_weights import AffineWeights, TopMlpWeights, UserAffineWeights


def named_top_mlp(program: object) -> TopMlpWeights | None:
    """Name what `tail` returns; None if the program has no such method, or must be called."""
    tensors = program.tail() if hasattr(program, "tail") else []
    if not tensors:
        return None
    hidden, cross, user_bias, item_bias = tensors[0].tolist()
    maps = [AffineWeights(weight, bias) for weight, bias in zip(tensors[1::2], tensors[2::2], strict=True)]
    output = maps.pop() if maps else None
    return TopMlpWeights(hidden, cross, user_bias, item_bias, maps, output)


def named_user_affine(program: object) -> UserAffineWeights | None:
    """Name what `user_map` returns; None if the program has no such method, or must be called."""
    tensors = program.user_map() if hasattr(program, "user_map") else []
    if not tensors:
        return None
    weight_DI, bias_D, columns_2 = tensors
    cross_start, cross_width = columns_2.tolist()
    return UserAffineWeights(weight_DI, bias_D, cross_start, cross_width)
