"""The files around the package: what they promise each other, checked where no container engine is at hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
BENCHMARKS = {"bench", "bench-train", "bench-models", "soak", "faults"}
TARGETS = {"help", "setup", "demo", "test", "test-faults", "lint", "docs", "audit", "lock", "clean"} | BENCHMARKS
MAKE = shutil.which("make")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines), "only plain name==version"
    return {canonical(name): version for name, version in (line.split("==") for line in lines)}


def declared() -> list[str]:
    return [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]


@pytest.mark.parametrize("requirement", declared())
def test_every_dependency_is_pinned_within_its_bounds(requirement: str) -> None:
    matched = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?(?:(>=|==)([0-9.]+))?$", requirement)
    assert matched, requirement
    name, operator, bound = matched.groups()
    pinned = pins()[canonical(name)]

    def numbers(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version.split(".") if part.isdigit())

    if operator == "==":
        assert pinned == bound
    elif operator == ">=":
        assert numbers(pinned) >= numbers(bound)


def test_torch_is_pinned_without_a_build_suffix_and_brings_no_cuda() -> None:
    assert pins()["torch"] == "2.13.0"
    assert not [name for name in pins() if name.startswith(("nvidia", "cuda", "triton"))]


def test_movielens_is_installed_without_its_carriers_dependencies() -> None:
    assert pins()["recbole"] == "1.2.1"
    assert "recbole" not in " ".join(declared())
    for file in (MAKEFILE, (ROOT / "Dockerfile").read_text()):
        assert re.search(r"--no-deps recbole\b", file)


def run_make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    assert MAKE is not None
    # Outside of an enclosing make, whose flags and targets would be taken over.
    return subprocess.run(
        [MAKE, *arguments], cwd=folder, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"}
    )


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
class TestMake:
    def test_help_is_the_default_and_lists_every_target_once(self) -> None:
        shown = run_make()
        assert shown.returncode == 0
        assert [line.split()[1] for line in shown.stdout.splitlines()] == re.findall(
            r"^([a-z-]+):.*## ", MAKEFILE, re.M
        )
        assert {line.split()[1] for line in shown.stdout.splitlines()} == TARGETS
        phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
        assert phony
        assert set(phony[1].split()) == TARGETS

    @pytest.mark.parametrize("version", ["3.10", "3.14"])
    def test_without_a_python_that_is_supported_it_says_so(self, tmp_path: Path, version: str) -> None:
        for name in ("Makefile", "pyproject.toml", "constraints.txt", "setup.py"):
            shutil.copy(ROOT / name, tmp_path)
        other = tmp_path / "other-python"
        major, minor = version.split(".")
        check = f"import sys; sys.version_info = ({major}, {minor}, 1, 'final', 0); exec(sys.argv[1])"
        other.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{check}" "$2"\n')
        other.chmod(0o755)
        refused = run_make("test", f"PYTHON={other} no-such-python", folder=tmp_path)
        assert refused.returncode != 0
        assert "Python 3.11 to 3.13 is needed" in refused.stderr
        assert f"make test PYTHON={'/path/to/python3.11'}" in refused.stderr
        assert not (tmp_path / ".venv").exists()

    def test_it_looks_for_the_pythons_that_the_package_allows(self) -> None:
        listed = re.search(r"^PYTHON \?= (.*) python3$", MAKEFILE, re.M)
        assert listed
        assert [name.removeprefix("python") for name in listed[1].split()] == ["3.11", "3.12", "3.13"]
        assert PROJECT["requires-python"] == ">=3.11,<3.14", "torch does not promise TorchScript for 3.14"

    def test_what_is_set_up_is_not_set_up_again_until_a_pin_changes(self, tmp_path: Path) -> None:
        for name in ("Makefile", "pyproject.toml", "constraints.txt", "setup.py"):
            shutil.copy(ROOT / name, tmp_path)
        (tmp_path / ".venv/bin").mkdir(parents=True)
        for name in ("bin/python", ".ready", ".ready-dev"):
            (tmp_path / ".venv" / name).touch()
        assert "Installing" not in run_make("--dry-run", "test", folder=tmp_path).stdout
        later = time.time() + 10  # clocks of file systems are coarse: what comes first is said, not waited for
        os.utime(tmp_path / "constraints.txt", (later, later))
        again = run_make("--dry-run", "test", folder=tmp_path).stdout
        assert again.index("ziglang") < again.index("--editable") < again.index("-m pytest")
        assert again.index("torch setuptools") < again.index("--editable")

    def test_what_is_compiled_is_compiled_again_when_its_source_changes(self, tmp_path: Path) -> None:
        for name in ("Makefile", "pyproject.toml", "constraints.txt", "setup.py"):
            shutil.copy(ROOT / name, tmp_path)
        shutil.copytree(ROOT / "app/native/src", tmp_path / "app/native/src")
        (tmp_path / ".venv/bin").mkdir(parents=True)
        for name in ("bin/python", ".ready", ".ready-dev"):
            (tmp_path / ".venv" / name).touch()
        now = time.time()  # clocks of file systems are coarse: what comes first is said, not waited for
        for file in tmp_path.rglob("*"):
            os.utime(file, (now, now))
        assert "--editable" not in run_make("--dry-run", "test", folder=tmp_path).stdout
        os.utime(tmp_path / "app/native/src/top_mlp.h", (now + 10, now + 10))
        assert "--editable" in run_make("--dry-run", "test", folder=tmp_path).stdout


def test_ci_runs_the_tests_and_nothing_else() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if not line.startswith("#")]
    assert commands[-1] == "exec make test"
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def stages() -> dict[str, str]:
    """Return the name of each stage of the Dockerfile to its text, with that of the stages it builds on."""
    found: dict[str, str] = {}
    for text in re.split(r"^(?=FROM )", (ROOT / "Dockerfile").read_text(), flags=re.M)[1:]:
        matched = re.match(r"FROM (\S+) AS (\S+)", text)
        assert matched
        found[matched[2]] = found.get(matched[1], "") + text
    return found


def test_the_serving_image_holds_what_serving_needs_and_no_more() -> None:
    service = stages()["service"]
    assert list(stages())[-1] == "service", "what plain `docker build .` makes"
    assert "training.txt" not in service.replace("open('training.txt', 'w')", "")
    assert "recbole" not in service
    assert "ziglang" not in service, "a compiler of half a gigabyte, for the stage that builds the wheel"
    assert service.index("torch==2.13.0") < service.index("runtime.txt")
    assert "/health/live" in service
    assert 'ENTRYPOINT ["ctr"]' in service
    assert 'CMD ["serve"]' in service


@pytest.mark.parametrize("stage", ["service", "training"])
def test_images_run_as_an_ordinary_user_on_a_small_base(stage: str) -> None:
    text = stages()[stage]
    assert text.startswith("FROM python:3.11-slim AS base")
    assert re.findall(r"^USER (\S+)$", text, re.M) == ["ctr"]
    assert re.search(r"^ARG TORCH_INDEX_URL=$", text, re.M), "the default index unless said otherwise"


def test_every_file_an_image_copies_reaches_the_build() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "Dockerfile").read_text(), re.M)
        for name in line.split()[:-1]
    }
    assert copied == let_in
    for name in copied:
        assert (ROOT / name).exists(), name


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_compose_has_the_three_parts_and_their_volumes(compose: dict[str, Any]) -> None:
    services = compose["services"]
    asked_for = {name for name, service in services.items() if "profiles" in service}
    assert (set(services) - asked_for, asked_for) == ({"redis", "service", "training"}, {"retraining"})
    assert set(compose["volumes"]) == {"model_store", "redis_data", "events"}
    for name in ("service", "training"):
        mounts = [volume.split(":") for volume in services[name]["volumes"]]
        assert ["model_store", "/srv/model_store"] in [mount[:2] for mount in mounts]
        assert services[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}
        assert services[name]["build"]["target"] in stages()
    assert services["redis"]["healthcheck"]["test"][0] == "CMD"
    assert services["training"]["restart"] == "no"
    assert services["service"]["ports"] == ["127.0.0.1:8000:8000"]


def test_compose_sets_only_settings_that_exist(compose: dict[str, Any]) -> None:
    known = {f"CTR_{name.upper()}" for name in Settings.model_fields}
    for name in ("service", "training"):
        assert set(compose["services"][name]["environment"]) <= known
    assert set(re.findall(r"\bCTR_[A-Z_]+(?==)", (ROOT / "Dockerfile").read_text())) <= known


def test_the_training_job_runs_commands_that_exist(compose: dict[str, Any]) -> None:
    from app.cli import COMMANDS

    job = compose["services"]["training"]
    assert job["entrypoint"][0] == "/bin/sh"
    lines = job["command"][0].split("\n")
    verbs = [line.split()[1] for line in lines if line]
    assert verbs == ["train", "load", "load"]
    assert set(verbs) <= set(COMMANDS)


def check_changelog(text: str) -> None:
    """Check a changelog against Keep a Changelog 1.1.0: its sections, and the headings of each."""
    sections = re.split(r"^## (.*)$", text, flags=re.M)[1:]
    titles = sections[::2]
    assert titles[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[[0-9]+\.[0-9]+\.[0-9]+] - [0-9]{4}-[0-9]{2}-[0-9]{2}", title) for title in titles[1:])
    for title, content in zip(titles, sections[1::2], strict=True):
        headings = re.findall(r"^###+ ?(.*)$", content, re.M)
        assert headings == [heading for heading in CHANGES if heading in headings], (title, headings)
        assert headings, title


CHANGES = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def test_the_changelog_keeps_to_its_format() -> None:
    check_changelog((ROOT / "CHANGELOG.md").read_text())


@pytest.mark.parametrize(
    "wrong",
    [
        "## [Unreleased]\n\n### Fixed things\n",
        "## [Unreleased]\n\n### Fixed\n\n### Added\n",
        "## [Unreleased]\n\n### Added\n\n### Added\n",
        "## [Unreleased]\n\nNo heading.\n",
        "## Unreleased\n\n### Added\n",
        "## [Unreleased]\n\n### Added\n\n## 0.1.0\n\n### Added\n",
    ],
)
def test_a_changelog_of_another_format_is_found_out(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check_changelog(wrong)
