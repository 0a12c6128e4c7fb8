"""What every model promises, so that one trainer, one artifact and one service fit them all.

Shape suffixes, used in all of `app.models`:
    B examples (pairs of a request and an item)    N candidates of one request
    S slots of a side                              T slots after buckets were added (both sides where not said)
    F fields                                       K embedding size
    R rows of the embedding table                  V keys in the vocabulary
    D width of a state                             H width of the first deep layer

A model is one function of a (request, item) pair, written twice: plainly, as `forward`, and split, as
`score(encode_user(...), encode_items(...))`. The two agree to 1e-10 in float64 and 1e-5 in float32, which is tested for
every model and checked again on every published version.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from app.models.layers import Block
from app.models.side_input import Preprocessing, SideInput


class CtrModel(nn.Module):
    """Base of all models. Holds what they share: the vocabulary, one embedding table, both sides, the calibration.

    Column 0 of the table is the first-order weight w_s of a slot, columns 1..K its embedding v_s: one gather gets both.
    """

    name = "abstract"
    served = ("encode_user", "encode_items", "score", "score_users", "probability", "ranked", "tail", "user_map")
    """Methods the artifact exports beside `forward`."""
    tables: tuple[str, ...] = ("table_RE", "vocabulary_V")
    """Large tensors that are kept outside the program, memory-mapped."""

    vocabulary_V: Tensor
    calibration_2: Tensor

    def __init__(self, preprocessing: Preprocessing, dim: int = 8, init_std: float = 0.01) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("vocabulary_V", preprocessing.vocabulary_V.clone())
        self.user = SideInput(preprocessing, "user")
        self.item = SideInput(preprocessing, "item")
        table_RE = torch.randn(preprocessing.rows, 1 + dim) * init_std
        table_RE[:, 0] = 0.0
        self.table_RE = nn.Parameter(table_RE)
        self.bias = nn.Parameter(torch.zeros(1))
        # Platt scaling, p = sigmoid(a * logit + b); identity until the trainer fits it.
        self.register_buffer("calibration_2", torch.tensor([1.0, 0.0]))

    @classmethod
    def options(cls) -> dict[str, Any]:
        """What the constructor takes beside the preprocessing, with the defaults: an option it lacks is not its own."""
        parameters = list(inspect.signature(cls).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def fuse(self) -> None:
        """Take on the served form, in place: no dropout, batch norms folded into the linear maps before them."""
        for module in self.modules():
            if isinstance(module, Block):
                module.fuse()

    def forward(
        self, user_keys_BS: Tensor, user_values_BS: Tensor, item_keys_BS: Tensor, item_values_BS: Tensor
    ) -> Tensor:
        """The reference: logits [B] of B (request, item) pairs given their slots."""
        user_rows_BT, user_x_BT = self.user.expand(self.vocabulary_V, user_keys_BS, user_values_BS)
        item_rows_BT, item_x_BT = self.item.expand(self.vocabulary_V, item_keys_BS, item_values_BS)
        rows_BT, x_BT = torch.cat([user_rows_BT, item_rows_BT], 1), torch.cat([user_x_BT, item_x_BT], 1)
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
        """User states [B, D] from request-side slots."""
        raise NotImplementedError

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        """Item states [N, D] from item-side slots."""
        raise NotImplementedError

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        """Logits [N] of N candidates for one user."""
        raise NotImplementedError

    def score_rows(self, user_D: Tensor, states_CD: Tensor, rows_N: Tensor) -> Tensor:
        """Logits [N] of the candidates in these rows of a table of item states [C, D], which may be kept in bfloat16.

        A model may override it to work in the gathered copy, which is nobody else's, and in its precision.
        """
        return self.score(user_D, states_CD.index_select(0, rows_N).to(user_D.dtype))

    def score_users(self, users_UD: Tensor, items_PD: Tensor, counts: list[int]) -> Tensor:
        """Logits [P] of several requests at once: the first `counts[0]` items are the first user's, and so on.

        A model may override it to start as many operators as for one request. `items_PD` is nobody else's.
        """
        return self._one_by_one(users_UD, items_PD, counts)

    def _one_by_one(self, users_UD: Tensor, items_PD: Tensor, counts: list[int]) -> Tensor:
        scores: list[Tensor] = []
        for place, items_ND in enumerate(torch.split_with_sizes(items_PD, counts)):
            scores.append(self.score(users_UD[place], items_ND.to(users_UD.dtype)))
        return torch.cat(scores)

    def ranked(self, user_D: Tensor, states_CD: Tensor, rows_N: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [N], highest first, and each one's place among the rows. Ties keep order, NaN is first."""
        p_N = self.probability(self.score_rows(user_D, states_CD, rows_N))
        return torch.sort(p_N, stable=True, dim=0, descending=True)

    def tail(self) -> list[Tensor]:
        """What `score` does, where it is this and nothing else; the service then runs it compiled. Empty otherwise.

        A model that overrides `score` or `probability` has to override this too.

            logit = user_own + item_own + user_across . item_across
                  + output(relu(... W relu(user_hidden + item_hidden) + b))

        Returns:
            The numbers of columns [hidden, across, the user's own, the item's own] of the states, which are [hidden |
            across | own]; then weight and bias of each layer after the first, and of the output, all of them linear
            maps with a ReLU between.
        """
        return []

    def user_map(self) -> list[Tensor]:
        """What `encode_user` does, where it is a linear map of field vectors and numbers and the crosses within them.

        Returns:
            The map [D, I] and the offset [D] of [fields, flattened | numbers]; and the numbers [first, count] of the
            state's columns that are S, to whose last column 1/2 (|S|^2 - sum of |e_f|^2) is added. Empty otherwise.
        """
        return []

    def probability(self, logits_N: Tensor) -> Tensor:
        """Calibrated click probabilities [N]."""
        return torch.sigmoid(logits_N * self.calibration_2[0] + self.calibration_2[1])

    def fields(self, rows_BT: Tensor, x_BT: Tensor) -> Tensor:
        """Field vectors [B, F, 1 + K] of both sides, user fields first."""
        split = self.user.width
        slots_BTE = self._slots(rows_BT, x_BT)
        return torch.cat([self.user.pool(slots_BTE[:, :split]), self.item.pool(slots_BTE[:, split:])], 1)

    def user_fields(self, keys_BS: Tensor, values_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Field vectors [B, F, 1 + K] and numerics [B, M] of the request side."""
        rows_BT, x_BT = self.user.expand(self.vocabulary_V, keys_BS, values_BS)
        return self.user.pool(self._slots(rows_BT, x_BT)), self.user.numerics(x_BT)

    def item_fields(self, keys_NS: Tensor, values_NS: Tensor) -> tuple[Tensor, Tensor]:
        """Field vectors [N, F, 1 + K] and numerics [N, M] of the item side."""
        rows_NT, x_NT = self.item.expand(self.vocabulary_V, keys_NS, values_NS)
        return self.item.pool(self._slots(rows_NT, x_NT)), self.item.numerics(x_NT)

    def deep_inputs(self, fields_BFE: Tensor, x_BT: Tensor) -> Tensor:
        """What a deep part reads, [B, user width + item width]: each side's embeddings, then its numerics."""
        return self.deep_parts(fields_BFE[:, :, 1:], x_BT)

    def deep_parts(self, e_BFK: Tensor, x_BT: Tensor) -> Tensor:
        """The same from both sides' embeddings alone."""
        split, widths = self.user.width, [self.user.fields * self.dim, self.item.fields * self.dim]
        # One split, as each slice's gradient would be a zero tensor as large as what it was cut from.
        user_BD, item_BD = torch.split(e_BFK.flatten(1), widths, 1)
        user_BM, item_BM = self.user.numerics(x_BT[:, :split]), self.item.numerics(x_BT[:, split:])
        return torch.cat([user_BD, user_BM, item_BD, item_BM], 1)

    def deep_half(self, fields_BFE: Tensor, numerics_BM: Tensor) -> Tensor:
        """One side's part of it, from the side's field vectors and numerics."""
        return torch.cat([fields_BFE[:, :, 1:].flatten(1), numerics_BM], 1)

    def deep_widths(self) -> tuple[int, int]:
        """Widths of the user's and the item's part of `deep_inputs`."""
        return (
            self.user.fields * self.dim + self.user.numeric_fields,
            self.item.fields * self.dim + self.item.numeric_fields,
        )

    def _slots(self, rows_BT: Tensor, x_BT: Tensor) -> Tensor:
        return nn.functional.embedding(rows_BT, self.table_RE) * x_BT.to(self.table_RE.dtype).unsqueeze(-1)
