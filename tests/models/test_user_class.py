"""A model class of the user's own is found by its name, and what is wrong with it is said in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.models import MODELS, build, model_class, options_of
from app.models.user_class import import_user_class, is_user_class, short_name
from tests.factories import fitted
from tests.models.user_models import BILINEAR, write_module


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, not looked in afterwards. Modules stay imported, so each test has other names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_class_is_imported_from_the_working_directory_and_has_its_name_from_there() -> None:
    write_module("own_shop/models.py", BILINEAR)
    found = model_class("own_shop.models:Bilinear")
    assert found.name == "own_shop.models:Bilinear"
    assert options_of("own_shop.models:Bilinear") == {"dim": 8, "scale": 1.0}
    model = build("own_shop.models:Bilinear", fitted(), dim=3, scale=0.5)
    assert (model.dim, model.name) == (3, "own_shop.models:Bilinear")
    with pytest.raises(ConfigError, match="has no hidden; it takes dim, scale"):
        build("own_shop.models:Bilinear", fitted(), hidden=(4,))


def test_a_class_is_imported_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module("own_packages/own_installed.py", BILINEAR)
    monkeypatch.syspath_prepend(str(tmp_path / "own_packages"))
    assert import_user_class("own_installed:Bilinear").__module__ == "own_installed"


def test_names_of_ours_are_none_of_the_user_s() -> None:
    assert not any(map(is_user_class, MODELS))
    assert [short_name(name) for name in ("deepfm", "a.b:TwoTower", "a:DCNv2", "a:_X")] == [
        "deepfm",
        "two_tower",
        "dcnv2",
        "_x",
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet", "--model resnet: unknown; choose one of deepfm"),
        ("own:models:Bilinear", "write a class of your own as package.module:Class"),
        ("own_models:", "write a class of your own as package.module:Class"),
        ("../own_models:Bilinear", "write a class of your own as package.module:Class"),
        ("own_nowhere:Bilinear", "there is no module own_nowhere in "),
        ("own_models.deeper:Bilinear", "own_models.deeper"),
        ("own_models:Bilinar", "own_models has no Bilinar; its models are Bilinear"),
        ("own_models:torch", "own_models:torch: it is no subclass of CtrModel"),
        ("own_models:FM", "it is a class of ctr-serving's own; use --model fm"),
        ("app.models.fm:FM", "the package app is ctr-serving's own; call yours otherwise"),
        ("json:JSONDecoder", "it is no subclass of CtrModel"),
        ("json:Models", "json has no Models; it has no subclass of CtrModel"),
    ],
)
def test_what_cannot_be_had_is_said_with_what_to_do(name: str, said: str) -> None:
    write_module("own_models.py", "from app.models.fm import FM\n" + BILINEAR)
    with pytest.raises(ConfigError) as refused:
        model_class(name)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import own_missing_package", "own_broken imports own_missing_package, which is not installed"),
        ("from torch import no_such_layer", "cannot be imported: ImportError: cannot import name"),
        ("1 / 0", "own_broken cannot be imported: ZeroDivisionError: division by zero (own_broken.py, line 2)"),
        ("def half(", "own_broken cannot be imported: SyntaxError: '(' was never closed (own_broken.py, line 2)"),
    ],
)
def test_a_module_that_fails_is_named_with_the_line(line: str, said: str) -> None:
    write_module("own_broken.py", f'"""Broken."""\n{line}\n')
    with pytest.raises(ConfigError) as refused:
        model_class("own_broken:Bilinear")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def encode_items", "def encode_things", "it lacks encode_items"),
        (
            "dim: int = 8, scale: float = 1.0",
            "scale: float, dim: int = 8",
            "option scale of its __init__ needs a default",
        ),
        ("scale: float = 1.0", "**options: float", "its __init__ takes **options: float; name every option"),
        ("self, preprocessing: Preprocessing, dim: int = 8, scale: float = 1.0", "self", "has to be the preprocessing"),
    ],
)
def test_a_class_without_the_form_of_a_model_is_refused(old: str, new: str, said: str) -> None:
    assert old in BILINEAR
    module = f"own_{''.join(filter(str.isalpha, new))}"
    write_module(f"{module}.py", BILINEAR.replace(old, new))
    with pytest.raises(ConfigError) as refused:
        model_class(f"{module}:Bilinear")
    assert said in str(refused.value)
