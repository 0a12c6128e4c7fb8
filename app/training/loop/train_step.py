"""One step of training: a batch's table rows, the model's gradient, and what it does to all weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from app.models.base import CtrModel
from app.models.deepfm import DeepFM
from app.models.side_input import Preprocessing
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.loop.dropout import DropoutMasks, set_mask_source
from app.training.optim.embedding_lookup import EmbeddingLookup
from app.training.optim.flat_weights import FlatWeights
from app.training.optim.rowwise_rmsprop import RowWiseRmsprop, RowWiseRmspropConfig

if TYPE_CHECKING:
    from app.training.numba.deepfm_gradient import DeepFmGradient


def cpu_table_optimizer() -> type[RowWiseRmsprop]:
    """Of a processor: the compiled ones, unless numba is missing or finds no folder to keep what it compiles in."""
    try:
        from app.training.numba.table_kernels import NumbaRowWiseRmsprop
    except (ImportError, RuntimeError):
        return RowWiseRmsprop
    return NumbaRowWiseRmsprop


class TrainStep:
    """A model in training. Between construction and `close` the model's own table is stale and its weights are views.

    The embedding table is trained row by row (`RowWiseRmsprop`), all else densely. The model is handed field vectors
    instead of looking them up, so that no gradient is ever as large as the table.
    """

    def __init__(
        self,
        model: CtrModel,
        preprocessing: Preprocessing,
        table: RowWiseRmspropConfig,
        *,
        device: str = "cpu",
        bfloat16: bool = False,
        group: ProcessGroup = SINGLE_PROCESS,
        seed: int = 0,
    ) -> None:
        """
        Args:
            seed: of dropout.
            bfloat16: compute the forward pass in it where torch thinks it safe; weights stay float32.
        """
        self.model, self.group = model.to(device), group
        self._config, self._bfloat16, self._device = table, bfloat16, torch.device(device)
        # The average has no table of its own: while training, nobody reads the model's.
        shared = {id(tensor): tensor for tensor in (model.table_RE, model.vocabulary_V)}
        self.average = copy.deepcopy(model, shared).eval() if table.averaging > 0 else model
        with torch.no_grad():
            lookup = EmbeddingLookup(preprocessing, len(model.table_RE), self._device)
            steps = RowWiseRmsprop if self._device.type != "cpu" else cpu_table_optimizer()
            self.table = steps(model.table_RE.detach(), lookup, table)
        crosses = {name for name in model.tables if isinstance(getattr(model, name), nn.Parameter)} - {"table_RE"}
        self.weights = FlatWeights(model, self.average, [model.table_RE], crosses)
        # Parts of one batch should not drop alike.
        seed += self.group.rank
        torch.manual_seed(seed)
        self._masks = DropoutMasks(seed) if self._device.type == "cpu" else None
        set_mask_source(model, self._masks)
        self._by_hand = None if bfloat16 else self._hand_written(preprocessing)
        model.train()

    def _hand_written(self, preprocessing: Preprocessing) -> DeepFmGradient | None:
        model, masks = self.model, self._masks
        if type(model) is not DeepFM or masks is None or type(self.table) is RowWiseRmsprop:
            return None
        from app.training.numba.deepfm_gradient import DeepFmGradient
        from app.training.numba.table_kernels import NumbaRowWiseRmsprop

        assert isinstance(self.table, NumbaRowWiseRmsprop)
        return DeepFmGradient(model, preprocessing, self.table, self.weights.gradient_of, masks)

    def step(self, rows_BT: Tensor, x_OT: Tensor, labels_O: Tensor) -> Tensor:
        """Train on a batch; the sum of its losses over this process's part, [] and detached.

        Args:
            rows_BT: of all processes' parts of the batch; x and labels of this process's part alone.
        """
        loss, gradient_UE = (self._by_hand or self._by_autograd)(
            rows_BT, x_OT, labels_O, self.group.own_slice(len(rows_BT))
        )
        with torch.no_grad():
            self.group.sum_in_place(self.weights.gradient, gradient_UE)
            self.table.update(gradient_UE)
            table = self._config
            self.weights.step(self.table.step, table.learning_rate, table.l2, table.averaging)
        return torch.as_tensor(loss)

    def _by_autograd(self, rows_BT: Tensor, x_OT: Tensor, labels_O: Tensor, own: slice) -> tuple[Tensor, Tensor]:
        """As `DeepFmGradient`, of any model."""
        with torch.no_grad():
            fields_OFE = self.table.fields(rows_BT, x_OT, None if self.group.size == 1 else own)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            logits_O = self.model.logits(rows_BT[own], x_OT, fields_OFE)
        logits_O = logits_O.float()
        # d loss / d logit is written out here; a loss in the graph would cost five operators more.
        slope_O = (logits_O.detach().sigmoid() - labels_O) / len(rows_BT)
        slope_OFE, *slopes = torch.autograd.grad(
            logits_O, [fields_OFE, *self.weights.parameters], slope_O, allow_unused=True
        )
        with torch.no_grad():
            gradient_UE = self.table.gradient(torch.zeros_like(fields_OFE) if slope_OFE is None else slope_OFE)
            self.weights.take(slopes)
            return binary_cross_entropy_with_logits(logits_O, labels_O, reduction="sum"), gradient_UE

    @torch.no_grad()
    def averaged(self) -> CtrModel:
        """The model with its averaged weights, good until the next step; the same on all processes."""
        self.table.write_back()
        if self.group.size > 1:
            statistics = self.weights.running_statistics()
            self.group.sum_in_place(*statistics)
            for tensor in statistics:
                tensor /= self.group.size
        return self.average

    def random_state(self) -> Tensor:
        """Of the generator that dropout draws from."""
        return self._masks.state() if self._masks else torch.cuda.get_rng_state(self._device)

    def set_random_state(self, state: Tensor) -> None:
        if self._masks:
            self._masks.load(state)
        else:
            torch.cuda.set_rng_state(state, self._device)

    def state(self) -> dict[str, Tensor]:
        """All that training has changed, by name; the tensors are live."""
        return {**self.weights.state(), "block": self.table.block_RC, "step": torch.tensor(self.table.step)}

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`. Raises KeyError or RuntimeError where it is another model's."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.table.step = int(state["step"])

    def close(self) -> None:
        """Give the model back as an ordinary module on the processor; its table is as `averaged` left it."""
        set_mask_source(self.model, None)
        self.weights.release()
        self.model.to("cpu").eval()
