"""FinalMLP (Mao et al. 2023): two networks that see the inputs through different gates, fused bilinearly.

    h_1 = 2 sigmoid(G_1(u)) * x,   h_2 = 2 sigmoid(G_2(i)) * x,   x = [u, i]         (stream-specific feature selection)
    o_1 = D_1(h_1),   o_2 = D_2(h_2)                                                                    (two streams)
    logit = w0 + w_1 . o_1 + w_2 . o_2 + sum over heads o_1h^T W_h o_2h                   (stream-level bilinear fusion)

u and i are the sides' embeddings and numerics; the gates G are networks with one hidden layer: stream 1 is gated by the
user, stream 2 by the item.

Split as far as it goes, exactly. With gates g = [g_u, g_i] on the two parts of x, the first layer of stream 1 is
W_u (g_u * u) + b, which is the user's, plus W_i diag(g_i) i, a product of the item's x with a matrix made per request.
In stream 2 the item's W_i (g_i * i) + b is precomputed, and W_u diag(u) g_u, a product of the same kind, remains.
    user state  [ stream 1: W_u (g_u*u) + b (H), g_i (I) | stream 2: u (U) ]
    item state  [ stream 1: i (I) | stream 2: W_i (g_i*i) + b (H), g_u (U) ]
"""

import math

import torch
from torch import Tensor, nn

from app.models.base import CtrModel
from app.models.layers import Mlp, SplitBlocks
from app.models.preprocessing import Preprocessing

GATE_HIDDEN = 64


class FinalMLP(CtrModel):
    """Two gated streams under a bilinear fusion; see the module for its formula and split."""

    name = "finalmlp"
    reads_across = True

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 8,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.2,
        batch_norm: bool = True,
        heads: int = 4,
    ) -> None:
        """Give both streams the layers `hidden`, and as many heads, at most `heads`, as divide the last one evenly."""
        super().__init__(preprocessing, dim)
        u, i = self.deep_widths()
        self.user_width, self.item_width = u, i
        self.user_gate = Mlp(u, (GATE_HIDDEN,), u + i, 0.0, False)
        self.item_gate = Mlp(i, (GATE_HIDDEN,), u + i, 0.0, False)
        self.user_stream = SplitBlocks(u, i, hidden, dropout, batch_norm, self.across_width)
        self.item_stream = SplitBlocks(u, i, hidden, dropout, batch_norm)
        outputs = self.user_stream.outputs
        self.heads = math.gcd(max(heads, 1), outputs)
        head = outputs // self.heads
        self.linear = nn.Linear(2 * outputs, 1)
        self.bilinear_HOO = nn.Parameter(torch.randn(self.heads, head, head) / head)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        x_BD = self.deep_inputs(fields_BFE[:, :, 1:], x_BT)
        user_gate_BD: Tensor = self.user_gate(x_BD[:, : self.user_width])
        item_gate_BD: Tensor = self.item_gate(x_BD[:, self.user_width :])
        gated_BD = 2 * torch.sigmoid(user_gate_BD) * x_BD
        user_BO = self.user_stream.last_hidden(self.with_across(gated_BD, x_BT))
        item_BO = self.item_stream.last_hidden(2 * torch.sigmoid(item_gate_BD) * x_BD)
        return self.bias + self._bilinear_fusion(user_BO, item_BO)

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        rows_BT, x_BT = self.user.expand(self.vocabulary_V, keys_BS, values_BS)
        fields_BFE, numerics_BM = self.user.pool(self.slot_vectors(rows_BT, x_BT)), self.user.numerics(x_BT)
        user_BU = self.side_deep_inputs(fields_BFE[:, :, 1:], numerics_BM)
        gate_BD = 2 * torch.sigmoid(self.user_gate(user_BU))
        hidden_BH = self.user_stream.user_half(gate_BD[:, : self.user_width] * user_BU)
        return self.with_user_rows(torch.cat([hidden_BH, gate_BD[:, self.user_width :], user_BU], 1), rows_BT)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        rows_NT, x_NT = self.item.expand(self.vocabulary_V, keys_NS, values_NS)
        fields_NFE, numerics_NM = self.item.pool(self.slot_vectors(rows_NT, x_NT)), self.item.numerics(x_NT)
        item_NI = self.side_deep_inputs(fields_NFE[:, :, 1:], numerics_NM)
        gate_ND = 2 * torch.sigmoid(self.item_gate(item_NI))
        hidden_NH = self.item_stream.item_half(gate_ND[:, self.user_width :] * item_NI)
        hidden_NH = hidden_NH + self.item_stream.first.linear.bias
        return self.with_item_rows(torch.cat([item_NI, hidden_NH, gate_ND[:, : self.user_width]], 1), rows_NT)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        user_D, items_ND, pair_NC = self.split_states(user_D, items_ND)
        u, i, h = self.user_width, self.item_width, self.user_stream.hidden
        # A gate on the columns of x is a gate on the columns of W, so one small matrix is scaled and not N rows.
        user_weight_HI = self.user_stream.first.linear.weight[:, u : u + i] * user_D[h : h + i]
        item_weight_HU = self.item_stream.first.linear.weight[:, :u] * user_D[h + i :]
        user_NH = self.user_stream.with_pairs(torch.matmul(items_ND[:, :i], user_weight_HI.t()), pair_NC)
        user_NO = self.user_stream.last_hidden_of_halves(user_D[:h], user_NH)
        gated_NH = torch.matmul(items_ND[:, i + h :], item_weight_HU.t())
        item_NO = self.item_stream.last_hidden_of_halves(gated_NH, items_ND[:, i : i + h])
        return self.bias + self._bilinear_fusion(user_NO, item_NO)

    def _bilinear_fusion(self, user_BO: Tensor, item_BO: Tensor) -> Tensor:
        linear_B1: Tensor = self.linear(torch.cat([user_BO, item_BO], 1))
        split = [user_BO.shape[0], self.heads, user_BO.shape[1] // self.heads]
        bilinear_BHO = torch.einsum("bhi,hio->bho", user_BO.reshape(split), self.bilinear_HOO)
        return linear_B1.squeeze(-1) + (bilinear_BHO * item_BO.reshape(split)).sum((1, 2))
