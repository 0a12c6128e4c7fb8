"""Hold a model class of the user's own against the contract of `app.models.base`, on a few rows, before training.

Whatever is found here would be found when the version is written too, hours later and in the words of the loader.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from app.errors import ArtifactError, ConfigError
from app.features.slots import Slots
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.models.serving_form import serving_form
from app.models.user_class import describe, is_user_class
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.export import write
from app.registry.artifact.load import ArtifactLoader
from app.registry.torchscript.scripting import script
from app.training.architectures import ModelConfig
from app.training.data.dataset import Dataset
from app.training.preprocessing.encode import EncodedRows, encode
from app.training.preprocessing.expand import expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit

SAMPLE_ROWS = 64
TOLERANCE = 1e-4
"""Largest difference of two ways to compute a logit, of the largest logit or of 1."""
OPERATORS_HINT = (
    "a program may call what only computes (app/registry/torchscript/operators.py): torch.softmax(x, 1) and not "
    "nn.functional.softmax, which warns"
)
_Result = TypeVar("_Result")


def check_user_model(config: ModelConfig, data: Dataset) -> None:
    """Check a class of the user's own on some of the rows that it is to be trained on; do nothing for other models.

    Raises:
        ConfigError: it does not keep the contract; the message says in what.
    """
    if not is_user_class(config.name):
        return
    examples = data.examples()
    sample = replace(examples.take(np.arange(min(len(examples), SAMPLE_ROWS))), max_bad=1.0)
    if len(sample) == 0:
        return
    encoded = encode(sample)
    known = encode(sample.take(np.arange(0, len(sample), 2)))  # so that some values of the rows are unknown
    _Contract(config, PreprocessingFit(min_count=1).fit(data.schema, known), encoded).check()


@dataclass(frozen=True)
class _Contract:
    """Checks one class; shape suffixes are explained in `app.models.base`."""

    config: ModelConfig
    preprocessing: Preprocessing
    rows: EncodedRows

    def check(self) -> None:
        """Raise ConfigError at the first part of the contract that is not kept."""
        model = self._run("__init__", lambda: self.config.build(self.preprocessing))
        self._check_training(model)
        served = serving_form(_with_random_weights(model))
        with torch.no_grad():
            self._check_split(model, served)
        self._check_first_order(model)
        self._check_program(served)

    def _run(self, method: str, call: Callable[[], _Result]) -> _Result:
        """Call the user's code. Raises ConfigError for whatever it raises."""
        try:
            return call()
        except ConfigError:
            raise
        except Exception as error:
            module = self.config.name.partition(":")[0]
            raise self._error(f"{method} fails with {describe(error, module)}") from error

    def _error(self, message: str) -> ConfigError:
        return ConfigError(f"--model {self.config.name}: {message}")

    def _check_training(self, model: CtrModel) -> None:
        """Check that a step of training would reach the weights."""
        rows_BT, x_BT, fields_BFE = self._inputs(model)
        model.train()
        logits_B = self._run("logits", lambda: model.logits(rows_BT, x_BT, fields_BFE))
        self._check_shape("logits", logits_B, (len(rows_BT),))
        if not logits_B.requires_grad:
            raise self._error("logits depends on no weight, so that there is nothing to train")
        (slope_RE,) = torch.autograd.grad(logits_B.sum(), [model.table_RE], allow_unused=True)
        if slope_RE is not None:
            raise self._error(
                "logits looks rows of the table up by itself: use the field vectors fields_BFE that it is given, as "
                "training updates the table through them alone"
            )

    def _inputs(self, model: CtrModel) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `logits` takes of the rows, with field vectors that a gradient can be had of."""
        expanded = expand(self.preprocessing, self.rows)
        with torch.no_grad():
            fields_BFE = model.fields(expanded.rows_NT, expanded.x_NT)
        return expanded.rows_NT, expanded.x_NT, fields_BFE.detach().requires_grad_()

    def _check_first_order(self, model: CtrModel) -> None:
        """Check that logits rise by as much as the bias does, or a weight of column 0, if the class says so."""
        if not model.has_first_order:
            return
        rows_BT, x_BT, fields_BFE = self._inputs(model)
        logits_B = model.logits(rows_BT, x_BT, fields_BFE)
        slope_BFE, slope_1 = torch.autograd.grad(logits_B.sum(), [fields_BFE, model.bias], allow_unused=True)
        if not (_is(slope_BFE, 1.0, column=0) and _is(slope_1, float(len(logits_B)))):
            raise self._error(
                "has_first_order says that logits adds the bias and column 0 of each field vector once, and it does not"
            )

    def _check_split(self, model: CtrModel, served: CtrModel) -> None:
        """Check that `score` of the two states is `forward`, and that rows do not depend on each other."""
        (user_BS, x_BS), (item_BS, y_BS) = map(_tensors, (self.rows.user, self.rows.item))
        count = len(user_BS)
        plain_B = self._run("forward", lambda: served(user_BS, x_BS, item_BS, y_BS))
        self._check_shape("forward", plain_B, (count,))
        if not bool(torch.isfinite(plain_B).all()):
            raise self._error("forward gives logits that are not finite")
        alone_B = torch.cat([served(user_BS[b : b + 1], x_BS[b : b + 1], item_BS[b : b + 1], y_BS[b : b + 1])
                             for b in range(count)])  # fmt: skip
        self._compare("forward of a row by itself", alone_B, "forward of the same row among others", plain_B)
        users_BD = self._run("encode_user", lambda: served.encode_user(user_BS, x_BS))
        items_BD = self._run("encode_items", lambda: served.encode_items(item_BS, y_BS))
        for method, states_BD in (("encode_user", users_BD), ("encode_items", items_BD)):
            if states_BD.dim() != 2 or len(states_BD) != count:
                shape = list(states_BD.shape)
                raise self._error(f"{method} gives {shape} of {count} rows: expected [{count}, D], a state of each row")
        everyone_N = torch.arange(count)
        for user in range(min(count, 8)):
            n, user_D = torch.full((count,), user), users_BD[user]
            forward_N = served(user_BS[n], x_BS[n], item_BS, y_BS)
            scores_N = self._run("score", partial(served.score, user_D, items_BD.clone()))
            self._check_shape("score", scores_N, (count,))
            self._compare("score(encode_user(...), encode_items(...))", scores_N, "forward", forward_N)
            rows_N = self._run("score_rows", partial(served.score_rows, user_D, items_BD, everyone_N))
            self._compare("score_rows", rows_N, "score", scores_N)
        pairs_B = self._run("score_users", lambda: served.score_users(users_BD, items_BD.clone(), [1] * count))
        self._compare("score_users", pairs_B, "forward", plain_B)

    def _check_program(self, served: CtrModel) -> None:
        """Check that the model can be compiled, that the program may be served, and that it computes what it should."""
        try:
            script(served)
        except Exception as error:  # torch raises many kinds
            raise self._error(f"it is not TorchScript: {_compiler_words(error)}") from error
        with tempfile.TemporaryDirectory(prefix="ctr-model-") as name:
            folder = Path(name)
            try:
                manifest = write(folder, served, self.preprocessing.schema, name="check", golden=[])
                artifact = ArtifactLoader().assemble(folder, manifest, torch.device("cpu"))
            except ArtifactError as error:
                raise self._error(f"{error}; {OPERATORS_HINT}") from error
            self._check_answers(artifact)

    def _check_answers(self, artifact: Artifact) -> None:
        """Check what requests would be answered with, by the program or by what runs compiled in its place."""
        with torch.no_grad():
            user = Slots(self.rows.user.keys[0], self.rows.user.values[0])
            user_D, items_ND = artifact.encode_user(user), artifact.encode_items(self.rows.item)
            score_N, position_N = map(torch.from_numpy, artifact.ranked(user_D, items_ND, np.arange(len(items_ND))))
            ranked_N = torch.empty_like(score_N).index_copy_(0, position_N, score_N)
            forward_N = artifact.score_by_forward(user, self.rows.item)
        hint = (
            "; a class that overrides score, probability or encode_user of its base overrides top_mlp and user_affine"
        )
        self._compare("what the program ranks by", ranked_N, "forward", forward_N, hint)

    def _check_shape(self, method: str, result: Tensor, shape: tuple[int, ...]) -> None:
        if not isinstance(result, Tensor) or tuple(result.shape) != shape:
            found = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise self._error(f"{method} gives {found} of {shape[0]} rows: expected {list(shape)}, a logit of each row")

    def _compare(self, name: str, one_N: Tensor, other_name: str, other_N: Tensor, hint: str = "") -> None:
        difference = float((one_N - other_N).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(other_N.abs().max())):
            raise self._error(f"{name} differs from {other_name} by {difference:.2g}, and has to agree{hint}")


def _is(slope: Tensor | None, value: float, column: int | None = None) -> bool:
    """Return whether a gradient, or a column of it, has this value everywhere."""
    return slope is not None and bool(((slope if column is None else slope[..., column]) - value).abs().max() < 1e-4)


def _with_random_weights(model: CtrModel) -> CtrModel:
    """Move every weight and running statistic away from its initial value, under which terms may be 0 or alike."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if name == "table_RE" else 0.1
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
        for module in model.modules():
            if (
                isinstance(module, nn.BatchNorm1d)
                and module.running_mean is not None
                and module.running_var is not None
            ):
                module.running_mean.add_(0.1 * torch.randn(module.running_mean.shape, generator=generator))
                module.running_var.mul_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return model.eval()


def _tensors(slots: Slots) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.ascontiguousarray(slots.keys)), torch.from_numpy(np.ascontiguousarray(slots.values))


def _compiler_words(error: Exception) -> str:
    """Return what the compiler of TorchScript says is wrong, and the last line of the user's code that it names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = [line for line in lines if line.startswith('File "')]
    first = next((line for line in lines if not line.startswith('File "')), type(error).__name__)
    if not places:
        return first
    file, line = places[0].removeprefix('File "').split('", ')[:2]
    return f"{first.rstrip(':')} ({Path(file).name}, {line.split(',')[0]})"
