"""Hashed cross features: a weight for each bucket of value pairs, a wide part's memory (Cheng et al. 2016, eq. 1).

    wide = sum over crosses c = (f, g), slots s of f and t of g: x_s x_t w_c[h(s, t)]

A slot's code is 31 bits of its vocabulary key, so that a bucket means the same in every version, whatever rows the keys
have; unseen values and the buckets of numbers have small codes of their own. h hashes two codes into c's buckets.

Split, exactly: crosses within a side are a number in that side's state. Crosses of a user and an item field are looked
up for each pair, so the item state holds the codes and the x of the item's crossed slots, the user state the user's.
States are floating point and may be kept in bfloat16, whose whole numbers are exact up to 256: a code is four bytes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from app.features.fields import SIDES
from app.features.schema import Cross, FeatureSchema
from app.features.slot_layout import SlotLayout, bucket_name
from app.models.field_roles import shared_spaces
from app.models.preprocessing import Preprocessing


def hashed_crosses_of(schema: FeatureSchema) -> Sequence[Cross]:
    """Return the schema's crosses or, if it declares none, the user and item fields that share a space."""
    return schema.crosses or [Cross(fields=pair) for pair in shared_spaces(schema)]


def hash_codes(left: Tensor, right: Tensor) -> Tensor:
    """Hash two int64 codes in 0..2**31-1, element by element, to a number in 0..2**62-1."""
    # The factors are odd and below 2**30, so that no product overflows; xor and shifts bring high bits down.
    mixed = (left * 0x2C1B3C6D) ^ (right * 0x297A2D39)
    mixed = ((mixed ^ (mixed >> 31)) & 0x7FFFFFFF) * 0x31848BAB
    return mixed ^ (mixed >> 29)


class SlotPairs(nn.Module):
    """Crossed pairs of slots, and the weights that each pair is hashed into."""

    left_P: Tensor
    right_P: Tensor
    buckets_P: Tensor
    offset_P: Tensor

    def __init__(self, pairs: Sequence[tuple[int, int, int, int]]) -> None:
        """
        Args:
            pairs: for each, the left slot, the right slot, the number of buckets, and the row of the first bucket.
        """
        super().__init__()
        columns = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 4)
        for column, name in enumerate(("left_P", "right_P", "buckets_P", "offset_P")):
            self.register_buffer(name, columns[:, column].clone())

    def forward(
        self, weights_C1: Tensor, left_codes_BL: Tensor, left_x_BL: Tensor, right_codes_BR: Tensor, right_x_BR: Tensor
    ) -> Tensor:
        """Sum x_s x_t w[h(s, t)] over the pairs, [B]. One row on the left goes with all rows on the right."""
        hash_BP = hash_codes(left_codes_BL[:, self.left_P], right_codes_BR[:, self.right_P])
        weight_BP = nn.functional.embedding(hash_BP % self.buckets_P + self.offset_P, weights_C1).squeeze(-1)
        return (weight_BP * left_x_BL[:, self.left_P] * right_x_BR[:, self.right_P]).sum(1)


class HashedCrosses(nn.Module):
    """All crosses of a schema. Their weights are a table of the model's, which is passed in."""

    user_L: Tensor
    item_R: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        layouts = {side: preprocessing.layout(side) for side in SIDES}
        side_of = {field.name: field.side for field in preprocessing.schema.fields}
        within: dict[str, list[tuple[int, int, int, int]]] = {"user": [], "item": []}
        cross_sides: list[tuple[int, int, int, int]] = []
        rows = 0
        for cross in hashed_crosses_of(preprocessing.schema):
            # User side first, so that a cross means the same whichever of its fields is named first.
            left, right = sorted(cross.fields, key=lambda name: side_of[name] == "item")
            pairs = cross_sides if side_of[left] != side_of[right] else within[side_of[left]]
            left_slots, right_slots = (_crossed_slots(layouts[side_of[name]], name) for name in (left, right))
            pairs += [(s, t, cross.buckets, rows) for s in left_slots for t in right_slots]
            rows += cross.buckets
        self.rows = max(rows, 1)  # the artifact cannot hold an empty table
        self.oov_rows = preprocessing.oov_rows
        self.user_slots = layouts["user"].expanded_width
        user, item = (sorted({pair[end] for pair in cross_sides}) for end in (0, 1))
        self.crossed_user_slots, self.crossed_item_slots = len(user), len(item)
        self.register_buffer("user_L", torch.tensor(user, dtype=torch.int64))
        self.register_buffer("item_R", torch.tensor(item, dtype=torch.int64))
        self.within_user, self.within_item = SlotPairs(within["user"]), SlotPairs(within["item"])
        self.cross_sides = SlotPairs([(user.index(s), item.index(t), size, row) for s, t, size, row in cross_sides])

    def forward(self, weights_C1: Tensor, vocabulary_V: Tensor, rows_BT: Tensor, x_BT: Tensor) -> Tensor:
        """Compute the wide part [B] of both sides' table rows and numbers."""
        codes_BT = self.slot_codes(vocabulary_V, rows_BT)
        u = self.user_slots
        user_BT, user_x_BT, item_BT, item_x_BT = codes_BT[:, :u], x_BT[:, :u], codes_BT[:, u:], x_BT[:, u:]
        user_B: Tensor = self.within_user(weights_C1, user_BT, user_x_BT, user_BT, user_x_BT)
        item_B: Tensor = self.within_item(weights_C1, item_BT, item_x_BT, item_BT, item_x_BT)
        cross_B: Tensor = self.cross_sides(
            weights_C1,
            user_BT[:, self.user_L],
            user_x_BT[:, self.user_L],
            item_BT[:, self.item_R],
            item_x_BT[:, self.item_R],
        )
        return user_B + item_B + cross_B

    def user_half(
        self, weights_C1: Tensor, vocabulary_V: Tensor, rows_BT: Tensor, x_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum the crosses within the user side, [B], and pack its crossed slots, [B, 5 * crossed user slots]."""
        codes_BT = self.slot_codes(vocabulary_V, rows_BT)
        within_B: Tensor = self.within_user(weights_C1, codes_BT, x_BT, codes_BT, x_BT)
        return within_B, pack_slots(codes_BT[:, self.user_L], x_BT[:, self.user_L])

    def item_half(
        self, weights_C1: Tensor, vocabulary_V: Tensor, rows_NT: Tensor, x_NT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum the crosses within the item side, [N], and pack its crossed slots, [N, 5 * crossed item slots]."""
        codes_NT = self.slot_codes(vocabulary_V, rows_NT)
        within_N: Tensor = self.within_item(weights_C1, codes_NT, x_NT, codes_NT, x_NT)
        return within_N, pack_slots(codes_NT[:, self.item_R], x_NT[:, self.item_R])

    def score_across(self, weights_C1: Tensor, user_D: Tensor, items_ND: Tensor) -> Tensor:
        """Sum the crosses between the sides, [N], from the packed slots of one user and N items."""
        user_1L, user_x_1L = unpack_slots(user_D.unsqueeze(0), self.crossed_user_slots)
        item_NR, item_x_NR = unpack_slots(items_ND, self.crossed_item_slots)
        cross_N: Tensor = self.cross_sides(weights_C1, user_1L, user_x_1L, item_NR, item_x_NR)
        return cross_N

    def slot_codes(self, vocabulary_V: Tensor, rows_BT: Tensor) -> Tensor:
        """Compute the codes [B, T] of table rows."""
        key_BT = rows_BT - self.oov_rows
        keys = vocabulary_V.shape[0]
        known_BT = vocabulary_V[key_BT.clamp(0, keys - 1)] & 0x7FFFFFFF
        other_BT = torch.where(key_BT < 0, rows_BT, rows_BT - keys)
        return torch.where((key_BT >= 0) & (key_BT < keys), known_BT, other_BT)


def _crossed_slots(layout: SlotLayout, name: str) -> range:
    """Return the slots among the side's T that stand for a field in a cross: a number takes part by its bucket."""
    slots = layout.vectors.get(bucket_name(name), layout.vectors[name])
    return range(slots.start, slots.stop)


def pack_slots(codes_BL: Tensor, x_BL: Tensor) -> Tensor:
    """Pack the four bytes of each code, then each x: [B, 5 L] in the type of x."""
    parts = [(codes_BL >> shift) & 255 for shift in (0, 8, 16, 24)]
    return torch.cat([part.to(x_BL.dtype) for part in parts] + [x_BL], 1)


def unpack_slots(packed_BD: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Return the codes [B, L] and x [B, L] that `pack_slots` packed."""
    bytes_BD = packed_BD[:, : 4 * slots].to(torch.int64)
    codes_BL = torch.zeros_like(bytes_BD[:, :slots])
    for byte in range(4):
        codes_BL = codes_BL + (bytes_BD[:, byte * slots : (byte + 1) * slots] << (8 * byte))
    return codes_BL, packed_BD[:, 4 * slots :]
