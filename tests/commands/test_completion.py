"""Shells propose commands, options and names, without importing what trains or serves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.commands.completion import (
    ARCHITECTURES,
    DATASETS,
    architectures,
    datasets,
    labels_and_versions,
    published_models,
    versions,
)
from app.models import MODELS
from app.training.data.catalogue import DATASETS as READABLE
from tests.command_line import Ctr
from tests.pages import ROOT

HEAVY = ("torch", "polars", "numpy", "pydantic_settings", "httpx", "redis", "sklearn")
"""What a command imports when it runs, and nobody who asks for help has to wait for."""


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `ctr` as its console script does, in a process of its own and a home of its own."""
    code = "import sys; sys.argv[0] = 'ctr'; from app.cli import main; main()"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CTR_")}
    environment = clean | {"PYTHONPATH": str(ROOT), "HOME": str(folder)} | environment
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def complete(folder: Path, line: str) -> list[str]:
    """Return what bash is told for a line whose last word is being typed."""
    words = line.split(" ")
    asked = {"_CTR_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = run(folder, **asked)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_the_lists_are_those_of_the_code() -> None:
    assert tuple(MODELS) == ARCHITECTURES
    assert DATASETS == READABLE


def test_a_shell_is_told_commands_options_and_names(tmp_path: Path) -> None:
    (tmp_path / "model_store" / "shop" / "12").mkdir(parents=True)
    (tmp_path / ".env").write_text("CTR_MODEL=shop\nCTR_MODLE=typo\n")
    assert complete(tmp_path, "ctr pr") == ["promote"]
    assert complete(tmp_path, "ctr events f") == ["forget"]
    assert complete(tmp_path, "ctr train --mo") == ["--model"]
    assert complete(tmp_path, "ctr train --dataset mo") == ["movielens"]
    assert complete(tmp_path, "ctr train --effort ") == ["quick", "default", "high"]
    assert complete(tmp_path, "ctr check --model s") == ["shop"]
    assert complete(tmp_path, "ctr promote ") == ["12"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_a_shell(tmp_path: Path, shell: str) -> None:
    done = run(tmp_path, "--install-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    written = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    assert any("_CTR_COMPLETE" in text for text in written)


def test_names_are_found_in_the_model_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CTR_MODEL_STORE", raising=False)
    monkeypatch.delenv("CTR_MODEL", raising=False)
    assert published_models("") == versions("") == []
    for name in ("shop/1", "shop/2", "shop/10", "shop/.tmp-3", "deepfm/7"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
    (tmp_path / "elsewhere" / "shop" / "serving.json").write_text("{}")
    (tmp_path / ".env").write_text("# comment\nexport CTR_MODEL_STORE='elsewhere'\nCTR_MODEL=\n")
    assert published_models("") == ["deepfm", "shop"]
    assert published_models("s") == ["shop"]
    assert versions("") == ["7"]
    monkeypatch.setenv("CTR_MODEL", "shop")
    assert versions("") == ["10", "2", "1"]
    assert versions("1") == ["10", "1"]
    assert labels_and_versions("") == ["stable", "canary", "shadow", "10", "2", "1"]
    assert labels_and_versions("s") == ["stable", "shadow"]


def test_architectures_and_datasets_by_their_beginnings() -> None:
    assert datasets("lib") == ["libsvm", "libffm"]
    assert architectures("neural") == ["neural_cf", "neural_cf_towers"]
    assert datasets("x") == architectures("x") == []


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, typer; from app.cli import cli\n"
        "for line in (['--help'], ['train', '--help'], ['events', 'check', '--help']):\n"
        "    try: cli(line, prog_name='ctr')\n"
        "    except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "--install-completion" in done.stdout
    assert done.stderr.strip() == "[]"


def test_nothing_but_proposals_is_written_where_settings_are_wrong(ctr: Ctr, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CTR_MODLE=shop\n")
    assert "CTR_MODLE" in run(tmp_path, "models").stderr
    assert complete(tmp_path, "ctr mod") == ["models"]
