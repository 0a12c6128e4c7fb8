"""Train on one batch: look up its table rows, compute the model's gradient, update all weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from app.models.base import CtrModel
from app.models.deepfm import DeepFM
from app.models.preprocessing import Preprocessing
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.loop.dropout import DropoutMasks, set_mask_source
from app.training.optim.embedding_lookup import EmbeddingLookup
from app.training.optim.flat_weights import FlatWeights
from app.training.optim.rowwise_rmsprop import RowWiseRmsprop, RowWiseRmspropConfig

if TYPE_CHECKING:
    from app.training.numba.deepfm_gradient import DeepFmGradient


def cpu_table_optimizer() -> type[RowWiseRmsprop]:
    """Return the optimiser for the CPU: numba's, unless it is not installed or finds no folder for its cache."""
    try:
        from app.training.numba.table_kernels import NumbaRowWiseRmsprop
    except (ImportError, RuntimeError):
        return RowWiseRmsprop
    return NumbaRowWiseRmsprop


class TrainStep:
    """Trains a model a batch at a time. Until `close` the model's own table is stale and its weights are views.

    The embedding table is trained row by row (`RowWiseRmsprop`), all else densely. The field vectors are pooled here
    and handed to `CtrModel.logits`, so that no gradient is ever as large as the table. Shape suffixes beside those of
    `app.models.base`: O examples of this process's part of a batch, U distinct table rows of the batch, E = 1 + K.
    """

    def __init__(
        self,
        model: CtrModel,
        preprocessing: Preprocessing,
        table_config: RowWiseRmspropConfig,
        *,
        device: str = "cpu",
        bfloat16: bool = False,
        group: ProcessGroup = SINGLE_PROCESS,
        seed: int = 0,
        hand_written: bool = True,
        offset_rows: Tensor | None = None,
    ) -> None:
        """Move the model's table into a row-wise optimiser and its other weights into flat vectors.

        Args:
            bfloat16: compute the forward pass in bfloat16 where torch thinks it safe; weights stay float32.
            seed: seeds the dropout masks.
            hand_written: whether to use DeepFM's hand-written gradient where it applies, and not autograd.
            offset_rows: as for `RowWiseRmsprop`.
        """
        self.model, self.group = model.to(device), group
        self._table_config, self._bfloat16, self._device = table_config, bfloat16, torch.device(device)
        # The average shares the model's table, which is not read while training.
        shared = {id(tensor): tensor for tensor in (model.table_RE, model.vocabulary_V)}
        self.average = copy.deepcopy(model, shared).eval() if table_config.averaging > 0 else model
        with torch.no_grad():
            lookup = EmbeddingLookup(preprocessing, len(model.table_RE), self._device)
            optimizer = RowWiseRmsprop if self._device.type != "cpu" else cpu_table_optimizer()
            offset_rows = None if offset_rows is None else offset_rows.to(self._device)
            self.table_optimizer = optimizer(model.table_RE.detach(), lookup, table_config, offset_rows)
        decayed = {name for name in model.tables if isinstance(getattr(model, name), nn.Parameter)} - {"table_RE"}
        self.weights = FlatWeights(model, self.average, [model.table_RE], decayed)
        # The parts of a batch must not all have the same masks.
        seed += self.group.rank
        torch.manual_seed(seed)
        self._masks = DropoutMasks(seed) if self._device.type == "cpu" else None
        set_mask_source(model, self._masks)
        self.deepfm_gradient = self._make_deepfm_gradient(preprocessing) if hand_written and not bfloat16 else None
        """DeepFM's hand-written gradient; None if autograd computes the gradient."""
        model.train()

    def _make_deepfm_gradient(self, preprocessing: Preprocessing) -> DeepFmGradient | None:
        """Return DeepFM's hand-written gradient, or None where autograd is used."""
        model, masks = self.model, self._masks
        if type(model) is not DeepFM or masks is None or type(self.table_optimizer) is RowWiseRmsprop:
            return None
        from app.training.numba.deepfm_gradient import DeepFmGradient
        from app.training.numba.table_kernels import NumbaRowWiseRmsprop

        assert isinstance(self.table_optimizer, NumbaRowWiseRmsprop)
        return DeepFmGradient(model, preprocessing, self.table_optimizer, self.weights.gradient_of, masks)

    def step(self, rows_BT: Tensor, x_OT: Tensor, labels_O: Tensor, weights_O: Tensor | None = None) -> Tensor:
        """Train on a batch; return the sum of the weighted losses of this process's part of it, [] and detached.

        Args:
            rows_BT: the table rows of all processes' parts of the batch.
            x_OT, labels_O, weights_O: the numbers, labels and weights of this process's part alone. Weights have a mean
                of 1 over all rows, not in each batch; None stands for ones.
        """
        loss, gradient_UE = (self.deepfm_gradient or self._autograd_gradient)(
            rows_BT, x_OT, labels_O, weights_O, self.group.own_slice(len(rows_BT))
        )
        with torch.no_grad():
            self.group.sum_in_place(self.weights.gradient, gradient_UE)
            self.table_optimizer.update(gradient_UE)
            config = self._table_config
            self.weights.step(self.table_optimizer.step, config.learning_rate, config.l2, config.averaging)
        return torch.as_tensor(loss)

    def _autograd_gradient(
        self, rows_BT: Tensor, x_OT: Tensor, labels_O: Tensor, weights_O: Tensor | None, part: slice
    ) -> tuple[Tensor, Tensor]:
        """Compute what `DeepFmGradient` computes, by autograd for any model."""
        with torch.no_grad():
            fields_OFE = self.table_optimizer.fields(rows_BT, x_OT, None if self.group.size == 1 else part)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            logits_O = self.model.logits(rows_BT[part], x_OT, fields_OFE)
        logits_O = logits_O.float()
        # d loss / d logit is written out; a loss in the graph would take five operators more.
        slope_O = (logits_O.detach().sigmoid() - labels_O) / len(rows_BT)
        if weights_O is not None:
            slope_O *= weights_O
        slope_OFE, *slopes = torch.autograd.grad(
            logits_O, [fields_OFE, *self.weights.parameters], slope_O, allow_unused=True
        )
        with torch.no_grad():
            gradient_UE = self.table_optimizer.gradient(
                torch.zeros_like(fields_OFE) if slope_OFE is None else slope_OFE
            )
            self.weights.copy_gradients(slopes)
            return binary_cross_entropy_with_logits(logits_O, labels_O, weights_O, reduction="sum"), gradient_UE

    @torch.no_grad()
    def averaged_model(self) -> CtrModel:
        """Return the model with its averaged weights, the same in all processes; it is valid until the next step.

        Its batch norms have no statistics until `estimate_batch_norms`.
        """
        self.table_optimizer.write_back()
        return self.average

    def random_state(self) -> Tensor:
        """Return the state of the generator that dropout masks are drawn from."""
        return self._masks.state() if self._masks else torch.cuda.get_rng_state(self._device)

    def set_random_state(self, state: Tensor) -> None:
        """Restore a state that `random_state` returned."""
        if self._masks:
            self._masks.load(state)
        else:
            torch.cuda.set_rng_state(state, self._device)

    def state(self) -> dict[str, Tensor]:
        """Return all that training has changed, by name; the tensors are live."""
        return {
            **self.weights.state(),
            "block": self.table_optimizer.block_RC,
            "step": torch.tensor(self.table_optimizer.step),
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`. Raises KeyError or RuntimeError if it is another model's."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.table_optimizer.step = int(state["step"])

    def close(self) -> None:
        """Make the model an ordinary module on the CPU again; its table is as `averaged_model` left it."""
        set_mask_source(self.model, None)
        self.weights.release()
        self.model.to("cpu").eval()
