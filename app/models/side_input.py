"""Map slots to table rows and numbers: preprocessing as a part of the model, and so of its artifact."""

from typing import cast

import torch
from torch import Tensor, nn

from app.features.fields import Numeric, Side
from app.models.preprocessing import Preprocessing
from app.models.target_statistics import AcrossStatistics, SideStatistics

CLIP = 4.0
"""Standardised numbers are clipped to this many deviations, so that one odd value cannot dominate a score."""


def transform(x: Tensor, name: str) -> Tensor:
    """Apply a transform that learns nothing, element by element; log1p and sqrt keep the sign of negative numbers."""
    if name == "log1p":
        return torch.sign(x) * torch.log1p(torch.abs(x))
    if name == "sqrt":
        return torch.sign(x) * torch.sqrt(torch.abs(x))
    return x * x


def across_statistics(preprocessing: Preprocessing) -> AcrossStatistics:
    """Build the lookup of the statistics of pairs across sides; its width is 0 where there are none."""
    return AcrossStatistics(
        preprocessing.target_statistics("across"),
        preprocessing.statistic_slots("across"),
        preprocessing.statistic_rows("user").start,
    )


class SideInput(nn.Module):
    """Maps the slots of one side to table rows and numbers, and slot vectors to field vectors."""

    __constants__ = ("has_statistics",)

    oov_S: Tensor
    numeric_M: Tensor
    number_M: Tensor
    steps_PM: Tensor
    mean_M: Tensor
    deviation_M: Tensor
    bucket_G: Tensor
    bucket_row_G: Tensor
    borders_GQ: Tensor
    pool_FT: Tensor
    step_codes: list[list[int]]
    """The codes that occur at each step, annotated here because TorchScript cannot type an empty list."""

    def __init__(self, preprocessing: Preprocessing, side: Side) -> None:
        super().__init__()
        layout = preprocessing.layout(side)
        numerics, bucketed = layout.numerics, layout.bucketed
        self.slots = layout.width
        self.clip = CLIP
        self.width = layout.expanded_width
        """T: slots and, behind them, one bucket each for the fields that have buckets, and the target statistics."""
        self.fields = len(layout.vectors)
        """F: declared fields and, behind them, the bucket of each field that has buckets, and the target statistics."""
        self.numeric_fields = len(numerics) + len(layout.statistics)
        """M: numeric fields and, behind them, the numbers of target statistics."""
        self.declared_numeric_fields = len(numerics)
        self.bucketed_fields = len(bucketed)
        self.first_vocabulary_row = preprocessing.oov_rows

        oov = [
            0 if isinstance(field, Numeric) else preprocessing.oov_row(field.name)
            for field in layout.fields
            for _ in range(field.width)
        ]
        self.register_buffer("oov_S", torch.tensor(oov, dtype=torch.int64))

        self.register_buffer(
            "numeric_M", torch.tensor([layout.slots[f.name].start for f in numerics], dtype=torch.int64)
        )
        lookup = SideStatistics(
            preprocessing.target_statistics(side),
            preprocessing.statistic_slots(side),
            preprocessing.statistic_rows(side),
            preprocessing.statistic_rows("user").start,
        )
        self.has_statistics = lookup.width > 0
        self.statistics = lookup if self.has_statistics else cast(SideStatistics, nn.Identity())
        """A program without statistics has nothing there, which loads in two thirds of the time."""
        number_slots = [*self.numeric_M.tolist(), *(layout.vectors[name].start for name in layout.statistics)]
        self.register_buffer("number_M", torch.tensor(number_slots, dtype=torch.int64))
        # steps_PM[p, m]: the transform field m applies at step p; 0 none, 1 log1p, 2 sqrt, 3 square, 4 standardise.
        codes = {"log1p": 1, "sqrt": 2, "square": 3, "standardise": 4}
        steps = max((len(field.transforms) for field in numerics), default=0)
        table = [[codes[f.transforms[p]] if p < len(f.transforms) else 0 for f in numerics] for p in range(steps)]
        self.register_buffer("steps_PM", torch.tensor(table, dtype=torch.int64).reshape(steps, len(numerics)))
        self.step_codes = [sorted({code for code in row if code}) for row in table]
        statistics = [preprocessing.numerics[field.name] for field in numerics]
        self.register_buffer("mean_M", torch.tensor([s.mean for s in statistics]))
        self.register_buffer("deviation_M", torch.tensor([s.deviation for s in statistics]))

        self.register_buffer(
            "bucket_G", torch.tensor([layout.slots[f.name].start for f in bucketed], dtype=torch.int64)
        )
        rows = [preprocessing.bucket_row(field.name) for field in bucketed]
        self.register_buffer("bucket_row_G", torch.tensor(rows, dtype=torch.int64))
        borders = [preprocessing.numerics[field.name].borders for field in bucketed]
        longest = max((len(b) for b in borders), default=0)
        padded = [list(b) + [float("inf")] * (longest - len(b)) for b in borders]
        self.register_buffer("borders_GQ", torch.tensor(padded, dtype=torch.float32).reshape(len(bucketed), longest))

        # Field vectors are sums of slot vectors; where every field is one slot the sum is the identity and is skipped.
        self.pooled = self.width != self.fields
        pool_FT = torch.zeros(self.fields, self.width)
        for index, vector_slots in enumerate(layout.vectors.values()):
            pool_FT[index, vector_slots] = 1.0
        self.register_buffer("pool_FT", pool_FT)

    def expand(self, vocabulary_V: Tensor, keys_BS: Tensor, values_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Look up table rows int64 [B, T] and numbers x [B, T] of slots [B, S], each example by itself."""
        rows_BT, x_BT = self._expand_fields(vocabulary_V, keys_BS, values_BS)
        if not self.has_statistics:
            return rows_BT, x_BT
        numbers_BD = self.statistics(rows_BT, rows_BT).to(x_BT.dtype)
        statistic_rows_BD = self.statistics.row_D.unsqueeze(0).expand(rows_BT.size(0), -1)
        return torch.cat([rows_BT, statistic_rows_BD], 1), torch.cat([x_BT, numbers_BD], 1)

    def _expand_fields(self, vocabulary_V: Tensor, keys_BS: Tensor, values_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Look up what is of declared fields and their buckets."""
        # Searched without its last key, so that every index is within it.
        index_BS = torch.searchsorted(vocabulary_V.narrow(0, 0, vocabulary_V.size(0) - 1), keys_BS.contiguous())
        is_known_BS = torch.take(vocabulary_V, index_BS) == keys_BS  # a third of what indexing with brackets takes
        rows_BS = torch.where(is_known_BS, index_BS + self.first_vocabulary_row, self.oov_S)
        if self.declared_numeric_fields == 0:
            return rows_BS, values_BS
        x_BS = values_BS.clone()
        x_BS[:, self.numeric_M] = self._transform(values_BS[:, self.numeric_M])
        if self.bucketed_fields == 0:
            return rows_BS, x_BS
        raw_BG = values_BS[:, self.bucket_G]
        bucket_BG = (raw_BG.unsqueeze(-1) >= self.borders_GQ).sum(-1) + 1
        bucket_BG = torch.where(torch.isnan(raw_BG), torch.zeros_like(bucket_BG), bucket_BG)
        rows_BT = torch.cat([rows_BS, self.bucket_row_G + bucket_BG], 1)
        return rows_BT, torch.cat([x_BS, torch.ones_like(raw_BG)], 1)

    def _transform(self, raw_BM: Tensor) -> Tensor:
        x_BM = raw_BM.to(self.mean_M.dtype)
        for step, codes in enumerate(self.step_codes):
            codes_M = self.steps_PM[step]
            for code in codes:
                if code == 1:
                    transformed_BM = transform(x_BM, "log1p")
                elif code == 2:
                    transformed_BM = transform(x_BM, "sqrt")
                elif code == 3:
                    transformed_BM = transform(x_BM, "square")
                else:
                    transformed_BM = ((x_BM - self.mean_M) / self.deviation_M).clamp(-self.clip, self.clip)
                x_BM = torch.where(codes_M == code, transformed_BM, x_BM)
        return torch.nan_to_num(x_BM, nan=0.0)  # missing: no numeric contribution; the bucket says "missing"

    def pool(self, slots_BTE: Tensor) -> Tensor:
        """Sum slot vectors [B, T, E] to field vectors [B, F, E]: e_f = sum over the field's slots of x_s v_s."""
        return torch.matmul(self.pool_FT, slots_BTE) if self.pooled else slots_BTE

    def numerics(self, x_BT: Tensor) -> Tensor:
        """Gather the transformed numbers [B, M] of x [B, T], those of target statistics included."""
        if self.numeric_fields == 0:
            return x_BT.narrow(1, 0, 0)
        return x_BT.index_select(1, self.number_M).to(self.pool_FT.dtype)
