"""Dotted names and the Python objects they stand for, in both directions."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.constants import USER_PACKAGES
from finetune_lm.errors import UserError


@dataclass(frozen=True)
class Reference:
    """A Python object by its dotted name, imported only when it is needed.

    Defaults such as `torch.optim.AdamW` are references, so that defining the arguments and
    showing their help imports nothing.
    """

    name: str

    def resolve(self) -> Any:
        """Import the object."""
        return resolve_name(self.name)


def default_object(name: str) -> Any:
    """Return a reference, typed as the object that it will be."""
    return Reference(name)


def possible_reference(name: str) -> Reference:
    """Return a reference, without looking whether there is such an object.

    Raises:
        UserError: If it is no name that Python could import.
    """
    _parts_of(name)
    return Reference(name)


def resolve_references(value: Any) -> Any:
    """Return nested dictionaries and lists with every reference replaced by its object."""
    if isinstance(value, Reference):
        return value.resolve()
    if isinstance(value, dict):
        return {key: resolve_references(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve_references(item) for item in value]
    return value


def resolve_name(name: str) -> Any:
    """Return the object that a dotted name stands for.

    A documented name of the packages that users extend comes first, then an ordinary import with
    the current directory on the path.

    Raises:
        UserError: If there is no such object, or if importing its module failed.
    """
    _put_current_directory_on_path()
    first, *rest = name.split(".")
    if first in USER_PACKAGES and rest:
        package = _import_module(f"finetune_lm.{first}")
        documented = getattr(package, "__all__", ())
        if package is not None and rest[0] in documented:
            return _follow(package, rest, name)
        if not _is_users_own(first, rest[0]):
            close = did_you_mean(rest[0], documented, f"{first}.")
            raise UserError(_not_found(name, f"{first} has no {rest[0]!r}", close))
    return _import_object(name)


def resolve_builtin(name: str) -> Any:
    """Return one of Python's builtin functions or classes."""
    found = vars(builtins).get(name)
    if callable(found) and name.isidentifier():
        return found
    callables = [key for key, value in vars(builtins).items() if callable(value)]
    raise UserError(
        f"callable:{name} is not a Python builtin.{did_you_mean(name, callables, 'callable:')}"
    )


def _put_current_directory_on_path() -> None:
    # Last, so that a file in the directory of an experiment cannot stand in for an installed
    # package; for good, so that the user's modules can import each other later.
    directory = os.getcwd()  # noqa: PTH109 - sys.path holds texts
    if not {directory, ""} & set(sys.path):
        sys.path.append(directory)


def _is_users_own(package: str, name: str) -> bool:
    """Whether there is a module of the user's that has a package's name, and may hold a name."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is not None:
        return spec is not None
    # A directory is a module to Python even if it holds nothing of the kind, such as data.
    places = [Path(place) / name for place in spec.submodule_search_locations or ()]
    return any(place.is_dir() or place.with_suffix(".py").is_file() for place in places)


def _import_module(name: str) -> types.ModuleType | None:
    """Import a module; None where there is no module of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            return None
        raise UserError(_describe_failed_import(name, error)) from error
    except (Exception, SystemExit) as error:
        raise UserError(_describe_failed_import(name, error)) from error


def _describe_failed_import(name: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
        message = error.msg
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith("<frozen ")
        ]
        place = f"{frames[-1].filename}:{frames[-1].lineno}"
        message = " ".join(str(error).split())
    return f"importing {name} failed with {type(error).__name__}: {message} ({place})."


def _parts_of(name: str) -> list[str]:
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise UserError(_not_found(name, "it is not a name that Python could import", ""))
    return parts


def _import_object(name: str) -> Any:
    parts = _parts_of(name)
    module = _import_module(parts[0])
    if module is None:
        reason = f"there is no module {parts[0]!r}"
        names = {*USER_PACKAGES, *(info.name for info in pkgutil.iter_modules())}
        raise UserError(_not_found(name, reason, did_you_mean(parts[0], names)))
    used = 1
    # The last part is looked up as an attribute first: `package.mean` is the function that the
    # package offers, even where a file of that name defines it.
    while used < len(parts) - 1:
        submodule = _import_module(".".join(parts[: used + 1]))
        if submodule is None:
            break
        module, used = submodule, used + 1
    return _follow(module, parts[used:], name)


def _follow(module: types.ModuleType, parts: list[str], name: str) -> Any:
    found: Any = module
    for position, part in enumerate(parts):
        try:
            found = getattr(found, part)
        except AttributeError:
            submodule = (
                _import_module(f"{found.__name__}.{part}")
                if isinstance(found, types.ModuleType)
                else None
            )
            if submodule is None:
                parent = name.rsplit(".", len(parts) - position)[0]
                close = did_you_mean(part, _names_in(found), f"{parent}.")
                raise UserError(_not_found(name, f"{parent} has no {part!r}", close)) from None
            found = submodule
        except Exception as error:
            raise UserError(_describe_failed_import(name, error)) from error
    return found


def _names_in(parent: Any) -> set[str]:
    documented = getattr(parent, "__all__", None)
    names = {str(name) for name in documented or dir(parent)}
    if isinstance(parent, types.ModuleType) and not documented:
        names |= {info.name for info in pkgutil.iter_modules(getattr(parent, "__path__", []))}
    return names


def _not_found(name: str, reason: str, close: str) -> str:
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    return (
        f"{shown!r} cannot be imported: {reason}.{close} "
        f"If the text itself is meant, put quotes around it: '\"{shown}\"'."
    )


def name_of(value: Any) -> str | None:
    """Return the text from which the value rules make this very object, or None.

    The shortest public name is taken, so `torch.optim.SGD` and not `torch.optim.sgd.SGD`. Only
    modules that are loaded are searched, and only what they already hold, so nothing is imported.
    A name that was found is looked up the next time, since the search goes through all modules.
    """
    if isinstance(value, Reference):
        *parents, last = value.name.split(".")
        is_plain = bool(parents) and all(map(str.isidentifier, (*parents, last)))
        return value.name if is_plain else f"import:{value.name}"
    if isinstance(value, types.ModuleType):
        return f"import:{value.__name__}" if sys.modules.get(value.__name__) is value else None
    for package in USER_PACKAGES:
        module = sys.modules.get(f"finetune_lm.{package}")
        for documented in getattr(module, "__all__", ()):
            if vars(module).get(documented) is value:
                return f"{package}.{documented}"
    own_name = getattr(value, "__name__", None)
    if isinstance(own_name, str) and vars(builtins).get(own_name) is value:
        return f"callable:{own_name}"
    is_kept = isinstance(value, _KEPT_KINDS)
    if is_kept and value in _found_names and _leads_to(_found_names[value], value):
        return _found_names[value]
    name = next((name for name in _candidates(value) if _leads_to(name, value)), None)
    if is_kept and name is not None:
        _found_names[value] = name
    return name


_KEPT_KINDS = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_found_names: dict[Any, str] = {}


def _candidates(value: Any) -> Iterator[str]:
    """Yield dotted names that may lead to an object, the most readable first."""
    home = getattr(value, "__module__", None) or ""
    root = home.split(".")[0]
    names = set()
    if home and isinstance(qualified := getattr(value, "__qualname__", None), str):
        names.add(f"{home}.{qualified}")
    owner = getattr(value, "__self__", None)
    if isinstance(owner, type):  # a method of a class, such as datetime.datetime.now
        names.add(f"{owner.__module__}.{owner.__qualname__}.{getattr(value, '__name__', '')}")

    def is_at_home(name: str) -> bool:
        return not home or name.split(".")[0] == root

    def readability(name: str) -> tuple[bool, int, int, str]:
        parts = name.split(".")
        return any(part.startswith("_") for part in parts), len(parts), len(name), name

    # A module that merely imported the object is not where a reader would look for it. To search
    # the thousands that do not belong to its package takes as long as a short epoch.
    for at_home in (True, False):
        for module_name, module in list(sys.modules.items()):
            if is_at_home(module_name) is at_home:
                # Only what a module already holds: getattr could set off imports. Some packages
                # put objects in sys.modules that are no modules and hold nothing.
                held_by_name = list(getattr(module, "__dict__", {}).items())
                names.update(
                    [f"{module_name}.{key}" for key, held in held_by_name if held is value]
                )
        importable = [
            name
            for name in names
            if is_at_home(name) is at_home
            and not name.startswith("__main__.")
            and all(map(str.isidentifier, name.split(".")))
        ]
        yield from sorted(importable, key=readability)


def _leads_to(name: str, value: Any) -> bool:
    try:
        found = resolve_name(name)
    except UserError:
        return False
    # A method of a class is a new, equal object each time it is looked up.
    is_method = isinstance(value, types.MethodType | types.BuiltinMethodType)
    return found is value or (is_method and type(found) is type(value) and found == value)


def describe(value: Any) -> str:
    """Return a name for an object, or what it is where it has none; never an address."""
    name = name_of(value)
    if name is not None:
        return name
    own_name = getattr(value, "__name__", None)
    if isinstance(value, type):
        return f"<class {own_name}, given in Python>"
    if isinstance(own_name, str) and callable(value):
        return f"<function {own_name}, given in Python>"
    return f"<{type(value).__name__} object, given in Python>"


def short_name(value: Any) -> str:
    """Return the last part of an object's name: the one by which its kwargs are given."""
    if isinstance(value, Reference):
        return value.name.rpartition(".")[2]
    return str(getattr(value, "__name__", type(value).__name__))


def numbered_names(values: Sequence[Any]) -> list[str]:
    """Return the short name of each object, numbered from 1 where there are several of one name.

    Example:
        >>> numbered_names([int, str, int])
        ['int_1', 'str', 'int_2']
    """
    counts = Counter(map(short_name, values))
    seen: Counter[str] = Counter()
    names = []
    for name in map(short_name, values):
        seen[name] += 1
        names.append(f"{name}_{seen[name]}" if counts[name] > 1 else name)
    return names
