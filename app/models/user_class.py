"""Find a model class of the user's own by its name, `package.module:Class`, and check that it has the form of a model.

Training alone comes here. A version holds the class's program and never asks for the class again, except to be trained
once more.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
import traceback
from types import ModuleType

from app.errors import ConfigError
from app.models.base import CtrModel

_reference = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)
_OWN_PACKAGE = __name__.partition(".")[0]
_TO_WRITE = ("logits", "encode_user", "encode_items", "score")


def is_user_class(name: str) -> bool:
    """Tell whether a model's name is that of a class of the user's own."""
    return ":" in name


def short_name(name: str) -> str:
    """Return a model's name as a folder can have it: `two_tower` of `shop.models:TwoTower`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.rpartition(":")[2]).lower()


def import_user_class(name: str) -> type[CtrModel]:
    """Import the class `package.module:Class` from the working directory or the installed packages.

    The class's `name` becomes this one: manifests have it as their architecture.

    Raises:
        ConfigError: there is no such module or class, it cannot be imported, or it has not the form of a model.
    """
    match = _reference.fullmatch(name)
    if match is None:
        raise ConfigError(f"--model {name}: write a class of your own as package.module:Class")
    module = _import(name, match[1])
    found = getattr(module, match[2], None)
    if found is None:
        raise ConfigError(f"--model {name}: {match[1]} has no {match[2]}; {_models_of(module)}")
    if not isinstance(found, type) or not issubclass(found, CtrModel):
        raise ConfigError(f"--model {name}: it is no subclass of CtrModel (from app.models.base import CtrModel)")
    if found.__module__.partition(".")[0] == _OWN_PACKAGE:
        raise ConfigError(f"--model {name}: it is a class of ctr-serving's own; use --model {found.name}")
    _check_form(name, found)
    found.name = name
    return found


def describe(error: BaseException, module: str) -> str:
    """Return an error's kind, the first line of its message, and the line of the module's file where it arose."""
    message = (error.msg if isinstance(error, SyntaxError) else str(error)) or ""
    first = next((line.strip() for line in message.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}".removesuffix(": ") + _place(error, module)


def _place(error: BaseException, module: str) -> str:
    if isinstance(error, SyntaxError):
        return f" ({os.path.basename(error.filename or module)}, line {error.lineno})"
    spec = importlib.util.find_spec(module)  # a module that failed to be imported is in no table of modules
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if spec and f.filename == spec.origin]
    return f" ({os.path.basename(spec.origin)}, line {lines[-1]})" if spec and spec.origin and lines else ""


def _import(name: str, module: str) -> ModuleType:
    if module.partition(".")[0] == _OWN_PACKAGE:
        raise ConfigError(f"--model {name}: the package {_OWN_PACKAGE} is ctr-serving's own; call yours otherwise")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` has it; it stays, as the module may import more when it is used
    importlib.invalidate_caches()  # the file may be younger than what this process has read of its folder
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"--model {name}: {module} imports {error.name}, which is not installed") from error
        raise ConfigError(
            f"--model {name}: there is no module {error.name} in {folder} or among the installed packages; "
            "run this where it lies, or install its package"
        ) from error
    except Exception as error:  # whatever the user's module does
        raise ConfigError(f"--model {name}: {module} cannot be imported: {describe(error, module)}") from error


def _models_of(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, CtrModel) and value.__module__ == module.__name__
    ]
    return f"its models are {', '.join(sorted(names))}" if names else "it has no subclass of CtrModel"


def _check_form(name: str, found: type[CtrModel]) -> None:
    missing = [method for method in _TO_WRITE if getattr(found, method) is getattr(CtrModel, method)]
    if missing:
        raise ConfigError(f"--model {name}: it lacks {', '.join(missing)}; app/models/base.py says what each computes")
    parameters = list(inspect.signature(found).parameters.values())
    if not parameters or parameters[0].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        raise ConfigError(f"--model {name}: the first parameter of its __init__ has to be the preprocessing")
    for parameter in parameters[1:]:
        variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if variadic or parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise ConfigError(f"--model {name}: its __init__ takes {parameter}; name every option, with a default")
        if parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"--model {name}: the option {parameter.name} of its __init__ needs a default")
