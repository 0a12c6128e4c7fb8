"""Neural collaborative filtering (He et al. 2017): what users and items have in common, learned by a network.

    neural_cf          logit = w0 + D([e_user, e_item])                            (eq. 10)
    neural_cf_towers   logit = w0 + a T_u(e_user) . T_i(e_item)

The first is the paper's: e_user and e_item are the embeddings of the two ids. With `ids_only=False` a side is all its
fields and numerics, as it is by default in the second, where two networks meet in one dot product (the form of Huang et
al. 2013 and of retrieval by nearest neighbours). A side without an id field is always all its fields.

Split, exactly.
    neural_cf          user state  [ W_u u + b (H) ]           item state  [ W_i i (H) ]
    neural_cf_towers   user state  [ a T_u(u) (D) | w0 ]       item state  [ T_i(i) (D) ]: the whole tower
"""

import torch
from torch import Tensor, nn

from app.features.fields import Side
from app.models.base import CtrModel
from app.models.field_selection import FieldSelection
from app.models.layers import Mlp, SplitMlp
from app.models.native_weights import AffineWeights, TopMlpWeights
from app.models.preprocessing import Preprocessing


def select_fields(preprocessing: Preprocessing, side: Side, dim: int, ids_only: bool) -> FieldSelection:
    """Return the side's id alone if it has one and `ids_only`, else all its fields and numbers."""
    layout = preprocessing.layout(side)
    if ids_only and layout.id_field is not None:
        return FieldSelection([list(layout.vectors).index(layout.id_field.name)], dim, 0)
    return FieldSelection(range(len(layout.vectors)), dim, len(layout.numerics) + len(layout.statistics))


class NeuralCF(CtrModel):
    """NeuralCF over concatenated embeddings; see the module for its formula and split."""

    name = "neural_cf"

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 8,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.2,
        batch_norm: bool = True,
        ids_only: bool = True,
    ) -> None:
        super().__init__(preprocessing, dim)
        self.user_selection = select_fields(preprocessing, "user", dim, ids_only)
        self.item_selection = select_fields(preprocessing, "item", dim, ids_only)
        self.deep = SplitMlp(self.user_selection.width, self.item_selection.width, hidden, dropout, batch_norm)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        split = self.user.width
        user_BD: Tensor = self.user_selection(fields_BFE[:, : self.user.fields], self.user.numerics(x_BT[:, :split]))
        item_BD: Tensor = self.item_selection(fields_BFE[:, self.user.fields :], self.item.numerics(x_BT[:, split:]))
        deep_B: Tensor = self.deep(torch.cat([user_BD, item_BD], 1))
        return self.bias + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, numerics_BM = self.user_fields(keys_BS, values_BS)
        return self.deep.user_half(self.user_selection(fields_BFE, numerics_BM))

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, numerics_NM = self.item_fields(keys_NS, values_NS)
        return self.deep.item_half(self.item_selection(fields_NFE, numerics_NM))

    def top_mlp(self) -> TopMlpWeights | None:
        layers, output = self.deep.top_weights()
        return TopMlpWeights(self.deep.hidden, 0, 0, 0, layers, AffineWeights(output.weight, output.bias + self.bias))

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        return self.bias + self.deep.output_of_halves(user_D, items_ND)


class NeuralCFTowers(CtrModel):
    """NeuralCF with a tower per side and their inner product; see the module for its formula and split."""

    name = "neural_cf_towers"

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 16,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.2,
        batch_norm: bool = True,
        ids_only: bool = False,
    ) -> None:
        """Build two towers whose outputs are as wide as the last of `hidden`."""
        super().__init__(preprocessing, dim)
        self.user_selection = select_fields(preprocessing, "user", dim, ids_only)
        self.item_selection = select_fields(preprocessing, "item", dim, ids_only)
        self.user_tower = Mlp(self.user_selection.width, hidden[:-1], hidden[-1], dropout, batch_norm)
        self.item_tower = Mlp(self.item_selection.width, hidden[:-1], hidden[-1], dropout, batch_norm)
        self.scale = nn.Parameter(torch.ones(1))

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        split = self.user.width
        user_BD: Tensor = self.user_tower(
            self.user_selection(fields_BFE[:, : self.user.fields], self.user.numerics(x_BT[:, :split]))
        )
        item_BD: Tensor = self.item_tower(
            self.item_selection(fields_BFE[:, self.user.fields :], self.item.numerics(x_BT[:, split:]))
        )
        return self.bias + self.scale * (user_BD * item_BD).sum(1)

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, numerics_BM = self.user_fields(keys_BS, values_BS)
        user_BD: Tensor = self.scale * self.user_tower(self.user_selection(fields_BFE, numerics_BM))
        return torch.cat([user_BD, self.bias.expand(user_BD.shape[0], 1)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, numerics_NM = self.item_fields(keys_NS, values_NS)
        item_ND: Tensor = self.item_tower(self.item_selection(fields_NFE, numerics_NM))
        return item_ND

    def top_mlp(self) -> TopMlpWeights | None:
        return TopMlpWeights(0, self.item_tower.output.out_features, 1, 0, [], None)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        return torch.mv(items_ND, user_D[:-1]) + user_D[-1]
