"""A class of the user's own that does not keep the contract is refused before it is trained, with what is wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.errors import ConfigError
from app.training.architectures import ModelConfig
from app.training.job import TrainingJob
from app.training.job_config import JobConfig
from app.training.loop.trainer_config import TrainerConfig
from app.training.model_contract import check_user_model
from tests.models.user_models import BILINEAR, write_module
from tests.training.preprocessing.test_preprocessing_fit import some_data

DATA = some_data(80)


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_the_example_of_the_documentation_keeps_it() -> None:
    write_module("contract_kept.py", BILINEAR)
    check_user_model(ModelConfig("contract_kept:Bilinear", dim=4, own={"scale": 2}), DATA)


LOGITS = "self.bias + user_BE[:, 0] + item_BE[:, 0] + self.scale * cross_BK.sum(1)"
SCORE = "torch.mv(items_ND[:, :-1], user_D[:-1]) + items_ND[:, -1] + user_D[-1]"
BROKEN = {
    "split": ("items_ND[:, -1] + user_D[-1]", "items_ND[:, -1]", "differs from forward by"),
    "state of a user": ("self.scale * self.matrix(user_BE[:, 1:]), ", "self.matrix(user_BE[:, 1:]), ", "differs from"),
    "a term that begins at zero": ("+ self.scale * cross_BK.sum(1)", "+ self.bias * cross_BK.sum(1)", "differs"),
    "rows that see each other": ("cross_BK.sum(1)", "cross_BK.sum(1).softmax(0)", "forward of a row by itself differs"),
    "shape of logits": (LOGITS, f"({LOGITS}).unsqueeze(1)", "logits gives [64, 1] of 64 rows: expected [64]"),
    "shape of states": ("return torch.cat([item_NE[:, 1:], item_NE[:, :1]], 1)", "return item_NE.sum(0)",
                        "encode_items gives [5] of 64 rows: expected [64, D]"),
    "shape of scores": (SCORE, f"({SCORE}).unsqueeze(1)", "score gives [64, 1] of 64 rows: expected [64]"),
    "not finite": ("self.scale * cross_BK", "torch.log(-cross_BK.abs())", "are not finite"),
    "constructor": ("self.scale = scale", "self.scale = 1 / (scale - scale)",
                    "__init__ fails with ZeroDivisionError: float division by zero (MODULE.py, line LINE)"),
    "error in a method": ("self.matrix(user_BE[:, 1:]) * item", "self.matrix(user_BE) * item",
                          "logits fails with RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    "table looked up": ("user_BE = fields_BFE[:, : self.user.fields].sum(1)",
                    "user_BE = self.slot_vectors(rows_BT, x_BT)[:, : self.user.fields].sum(1)",
                    "logits looks rows of the table up by itself"),
    "nothing to train": ("return self.bias + user_BE[:, 0]", "return torch.zeros(len(user_BE)) + 0 * x_BT[:, 0] #",
                         "logits depends on no weight"),
    "not TorchScript": ("cross_BK = self", "globals()\n        cross_BK = self",
                        "is not TorchScript: Python builtin <built-in function globals> is currently not supported in "
                        "Torchscript (MODULE.py, line LINE)"),
    "untyped": ("items_ND: Tensor) -> Tensor:\n", "items_ND: Tensor, x=None) -> Tensor:\n", "it is not TorchScript"),
    "prints": ("cross_BK = self", "print(1)\n        cross_BK = self", "it may call print"),
    "warns": (f"return {SCORE}", f"nn.functional.softmax(items_ND, 1)\n        return {SCORE}",
              "torch.softmax(x, 1) and not"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_kept_is_named(case: str) -> None:
    old, new, said = BROKEN[case]
    assert old in BILINEAR
    module = f"contract_{case.replace(' ', '_')}"
    write_module(f"{module}.py", BILINEAR.replace(old, new))
    with pytest.raises(ConfigError) as refused:
        check_user_model(ModelConfig(f"{module}:Bilinear", dim=4, own={"scale": 0.5}), DATA)
    message = str(refused.value)
    assert message.startswith(f"--model {module}:Bilinear: ")
    line = BILINEAR[: BILINEAR.index(old)].count("\n") + 1
    assert said.replace("MODULE", module).replace("LINE", str(line)) in message
    assert "\n" not in message


def test_a_first_order_part_that_is_said_to_be_there_is_looked_for() -> None:
    source = BILINEAR.replace("user_BE[:, 0]", "2 * user_BE[:, 0]").replace("user_BE[:, :1]", "2 * user_BE[:, :1]")
    assert source != BILINEAR
    write_module("contract_first_order.py", source)
    with pytest.raises(ConfigError, match="has_first_order says that logits adds the bias and column 0"):
        check_user_model(ModelConfig("contract_first_order:Bilinear", dim=4), DATA)
    write_module("contract_without.py", source.replace("has_first_order = True", "has_first_order = False"))
    check_user_model(ModelConfig("contract_without:Bilinear", dim=4), DATA)


def test_scores_that_are_compiled_for_a_base_are_not_taken_for_the_class_s_own() -> None:
    source = """
from torch import Tensor
from app.models.lr import LogisticRegression

class Halved(LogisticRegression):
    def probability(self, logits_N: Tensor) -> Tensor:
        return super().probability(logits_N) if False else 0.5 * logits_N.sigmoid()
"""
    write_module("contract_halved.py", source.replace("super().probability(logits_N) if False else ", ""))
    with pytest.raises(ConfigError, match="overrides top_mlp and user_affine"):
        check_user_model(ModelConfig("contract_halved:Halved"), DATA)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"scale": "much"}, "--option scale=much: expected a float, such as 1.0"),
        ({"heads": 2}, "takes --dim, --option scale=1.0"),
    ],
)
def test_options_that_are_not_understood_are_refused(own: dict[str, object], said: str) -> None:
    write_module("contract_kept.py", BILINEAR)
    with pytest.raises(ConfigError) as refused:
        ModelConfig("contract_kept:Bilinear", own=own)
    assert said in str(refused.value)
    with pytest.raises(ConfigError, match="it is for a class of your own, and fm is none"):
        ModelConfig("fm", own=own)


def test_a_job_refuses_before_it_trains() -> None:
    write_module("contract_in_a_job.py", BILINEAR.replace("items_ND[:, -1] + user_D[-1]", "items_ND[:, -1]"))
    data = replace(DATA, timestamps_N=np.arange(80, dtype=np.int64) + 1_600_000_000)
    config = JobConfig(model=ModelConfig("contract_in_a_job:Bilinear", dim=4), trainer=TrainerConfig(epochs=1))
    said: list[str] = []
    with pytest.raises(ConfigError, match="differs from forward"):
        TrainingJob(config).run(data, None, Path(), name="own", notify=said.append)
    assert not any("Training" in line for line in said)
