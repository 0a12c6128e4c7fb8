"""DeepFM as SparrowRecSys teaches it: four chosen crosses, joined with the deep part at one neuron.

    logit = w0 + sum_s w_s x_s + sum over four crosses c = (f, g) of a_c e_f . e_g + v . h([e_movie, e_user, numerics])

The crosses are movie.user, movie genre.user genre, movie genre.user and movie.user genre. They and h, the last hidden
layer, are concatenated before one sigmoid neuron (a_c and v are its weights) where Guo et al. 2017 sum the parts. Its
first order and deep part know the four fields and the numerics; here the first order is of every field of the schema.
`app.models.field_roles.find_roles` finds the four fields, unless they are named.

Split, exactly; the crosses are e_movie . (a_1 e_user + a_4 e_user_genre) + e_movie_genre . (a_2 e_user_genre + a_3
e_user).
    user state  [ W_u u + b (H) | the two sums (2 K) | w0 + first order ]
    item state  [ W_i i (H)     | e_movie, e_movie_genre (2 K) | first order ]
"""

import torch
from torch import Tensor

from app.features.fields import SIDES
from app.models.base import CtrModel
from app.models.field_roles import find_roles
from app.models.field_selection import FieldSelection
from app.models.layers import SplitMlp
from app.models.native_weights import TopMlpWeights
from app.models.pairwise import chosen_or_all_pairs
from app.models.preprocessing import Preprocessing


class DeepFMSparrow(CtrModel):
    """SparrowRecSys's DeepFM; see the module for its formula and split."""

    name = "deepfm_sparrow"
    has_first_order = True

    def __init__(
        self,
        preprocessing: Preprocessing,
        dim: int = 10,
        hidden: tuple[int, ...] = (64, 64),
        dropout: float = 0.2,
        batch_norm: bool = True,
        movie: str | None = None,
        user: str | None = None,
        movie_genre: str | None = None,
        user_genre: str | None = None,
    ) -> None:
        """Raise ConfigError if the schema lacks a field that is named, or has nothing to cross."""
        super().__init__(preprocessing, dim)
        schema = preprocessing.schema
        roles = find_roles(schema, movie, user, movie_genre, user_genre)
        pairs = [
            (roles.movie, roles.user),
            (roles.movie_genre, roles.user_genre),
            (roles.movie_genre, roles.user),
            (roles.movie, roles.user_genre),
        ]
        chosen = [(item, user) for item, user in pairs if item is not None and user is not None]
        self.crosses = chosen_or_all_pairs(preprocessing, dim, chosen, learned=True)
        users, items = (list(preprocessing.layout(side).vectors) for side in SIDES)
        user_vector = [users.index(roles.user)] if roles.user else []
        movie_vector = [items.index(roles.movie)] if roles.movie else []
        self.user_selection = FieldSelection(user_vector, dim, self.user.numeric_fields)
        self.item_selection = FieldSelection(movie_vector, dim, self.item.numeric_fields)
        self.deep = SplitMlp(self.user_selection.width, self.item_selection.width, hidden, dropout, batch_norm)

    def logits(self, rows_BT: Tensor, x_BT: Tensor, fields_BFE: Tensor) -> Tensor:
        split = self.user.width
        user_BD: Tensor = self.user_selection(fields_BFE[:, : self.user.fields], self.user.numerics(x_BT[:, :split]))
        item_BD: Tensor = self.item_selection(fields_BFE[:, self.user.fields :], self.item.numerics(x_BT[:, split:]))
        deep_B: Tensor = self.deep(torch.cat([user_BD, item_BD], 1))
        crosses_BK: Tensor = self.crosses(fields_BFE[:, :, 1:])
        return self.bias + fields_BFE[:, :, 0].sum(1) + crosses_BK.sum(1) + deep_B

    def encode_user(self, keys_BS: Tensor, values_BS: Tensor) -> Tensor:
        fields_BFE, numerics_BM = self.user_fields(keys_BS, values_BS)
        cross_BC, _ = self.crosses.user_half(fields_BFE[:, :, 1:])
        hidden_BH = self.deep.user_half(self.user_selection(fields_BFE, numerics_BM))
        return torch.cat([hidden_BH, cross_BC, self.bias + fields_BFE[:, :, 0].sum(1, keepdim=True)], 1)

    def encode_items(self, keys_NS: Tensor, values_NS: Tensor) -> Tensor:
        fields_NFE, numerics_NM = self.item_fields(keys_NS, values_NS)
        cross_NC, _ = self.crosses.item_half(fields_NFE[:, :, 1:])
        hidden_NH = self.deep.item_half(self.item_selection(fields_NFE, numerics_NM))
        return torch.cat([hidden_NH, cross_NC, fields_NFE[:, :, 0].sum(1, keepdim=True)], 1)

    def top_mlp(self) -> TopMlpWeights | None:
        layers, output = self.deep.top_weights()
        return TopMlpWeights(self.deep.hidden, self.crosses.cross_width, 1, 1, layers, output)

    def score(self, user_D: Tensor, items_ND: Tensor) -> Tensor:
        h = self.deep.hidden
        deep_N = self.deep.output_of_halves(user_D[:h], items_ND[:, :h])
        return deep_N + torch.mv(items_ND[:, h:-1], user_D[h:-1]) + items_ND[:, -1] + user_D[-1]
