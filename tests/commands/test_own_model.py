"""The example of docs/models.md: a class of one's own is trained, published and ranks where its module does not lie."""

from __future__ import annotations

import json
import random
import shlex
import sys
from pathlib import Path

import pytest

from app.registry.artifact.manifest_file import read_manifest
from tests.command_line import Ctr
from tests.models.user_models import BILINEAR, write_module
from tests.pages import DOCS, blocks
from tests.shells import make_shell, served

COLOURS = ("red", "green", "blue")
ARGUMENTS = ("--dataset", "table", "--data", "clicks.csv", "--features", "features.yaml", "--label", "clicked")
FEATURES = """\
version: 1
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: likes, entity: user, type: categorical}
  - {name: item_id, entity: item, type: categorical, id: true}
  - {name: colour, entity: item, type: categorical}
"""


def write_clicks(rows: int = 1500) -> None:
    """Write clicks of users who like the items of one colour."""
    dice = random.Random(3)
    lines = ["user_id,likes,item_id,colour,at,clicked"]
    for at in range(rows):
        user, item = dice.randrange(50), dice.randrange(40)
        likes, colour = COLOURS[user % 3], COLOURS[item % 3]
        clicked = int(dice.random() < (0.6 if likes == colour else 0.1))
        lines.append(f"{user},{likes},{item},{colour},{1_700_000_000 + at * 60},{clicked}")
    Path("clicks.csv").write_text("\n".join(lines) + "\n")
    Path("features.yaml").write_text(FEATURES)


def example() -> list[str]:
    """Return the arguments of the page's `ctr train`."""
    (block,) = (b for b in blocks((DOCS / "models.md").read_text(), "sh") if "shop_models:Bilinear" in b)
    train, serve = block.replace("\\\n", " ").strip().splitlines()
    assert serve.startswith("CTR_MODEL=own CTR_PORT=8001 ctr serve")
    return shlex.split(train)[1:]


@pytest.mark.usefixtures("unrendered")
def test_the_example_is_trained_published_and_ranks_without_its_module(
    tmp_path: Path, ctr: Ctr, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, folder, elsewhere = make_shell(tmp_path), tmp_path / "shop", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(folder)
    write_clicks()
    write_module("shop_models.py", BILINEAR)
    monkeypatch.syspath_prepend(str(folder))
    status, _, said = ctr(*example(), "--effort", "quick", "--epochs", "4", "--force")
    assert status == 0, said
    assert "Published as stable" in said
    assert "loaded 50 users" in said
    manifest = read_manifest(folder / "model_store" / "own" / "1")
    assert manifest.architecture == "shop_models:Bilinear"
    shape = {"name": "shop_models:Bilinear", "dim": 16, "hidden": None, "dropout": None, "seed": 0}
    assert manifest.config["model"] == {**shape, "own": {"scale": 0.5}}

    shell |= {"CTR_MODEL": "own", "CTR_MODEL_STORE": str(folder / "model_store"), "CTR_DATA_DIR": str(folder / ".ctr")}
    with served(elsewhere, shell, "exec ctr serve") as client:
        answer = client.post("/rank", json={"user_id": "4", "item_ids": ["1", "2", "3"], "explain": True}).json()
        assert (answer["model"], answer["version"]) == ("own", 1)
        assert len(answer["items"]) == 3
        assert "sum of parts" in answer["items"][0]["explanation"]["no_parts"]
    # Training again is another matter.
    monkeypatch.chdir(elsewhere)
    monkeypatch.delitem(sys.modules, "shop_models")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    again = (
        "retrain",
        "--data",
        str(folder / "clicks.csv"),
        "--timestamp",
        "at",
        "--label",
        "clicked",
        "--model",
        "own",
    )
    store = ("--model-store", str(folder / "model_store"))
    status, _, error = ctr(*again, *store)
    assert status == 2
    assert f"there is no module shop_models in {elsewhere} or among the installed packages" in error
    status, out, error = ctr("models", "--model", "own", *store, "--json")
    assert status == 0, error
    assert json.loads(out)["versions"][0]["architecture"] == "shop_models:Bilinear"
    monkeypatch.chdir(folder)
    status, out, error = ctr(*again, *store, "--warm", "--epochs", "1", "--min-gain", "-1", "--force", "--json")
    assert status == 0, error
    assert json.loads(out)["version"] == 2
    assert read_manifest(folder / "model_store" / "own" / "2").config["model"] == manifest.config["model"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--model", "own_commands:Bilinear", "--hidden", "8"),
            "--hidden: own_commands:Bilinear has none; leave it out",
        ),
        (("--model", "own_commands:Bilinear", "--option", "scale"), "expected NAME=VALUE, such as heads=4"),
        (("--model", "own_commands:Bilinear", "--option", "scale=wide"), "expected a float, such as 1.0"),
        (("--model", "own_commands:Linear"), "own_commands has no Linear; its models are Bilinear"),
        (("--option", "scale=1"), "--option scale: it is for a class of your own, and deepfm is none"),
    ],
)
def test_what_is_not_understood_is_refused_before_anything_is_read(
    ctr: Ctr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_module("own_commands.py", BILINEAR)
    status, _, error = ctr("train", *ARGUMENTS, *options)
    assert status == 1
    assert said in error
    assert "Reading" not in error
