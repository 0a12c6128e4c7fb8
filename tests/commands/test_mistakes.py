"""Whatever a user does wrong, a command says in one line what, where and what to do, and never shows a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from app.cli import COMMANDS
from app.commands.unexpected_errors import in_one_line
from tests.command_line import Ctr

TRAIN = ("train", "--dataset", "table", "--effort", "quick", "--label", "clicked")
OK = ("--data", "ok.csv", "--features", "ok.yaml")
SCHEMA = """\
fields:
 - {name: user_id, entity: user, type: categorical, id: true}
 - {name: item_id, entity: item, type: categorical, id: true}
"""
MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no such file": (("schema", "infer", "no.csv"), "no.csv: no such file"),
    "a folder in place of a file": (("load", "users", "folder.csv"), "folder.csv: no file in this folder has data"),
    "an empty folder": (("schema", "infer", "folder.csv"), "folder.csv: no file in this folder has data"),
    "random bytes": (("schema", "infer", "random.parquet"), "random.parquet: cannot be read"),
    "a header alone": (("schema", "infer", "header.csv"), "header.csv: has no rows"),
    "no schema": ((*TRAIN, "--data", "ok.csv"), "`ctr schema infer FILE` proposes one"),
    "a schema that is a folder": ((*TRAIN, *OK[:2], "--features", "folder.csv"), "cannot be read: Is a directory"),
    "a schema that is none": ((*TRAIN, *OK[:2], "--features", "broken.yaml"), "broken.yaml:3: not YAML: expected"),
    "a schema that is a list": ((*TRAIN, *OK[:2], "--features", "list.yaml"), "expected a mapping"),
    "a wrong type": (("load", "users", "ok.csv", "--features", "typed.yaml"), "typed.yaml:2: field 'a': needs a name"),
    "no such column": ((*TRAIN[:-1], "label", *OK), "ok.csv: no column label; it has"),
    "events that are not joined": (
        (*TRAIN, *OK[:2], "--features", "joined.yaml"),
        "training reads one table: join the users' and the items' columns to the events first",
    ),
    "no time": ((*TRAIN, *OK, "--timestamp", "at"), "ok.csv: no column at; it has"),
    "no data": ((*TRAIN, *OK[2:]), "needs --data PATH"),
    "one class": ((*TRAIN, "--data", "same.csv", *OK[2:]), "every clicked is 0; there is nothing to learn from"),
    "an export into a file": ((*TRAIN, *OK, "--export", "ok.csv"), "--export ok.csv: no file can be written there"),
    "a device that is not here": ((*TRAIN, *OK, "--device", "tpu"), "torch finds no such GPU here"),
    "a file that is there": (
        ("schema", "infer", "ok.csv", "--out", "ok.yaml"),
        "ok.yaml is there already, and is kept",
    ),
    "a folder that is not there": (("schema", "infer", "ok.csv", "--out", "no/x.yaml"), "No such file or directory"),
    "no version in a folder": (("publish", "folder.csv"), "holds no version (no manifest.json)"),
    "no version in a store": (("promote", "3"), "has no version 3"),
    "nothing to return to": (("rollback",), "has no live version in model_store"),
    "a name that is a path": (("models", "--model", "../x"), "use letters, digits"),
    "no service": (("rank", "1", "2", "--url", "http://127.0.0.1:1"), "start it with `ctr serve`"),
    "no address": (("rank", "1", "2", "--url", "nonsense"), "nonsense does not answer"),
    "no address to bench": (("bench", "rank", "--url", "ftp://x"), "expected http://host:port"),
    "a context that is none": (("rank", "1", "2", "--context", "hour"), "expected name=value, or a JSON object"),
    "a context that is no JSON": (("rank", "1", "2", "--context", "{hour"), "not a JSON object"),
    "layers that are words": (("synth", "--hidden", "wide"), "expected widths such as"),
    "no such host": (("serve", "--host", "no.such.host.invalid"), "cannot listen on no.such.host.invalid"),
    "an unknown format": (("tune", "--dataset", "netflix"), "unknown; choose one of"),
}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("CTR_")]:
        monkeypatch.delenv(variable)
    Path("folder.csv").mkdir()
    Path("random.parquet").write_bytes(bytes(range(256)))
    Path("header.csv").write_text("user_id,item_id,clicked\n")
    Path("ok.csv").write_text("user_id,item_id,clicked\n" + "".join(f"u{n % 7},i{n % 9},{n % 2}\n" for n in range(99)))
    Path("same.csv").write_text("user_id,item_id,clicked\n" + "u,i,0\n" * 50)
    Path("ok.yaml").write_text(SCHEMA)
    joined = SCHEMA + "".join(f" - {{name: {name}, entity: user, type: categorical}}\n" for name in ("city", "age"))
    Path("joined.yaml").write_text(joined)
    Path("broken.yaml").write_text("fields:\n - {name: [\n")
    Path("list.yaml").write_text("- 1\n")
    Path("typed.yaml").write_text("fields:\n - {name: a, entity: user, type: 3}\n")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(ctr: Ctr, name: str) -> None:
    arguments, complaint = MISTAKES[name]
    status, out, err = ctr(*arguments)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (status, out, len(errors)) == (1, "", 1), err
    assert err.splitlines()[-1] == errors[0], "nothing follows it"
    assert complaint in errors[0]
    assert "Traceback" not in err
    assert "this should not happen" not in err


BAD_SETTINGS = {
    "CTR_REDIS_URL": ("localhost:6379", ("load", "users", "ok.csv", "--id", "user_id")),
    "CTR_PORT": ("http", ("rank", "1", "2")),
    "CTR_DATA_DIR": ("ok.csv", ("load", "users", "ok.csv", "--id", "user_id")),
    "CTR_MODEL": ("a/b", ("models",)),
    "CTR_SIGNING_KEY": ("no.pem", ("models",)),
    "CTR_TRUSTED_KEYS": ("no.pem", ("models",)),
}


@pytest.mark.parametrize("variable", BAD_SETTINGS)
def test_a_wrong_setting_is_one_line(ctr: Ctr, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value, arguments = BAD_SETTINGS[variable]
    monkeypatch.setenv(variable, value)
    status, _, err = ctr(*arguments)
    last = err.splitlines()[-1]
    assert (status, last.startswith("error: ")) == (1, True), err
    assert variable in last or "model name" in last
    assert "Traceback" not in err


ERRORS: list[tuple[BaseException, str]] = [
    (PermissionError(errno.EACCES, "Permission denied", "x.csv"), "x.csv: Permission denied; this user may not"),
    (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "runs/x: No space left on device; free some space"),
    (OSError(errno.EROFS, "Read-only file system", "runs"), "runs: Read-only file system; it is read-only there"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "x.csv"), "x.csv: Is a directory; name a file"),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "Connection refused; is the server running"),
    (
        redis.ConnectionError("Connection closed\nby server."),
        "Redis does not answer as it should: Connection closed by",
    ),
    (MemoryError(), "there is not enough memory"),
    (ModuleNotFoundError("No module named 'polars'"), "a library is missing or broken: No module"),
    (KeyError("user_id"), "KeyError: 'user_id'; this should not happen: CTR_LOG_LEVEL=debug shows where"),
    (ValueError("a\nb" * 2000), "ValueError: a ba ba b"),
]


@pytest.mark.parametrize(("error", "line"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_that_nobody_foresaw_is_one_line_too(
    ctr: Ctr, monkeypatch: pytest.MonkeyPatch, error: BaseException, line: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("app.training.data.schema_proposal.propose_schema", fail)
    status, out, err = ctr("schema", "infer", "ok.csv")
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {line}")
    assert len(err.splitlines()) == 1
    assert len(in_one_line(error)) < 700
    monkeypatch.setenv("CTR_LOG_LEVEL", "debug")
    assert "Traceback" in ctr("schema", "infer", "ok.csv")[2]


def test_ctrl_c_is_one_word_and_the_status_of_shells(ctr: Ctr, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.training.data.schema_proposal.propose_schema", interrupt)
    assert ctr("schema", "infer", "ok.csv") == (130, "", "interrupted\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_behind_standard_output_is_said() -> None:
    program = [sys.executable, "-c", "from app.cli import main; main()", "schema", "infer", "ok.csv"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with open("/dev/full", "w") as full:
        ended = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "error: No space left on device; free some space, or name another place"
    assert "Exception ignored" not in ended.stderr


def test_the_version_is_printed(ctr: Ctr) -> None:
    status, out, _ = ctr("--version")
    assert status == 0
    assert out.startswith("ctr-serving 0.")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(ctr: Ctr, command: str) -> None:
    status, out, _ = ctr(*command.split(), "--help")
    assert status == 0
    assert "--json" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_breaks_lines_where_the_terminal_ends_and_nowhere_else(ctr: Ctr, command: str) -> None:
    _, out, _ = ctr(*command.split(), "--help")
    above = out.split("\u256d")[0].splitlines()
    for line, after in pairwise(above):
        if line.strip() and after.strip():
            assert len(line.rstrip()) + len(after.split()[0]) >= 78, f"{line!r} has room for {after.split()[0]!r}"
