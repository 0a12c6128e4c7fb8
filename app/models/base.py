"""The contract of every model, so that one trainer, one artifact and one service fit them all.

Shape suffixes, used in all of `app.models`:
    B examples (pairs of a request and an item)    N candidates of one request
    S slots of a side                              T slots once buckets are appended (of both sides if not said)
    F field vectors                                K embedding size, E = 1 + K
    R rows of the embedding table                  V keys in the vocabulary
    M numeric fields of a side                     D width of a state or of a network's input
    H width of the first hidden layer              C columns crossed between the sides
The numbers x of a model that reads statistics across sides (`app.models.target_statistics`) have them behind the T.

A model is one function of a (request, item) pair, written twice: plainly, as `forward`, and split, as
`score(encode_user(...), encode_items(...))`. The two agree to 1e-10 in float64 and 1e-5 in float32, which is tested for
every model and checked again on every published version.
"""

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn

from app.models.native_weights import TopMlpWeights, UserAffineWeights
from app.models.preprocessing import Preprocessing
from app.models.side_input import SideInput, across_statistics
from app.models.target_statistics import AcrossStatistics


class CtrModel(nn.Module):
    """The base of all models: the vocabulary, one embedding table, both sides' inputs, and the calibration.

    Column 0 of the table is the first-order weight w_s of a slot, columns 1..K its embedding v_s: one gather gets both.
    """

    name = "abstract"
    required = ("encode_user", "encode_items", "score", "score_users", "probability", "ranked")
    """Methods beside `forward` that every published program has."""
    exported = (*required, "top_mlp", "user_affine")
    """Methods beside `forward` that programs are published with; those that are not required came later."""
    tables: tuple[str, ...] = ("table_RE", "vocabulary_V")
    """Large tensors that are kept outside the program, memory-mapped."""
    reads_across = False
    """Whether the model reads target statistics of pairs across sides, in the first layer of a network that it splits;
    others ignore them. The states of one that does end with what `with_user_rows` and `with_item_rows` append."""

    has_first_order = False
    """Whether `logits` adds sum_s w_s x_s and the bias, each once, so that a linear model's weights can be added, and
    positions are learned as offsets, with embeddings of zeros."""

    __constants__: tuple[str, ...] = ("has_across",)
    """A constant, so that a program without such statistics holds no branch for them."""

    vocabulary_V: Tensor
    calibration_2: Tensor

    def __init__(self, preprocessing: Preprocessing, dim: int = 8, init_std: float = 0.01) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("vocabulary_V", preprocessing.vocabulary_V.clone())
        self.user = SideInput(preprocessing, "user")
        self.item = SideInput(preprocessing, "item")
        across = across_statistics(preprocessing)
        self.across_width = across.width if self.reads_across else 0
        """C: numbers of the statistics across sides that the model reads."""
        self.has_across = self.across_width > 0
        self.across = across if self.has_across else cast(AcrossStatistics, nn.Identity())  # a program loads no more
        table_RE = torch.randn(preprocessing.rows, 1 + dim) * init_std
        table_RE[:, 0] = 0.0
        self.table_RE = nn.Parameter(table_RE)
        self.bias = nn.Parameter(torch.zeros(1))
        # Platt scaling, p = sigmoid(a * logit + b); identity until the trainer fits it.
        self.register_buffer("calibration_2", torch.tensor([1.0, 0.0]))

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Return the constructor's options beside the preprocessing, by name, with their defaults."""
        parameters = list(inspect.signature(cls).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def forward(
        self, user_keys_BS: Tensor, user_values_BS: Tensor, item_keys_BS: Tensor, item_values_BS: Tensor
    ) -> Tensor:
        """Compute logits [B] of B (request, item) pairs from their slots: the reference that the split must equal."""
        user_rows_BT, user_x_BT = self.user.expand(self.vocabulary_V, user_keys_BS, user_values_BS)
        item_rows_BT, item_x_BT = self.item.expand(self.vocabulary_V, item_keys_BS, item_values_BS)
        rows_BT, x_BT = torch.cat([user_rows_BT, item_rows_BT], 1), torch.cat([user_x_BT, item_x_BT], 1)
        if self.has_across:
            x_BT = torch.cat([x_BT, self.across(user_rows_BT, item_rows_BT).to(x_BT.dtype)], 1)
        return self.logits(rows_BT, x_BT, self.fields(rows_BT, x_BT))

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        """Compute logits [B].

        Args:
            rows_BT, x_BT: table rows and numbers, as `SideInput.expand` gives them, user side first.
            fields_BFE: their field vectors [B, F, 1 + K], as `fields` computes them. The trainer hands in vectors that
                it pooled itself, so that no gradient is as large as the table.
        """
        raise NotImplementedError

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        """Compute user states [B, D] from request-side slots."""
        raise NotImplementedError

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        """Compute item states [N, D] from item-side slots."""
        raise NotImplementedError

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        """Compute logits [N] of N candidates for one user."""
        raise NotImplementedError

    def score_rows(self, user_D: Tensor, states_CD: Tensor, rows_N: Tensor) -> Tensor:
        """Compute logits [N] of the candidates in these rows of a table of item states [C, D], maybe in bfloat16.

        A model may override it to work in place, in the gathered copy, and in its precision.
        """
        return self.score(user_D, states_CD.index_select(0, rows_N).to(user_D.dtype))

    def score_users(self, users_UD: Tensor, items_PD: Tensor, counts: list[int]) -> Tensor:
        """Compute logits [P] of several requests at once; the first `counts[0]` items are the first user's, and so on.

        A model may override it to start as many operators as for one request, and may write to `items_PD`.
        """
        scores: list[Tensor] = []
        for user, items_ND in enumerate(torch.split_with_sizes(items_PD, counts)):
            scores.append(self.score(users_UD[user], items_ND.to(users_UD.dtype)))
        return torch.cat(scores)

    def ranked(self, user_D: Tensor, states_CD: Tensor, rows_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities [N], highest first, and the position of each among the rows.

        Ties keep their order; NaN comes first.
        """
        p_N = self.probability(self.score_rows(user_D, states_CD, rows_N))
        return torch.sort(p_N, stable=True, dim=0, descending=True)

    def probability(self, logits_N: Tensor) -> Tensor:
        """Compute calibrated click probabilities [N]."""
        return torch.sigmoid(logits_N * self.calibration_2[0] + self.calibration_2[1])

    def top_mlp(self) -> TopMlpWeights | None:
        """Return the weights of `score` if it computes what `TopMlpWeights` says, else None.

        The service then runs it compiled. A model that overrides `score` or `probability` must override this too.
        """
        return None

    def user_affine(self) -> UserAffineWeights | None:
        """Return the weights of `encode_user` if it computes what `UserAffineWeights` says, else None.

        The service then runs it compiled.
        """
        return None

    def fields(self, rows_BT: Tensor, x_BT: Tensor) -> Tensor:
        """Compute the field vectors [B, F, 1 + K] of both sides, user side first."""
        split = self.user.width
        slots_BTE = self.slot_vectors(rows_BT, x_BT)
        return torch.cat([self.user.pool(slots_BTE[:, :split]), self.item.pool(slots_BTE[:, split:])], 1)

    def user_fields(self, keys_BS: Tensor, values_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the request side's field vectors [B, F, 1 + K] and numbers [B, M] from its slots."""
        rows_BT, x_BT = self.user.expand(self.vocabulary_V, keys_BS, values_BS)
        return self.user.pool(self.slot_vectors(rows_BT, x_BT)), self.user.numerics(x_BT)

    def item_fields(self, keys_NS: Tensor, values_NS: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the item side's field vectors [N, F, 1 + K] and numbers [N, M] from its slots."""
        rows_NT, x_NT = self.item.expand(self.vocabulary_V, keys_NS, values_NS)
        return self.item.pool(self.slot_vectors(rows_NT, x_NT)), self.item.numerics(x_NT)

    def slot_vectors(self, rows_BT: Tensor, x_BT: Tensor) -> Tensor:
        """Gather x_s [w_s, v_s], [B, T, 1 + K], of table rows and numbers."""
        x_BT = x_BT.narrow(1, 0, rows_BT.size(1)).to(self.table_RE.dtype)
        return nn.functional.embedding(rows_BT, self.table_RE) * x_BT.unsqueeze(-1)

    def deep_inputs(self, e_BFK: Tensor, x_BT: Tensor) -> Tensor:
        """Concatenate a deep network's input [B, user width + item width]: each side's embeddings, then its numbers.

        Args:
            e_BFK: embeddings of both sides' fields.
            x_BT: the numbers of both sides' slots.
        """
        split, widths = self.user.width, [self.user.fields * self.dim, self.item.fields * self.dim]
        # One split, as each slice's gradient would be a zero tensor as large as what it was cut from.
        user_BD, item_BD = torch.split(e_BFK.flatten(1), widths, 1)
        user_BM, item_BM = self.user.numerics(x_BT[:, :split]), self.item.numerics(x_BT[:, split:])
        return torch.cat([user_BD, user_BM, item_BD, item_BM], 1)

    def with_across(self, inputs_BD: Tensor, x_BT: Tensor) -> Tensor:
        """Append the statistics of pairs across sides, which are the last numbers of x, to a network's inputs."""
        if not self.has_across:
            return inputs_BD
        return torch.cat([inputs_BD, x_BT[:, -self.across_width :].to(inputs_BD.dtype)], 1)

    def with_user_rows(self, state_BD: Tensor, rows_BT: Tensor) -> Tensor:
        """Append to user states the table rows that statistics across sides are looked up by, if there are any."""
        if not self.has_across:
            return state_BD
        return torch.cat([state_BD, self.across.pack_user(rows_BT, state_BD)], 1)

    def with_item_rows(self, state_ND: Tensor, rows_NT: Tensor) -> Tensor:
        """Append to item states the table rows that statistics across sides are looked up by, if there are any."""
        if not self.has_across:
            return state_ND
        return torch.cat([state_ND, self.across.pack_items(rows_NT, state_ND)], 1)

    def split_states(self, user_D: Tensor, items_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take the appended rows off a user's and items' states, and look up the statistics [N, C] of their pairs."""
        if not self.has_across:
            return user_D, items_ND, items_ND.narrow(1, 0, 0)
        u, i = user_D.size(0) - self.across.user_packed, items_ND.size(1) - self.across.item_packed
        pair_NC = self.across.of_states(user_D[u:], items_ND[:, i:])
        return user_D[:u], items_ND[:, :i], pair_NC.to(items_ND.dtype)

    def side_deep_inputs(self, e_BFK: Tensor, numerics_BM: Tensor) -> Tensor:
        """Concatenate one side's part of `deep_inputs` from its embeddings and numbers."""
        return torch.cat([e_BFK.flatten(1), numerics_BM], 1)

    def deep_widths(self) -> tuple[int, int]:
        """Return the widths of the user's and the item's part of `deep_inputs`."""
        return (
            self.user.fields * self.dim + self.user.numeric_fields,
            self.item.fields * self.dim + self.item.numeric_fields,
        )
