"""The weights that models hand to the compiled scorers, by name. They travel inside the published program."""

from typing import NamedTuple

from torch import Tensor


class AffineWeights(NamedTuple):
    """An affine map W x + b."""

    weight: Tensor
    bias: Tensor


class TopMlpWeights(NamedTuple):
    """Weights of a `score` over states [hidden | cross | bias] that the native scorer can run.

        logit = user_bias + item_bias + user_cross . item_cross
              + output(relu(... W relu(user_hidden + item_hidden) + b))

    Fields are ordered as the columns of the states are.
    """

    hidden: int
    """Number of hidden columns, H; 0 if there is no network."""
    cross: int
    """Number of columns whose dot product is taken."""
    user_bias: int
    """Number of bias columns of a user state: 1 or 0."""
    item_bias: int
    """Number of bias columns of an item state: 1 or 0."""
    layers: list[AffineWeights]
    """The hidden layers after the first, W [outputs, inputs] and b [outputs], each followed by a ReLU."""
    output: AffineWeights | None
    """The output layer, W [1, inputs] and b [1]; None if there is no network."""


class UserAffineWeights(NamedTuple):
    """The weights of an `encode_user` that is an affine map of [field vectors, flattened | numbers] and S's crosses.

    1/2 (|S|^2 - sum of |e_f|^2) (Rendle 2010, lemma 3.1) is added to the state's last column.
    """

    weight_DI: Tensor
    bias_D: Tensor
    cross_start: int
    """First column of S, the sum of the fields' embeddings, in the state."""
    cross_width: int
    """Number of columns of S: K."""
