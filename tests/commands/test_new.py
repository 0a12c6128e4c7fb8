"""`ctr new`: what it writes can be used as it is, and the five commands that it prints do what they say."""

from __future__ import annotations

import csv
import json
import random
import re
import shlex
from pathlib import Path

import pytest

from app.features.encoder import Encoder
from app.features.fields import SIDES
from app.features.schema import load_schema, parse_schema
from app.inspection.field_values import field_values
from app.inspection.file_match import match_columns, sample_file
from app.training.schema_template import EXAMPLE_CONTEXT, LABEL, TEMPLATE, TIMESTAMP
from tests.command_line import Ctr
from tests.shells import make_shell, served

COLOURS = ("red", "green", "blue")


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_clicks(file: Path, rows: int = 2000, *, timed: bool = True) -> None:
    """Write clicks of users who like the items of one colour."""
    dice = random.Random(5)
    with file.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["user_id", "likes", "item_id", "colour", "device", "clicked", *(["at"] if timed else [])])
        for number in range(rows):
            user, item = dice.randrange(60), 1000 + dice.randrange(40)
            likes, colour = COLOURS[user % 3], COLOURS[item % 3]
            clicked = int(dice.random() < (0.7 if likes == colour else 0.05))
            at = [1_790_000_000 + 60 * number] if timed else []
            writer.writerow([user, likes, item, colour, dice.choice(["web", "app"]), clicked, *at])


def test_the_five_commands_that_are_printed_do_what_they_say(
    ctr: Ctr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clicks(tmp_path / "clicks.csv")
    status, printed, said = ctr("new", "shop", "--data", "clicks.csv")
    assert status == 0, said
    lines = printed.splitlines()
    assert len(lines) == 5
    page = Path("shop/README.md").read_text()
    assert [re.sub(r" +# .*", "", line) for line in page.splitlines() if line.startswith("ctr ")] == lines
    train, check, serve, rank, again = map(shlex.split, lines)
    assert serve == ["ctr", "serve"]

    shell, folder = make_shell(tmp_path), tmp_path / "shop"
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CTR_PORT", shell["CTR_PORT"])
    monkeypatch.setenv("CTR_HOST", "127.0.0.1")
    status, _, said = ctr(*train[1:])
    assert status == 0, said
    assert "Published as stable" in said
    assert "loaded 60 users" in said
    status, out, said = ctr(*check[1:])
    assert status == 0, out + said
    with served(folder, shell, f"exec {shlex.join(serve)}"):
        status, out, said = ctr(*rank[1:], "--json")
        assert status == 0, said
        answer = json.loads(out)
        assert answer["model"] == "shop"
        assert not answer["missing"]["user"]
        assert answer["missing"]["items"] == []
        assert len(answer["items"]) == 3
    status, _, said = ctr(*again[1:])
    assert status in (0, 3), said


def test_without_times_the_last_command_scores(ctr: Ctr) -> None:
    write_clicks(Path("clicks.csv"), 300, timed=False)
    status, out, said = ctr("new", "deep/shop", "--data", "clicks.csv", "--name", "other", "--json")
    assert status == 0, said
    document = json.loads(out)
    assert document["commands"][-1] == "ctr score --data ../../clicks.csv --out scores.csv"
    assert document["name"] == "other"
    assert "--timestamp" not in document["commands"][0]
    assert Path("deep/shop/.env").read_text().splitlines()[-1] == "CTR_MODEL=other"
    assert [Path(file).is_file() for file in document["files"]] == [True] * 3


def test_the_example_is_a_schema_of_the_table_that_it_shows(ctr: Ctr) -> None:
    status, out, said = ctr("new", "shop")
    assert status == 0, said
    assert Path("shop/features.yaml").read_text() == TEMPLATE
    schema = load_schema(Path("shop/features.yaml"))
    columns, row = (line.removeprefix("#").strip() for line in TEMPLATE.splitlines()[2:4])
    Path("clicks.csv").write_text(f"{columns}\n{row}\n")
    sample, encoders = sample_file(Path("clicks.csv"), 10), {side: Encoder(schema, side) for side in SIDES}
    assert match_columns(sample, encoders) == []
    for encoder in encoders.values():
        values = field_values(encoder, encoder and sample.ids(encoder), sample.rows, None)
        assert all(found.given > 0 and not found.invalid for found in values.values())
    read = {field.raw_name for field in schema.fields}
    assert set(columns.split(",")) - read == {LABEL, TIMESTAMP}
    assert EXAMPLE_CONTEXT.keys() == {one.raw_name for one in schema.fields if one.entity == "context"}
    assert f"--label {LABEL} --timestamp {TIMESTAMP}" in out.splitlines()[0]


@pytest.mark.parametrize("name", ["features.yaml", ".env", "README.md"])
def test_nothing_is_overwritten(ctr: Ctr, name: str) -> None:
    folder = Path("shop")
    folder.mkdir()
    (folder / name).write_text("mine\n")
    status, out, error = ctr("new", "shop")
    assert (status, out) == (1, "")
    assert f"shop has {name} already, which is kept: name another folder" in error
    assert [file.name for file in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "mine\n"


def test_a_folder_that_is_empty_or_here_is_taken(ctr: Ctr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "My Shop!").mkdir()
    monkeypatch.chdir(tmp_path / "My Shop!")
    assert ctr("new", ".")[0] == 0
    assert Path(".env").read_text().splitlines()[-1] == "CTR_MODEL=My-Shop"
    parse_schema(Path("features.yaml").read_text())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data", "nowhere.csv"), "nowhere.csv"),
        (("--label", "clicked"), "--label is of a file: name it with --data"),
        (("--name", "a b"), "use letters, digits"),
    ],
)
def test_what_cannot_be_begun_leaves_nothing(ctr: Ctr, options: tuple[str, ...], said: str) -> None:
    status, out, error = ctr("new", "shop", *options)
    assert (status, out) == (1, "")
    assert said in error
    assert not Path("shop").exists()
