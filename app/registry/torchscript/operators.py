"""The operators that a program may call: they compute with tensors and numbers, and reach nothing outside of them.

Those of the fourteen models are among them, and what a model of somebody's own may want of linear algebra, activations
and reductions. Left out is whatever writes (`save`, `print`), reads files, draws random numbers, starts threads or
changes a global state.
"""

from __future__ import annotations

_ARITHMETIC = """
abs add add_ sub mul mul_ div div_ neg floordiv floor_divide remainder fmod pow square sqrt rsqrt reciprocal exp expm1
log log1p log2 log10 sign sgn floor ceil round trunc frac clamp clamp_ clip clamp_min clamp_max maximum minimum fmax
fmin lerp addcmul addcdiv nan_to_num isnan isinf isfinite erf lgamma digamma sin cos tan tanh sinh cosh atan asin acos
logit
"""
_COMPARISON = """
eq ne lt le gt ge __and__ __or__ __xor__ __not__ __is__ __isnot__ __lshift__ __rshift__ __contains__ __getitem__
__derive_index __range_length bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift
logical_and logical_or logical_not logical_xor where any all equal
"""
_LINEAR_ALGEBRA = """
linear matmul mm mv bmm addmm addmv baddbmm addr dot outer einsum tensordot bilinear cdist cosine_similarity conv1d
conv2d embedding embedding_bag
"""
_ACTIVATIONS = """
relu relu_ leaky_relu prelu elu selu celu gelu silu mish softplus softsign hardtanh hardsigmoid hardswish sigmoid
sigmoid_ log_sigmoid tanh_ softmax log_softmax softmin glu threshold batch_norm layer_norm group_norm instance_norm
rms_norm normalize dropout scaled_dot_product_attention avg_pool1d max_pool1d adaptive_avg_pool1d
dropout_ leaky_relu_ elu_ selu_ celu_ silu_ mish_ hardtanh_ hardsigmoid_ hardswish_ threshold_ clamp_min_ clamp_max_
"""
_REDUCTIONS = """
sum mean max min amax amin argmax argmin prod std var norm cumsum cumprod logsumexp median quantile count_nonzero sort
argsort topk searchsorted bucketize unique_consecutive
"""
_SHAPES = """
size dim numel len shape reshape view view_as expand expand_as broadcast_to squeeze unsqueeze flatten unflatten
transpose t permute movedim swapaxes flip roll repeat repeat_interleave tile contiguous clone detach to type_as float
double half int long bool cat concat stack split split_with_sizes chunk unbind narrow slice select index index_select
index_put index_put_ index_copy index_copy_ index_add index_add_ index_fill index_fill_ gather take scatter
scatter_add scatter_add_ scatter_reduce masked_fill masked_fill_ masked_select diagonal tril triu as_tensor copy_
fill_ zero_ tensor zeros ones full empty arange linspace eye zeros_like ones_like full_like empty_like new_zeros
new_ones new_full new_empty pad item is_floating_point is_nonzero nonzero
"""
_CONTAINERS = """
append extend insert pop clear keys values items get list dict format join Int Float Bool FloatImplicit IntImplicit
ScalarImplicit
"""

OPERATORS = frozenset(
    " ".join((_ARITHMETIC, _COMPARISON, _LINEAR_ALGEBRA, _ACTIVATIONS, _REDUCTIONS, _SHAPES, _CONTAINERS)).split()
)
"""Operators of `torch`, and methods of tensors, lists and dicts."""
PRIMITIVES = frozenset(
    {"dtype", "device", "min", "max", "RaiseException", "is_cuda", "layout", "data", "unchecked_cast"}
)
"""Operators of `ops.prim`."""
BUILTINS = frozenset(
    {"annotate", "getattr", "isinstance", "range", "uninitialized", "unchecked_cast", "unwrap_optional"}
)
"""Names that are called without a namespace."""
