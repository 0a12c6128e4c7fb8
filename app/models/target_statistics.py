"""Target statistics: how often each key, or pair of keys, was clicked in the training rows, as numbers of the model.

For a statistic of the fields f and g (of one field, f = g) and the table rows r, s that an example has there

    rate(r, s)  = log odds of (clicks + m p) / (rows + m)  -  log odds of p
    count(r, s) = log(1 + rows), standardised

with p the rate of all rows and m the prior's weight (Micci-Barreca 2001, eq. 3-5). What no training row had has a rate
of 0, the prior, and the count of none. How they are learned without a leak is in
`app.training.preprocessing.target_statistics`.

Statistics of one side's fields are numeric fields of that side, so every model takes them and the split stays exact.
Pairs of a user's and an item's field are looked up for each candidate: both states hold the rows of their half, four
bytes each, as states may be kept in bfloat16, whose whole numbers are exact up to 256.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

Scope = Literal["user", "item", "across"]
"""Where a statistic's fields are: on one side, or one on each."""
COLUMNS = ("rate", "count")
"""The numbers that each statistic has."""
MAX_RATE = 4.0
"""Rates are clipped to this distance from the prior's log odds, as standardised numbers are."""


def _no_keys() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class KeyStatistics:
    """Statistics of P pairs of fields, learned on the training rows."""

    pairs: tuple[tuple[str, str], ...] = ()
    """Names of the two fields of each statistic, user side first; one field twice is a statistic of that field."""
    keys_V: Tensor = field(default_factory=_no_keys)
    """Sorted distinct int64 keys (`pair_keys`) of all statistics."""
    values_V2: Tensor = field(default_factory=lambda: torch.empty(0, 2))
    """Rate and scaled count of each key."""
    unseen_P: Tensor = field(default_factory=lambda: torch.empty(0))
    """Scaled count of keys that no training row had."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the P statistics."""
        return tuple(left if left == right else f"{left}+{right}" for left, right in self.pairs)

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the 2 P numbers: every rate, then every count."""
        return tuple(f"{name}:{column}" for column in COLUMNS for name in self.names)


def pair_keys(left_rows_BP: Tensor, right_rows_BP: Tensor, table_rows: int) -> Tensor:
    """Compute the key int64 [B, P] of each statistic from the table rows of its fields; no two pairs share a key.

    Args:
        table_rows: the rows of the embedding table before those of statistics; its square, times P, must be below
            2**63.
    """
    pairs = right_rows_BP.size(1)
    pair_P = torch.arange(pairs, device=right_rows_BP.device)
    return (left_rows_BP * table_rows + right_rows_BP) * pairs + pair_P


class StatisticsLookup(nn.Module):
    """Looks up the statistics of pairs of slots."""

    left_P: Tensor
    right_P: Tensor
    keys_V: Tensor
    values_V2: Tensor
    unseen_2P: Tensor

    def __init__(self, statistics: KeyStatistics, left: Sequence[int], right: Sequence[int], table_rows: int) -> None:
        """
        Args:
            left, right: the positions [P] of the fields' slots among the rows that are handed in.
            table_rows: the rows of the embedding table before those of statistics.
        """
        super().__init__()
        self.pairs = len(statistics.pairs)
        self.width = len(COLUMNS) * self.pairs
        """Number of numbers: every rate, then every count."""
        self.table_rows = table_rows
        self.register_buffer("left_P", torch.tensor(left, dtype=torch.int64))
        self.register_buffer("right_P", torch.tensor(right, dtype=torch.int64))
        # One key that is none, so that there is always one to compare with.
        self.register_buffer("keys_V", torch.cat([statistics.keys_V, torch.tensor([2**63 - 1])]))
        self.register_buffer("values_V2", torch.cat([statistics.values_V2, torch.zeros(1, 2)]))
        self.register_buffer("unseen_2P", torch.cat([torch.zeros(self.pairs), statistics.unseen_P]))

    def forward(self, left_rows_BL: Tensor, right_rows_BR: Tensor) -> Tensor:
        """Look up the numbers [B, 2 P]. One row on the left goes with all rows on the right."""
        left_BP = left_rows_BL.index_select(1, self.left_P)
        keys_BP = pair_keys(left_BP, right_rows_BR.index_select(1, self.right_P), self.table_rows)
        index_BP = torch.searchsorted(self.keys_V.narrow(0, 0, self.keys_V.size(0) - 1), keys_BP)
        is_known_BP = torch.take(self.keys_V, index_BP) == keys_BP
        values_BP2 = self.values_V2[index_BP]
        known_B2P = torch.cat([values_BP2[:, :, 0], values_BP2[:, :, 1]], 1)
        return torch.where(torch.cat([is_known_BP, is_known_BP], 1), known_B2P, self.unseen_2P)


class SideStatistics(StatisticsLookup):
    """The statistics of one side's own fields."""

    row_D: Tensor

    def __init__(self, statistics: KeyStatistics, slots: Sequence[tuple[int, int]], rows: range, table_rows: int):
        """
        Args:
            slots: the slots [P] of both fields of each statistic.
            rows: the table rows of the 2 P numbers.
            table_rows: the rows of the embedding table before those of statistics.
        """
        super().__init__(statistics, [left for left, _ in slots], [right for _, right in slots], table_rows)
        self.register_buffer("row_D", torch.tensor(list(rows), dtype=torch.int64))


class AcrossStatistics(nn.Module):
    """The statistics of pairs of a user's and an item's field, from table rows or from rows packed in states."""

    user_L: Tensor
    item_R: Tensor

    def __init__(self, statistics: KeyStatistics, slots: Sequence[tuple[int, int]], table_rows: int) -> None:
        """
        Args:
            slots: the slots [P] of both fields of each statistic, each among the T of its side.
            table_rows: the rows of the embedding table before those of statistics.
        """
        super().__init__()
        user, item = (sorted({pair[end] for pair in slots}) for end in (0, 1))
        self.register_buffer("user_L", torch.tensor(user, dtype=torch.int64))
        self.register_buffer("item_R", torch.tensor(item, dtype=torch.int64))
        self.lookup = StatisticsLookup(
            statistics, [user.index(left) for left, _ in slots], [item.index(right) for _, right in slots], table_rows
        )
        self.width = self.lookup.width
        self.user_packed, self.item_packed = 4 * len(user), 4 * len(item)
        """Columns of a user and of an item state that hold packed rows."""

    def forward(self, user_rows_BT: Tensor, item_rows_BT: Tensor) -> Tensor:
        """Look up the numbers [B, 2 P] of both sides' table rows."""
        numbers_BC: Tensor = self.lookup(
            user_rows_BT.index_select(1, self.user_L), item_rows_BT.index_select(1, self.item_R)
        )
        return numbers_BC

    def of_states(self, user_packed_D: Tensor, items_packed_ND: Tensor) -> Tensor:
        """Look up the numbers [N, 2 P] of one user and N items from what `pack_user` and `pack_items` packed."""
        user_1L, items_NR = unpack_rows(user_packed_D.unsqueeze(0)), unpack_rows(items_packed_ND)
        numbers_NC: Tensor = self.lookup(user_1L, items_NR)
        return numbers_NC

    def pack_user(self, rows_BT: Tensor, like: Tensor) -> Tensor:
        """Pack the user side's rows, [B, user_packed], in the type of `like`."""
        return pack_rows(rows_BT.index_select(1, self.user_L)).to(like.dtype)

    def pack_items(self, rows_NT: Tensor, like: Tensor) -> Tensor:
        """Pack the item side's rows, [N, item_packed], in the type of `like`."""
        return pack_rows(rows_NT.index_select(1, self.item_R)).to(like.dtype)


def pack_rows(rows_BL: Tensor) -> Tensor:
    """Pack rows below 2**32 as four bytes each, [B, 4 L]."""
    return torch.cat([(rows_BL >> shift) & 255 for shift in (0, 8, 16, 24)], 1)


def unpack_rows(packed_BD: Tensor) -> Tensor:
    """Return the rows [B, L] that `pack_rows` packed."""
    bytes_BD = packed_BD.to(torch.int64)
    width = bytes_BD.size(1) // 4
    rows_BL = bytes_BD.narrow(1, 0, width)
    for byte in range(1, 4):
        rows_BL = rows_BL + (bytes_BD.narrow(1, byte * width, width) << (8 * byte))
    return rows_BL
