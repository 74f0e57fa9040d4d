"""Hashes of the user's own source code behind the arguments, which tell that it was edited."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_lm.arguments.references import Reference

_OURS = Path(__file__).resolve().parents[1]
_PYTHONS = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
_INSTALLED = {"site-packages", "dist-packages"}


def source_hashes(value: Any) -> dict[str, str]:
    """Hash the source of every module of the user's own that a class or function comes from.

    So are those that such a module imports. The libraries that are installed, Python's and this
    one are not the user's own: their versions tell what they are. Of a program that was started
    as such (`__main__`), which may well differ when a run goes on, only the classes and functions
    themselves count.

    Args:
        value: Classes and functions in dictionaries and lists, at any depth.

    Returns:
        SHA-256 by the name of each module.
    """
    hashes: dict[str, str] = {}
    waiting: list[tuple[str, Path]] = []
    for each in _objects(value):
        name = each.__name__ if isinstance(each, types.ModuleType) else str(each.__module__)
        module = sys.modules.get(name)
        file = _own_file(module)
        if name == "__main__":
            try:
                source = inspect.getsource(each).encode()
            except (OSError, TypeError):  # typed in, or made by a program
                continue
            hashes[f"{name}.{getattr(each, '__qualname__', '')}"] = _sha256(source)
            waiting += [] if file is None else _imported(file, "")
        elif file is not None:
            waiting.append((name, file))
    while waiting:
        name, file = waiting.pop()
        if name in hashes:
            continue
        hashes[name] = _sha256(file.read_bytes())
        is_package = file.name == "__init__.py"
        waiting += _imported(file, name if is_package else name.rpartition(".")[0])
    return dict(sorted(hashes.items()))


def _objects(value: Any) -> Iterator[Any]:
    """Every class, function and module in a value, and the classes that these inherit from."""
    if value is None or isinstance(value, str | bytes | int | float | complex | Reference):
        return
    if isinstance(value, Mapping):
        yield from _objects(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _objects(item)
    elif isinstance(value, functools.partial):
        yield from _objects([value.func, value.args, value.keywords])
    elif isinstance(value, type):
        yield from value.__mro__
    elif isinstance(value, types.ModuleType):
        yield value
    elif hasattr(value, "__qualname__") and getattr(value, "__module__", None):
        yield value
        inner = inspect.unwrap(value)
        if inner is not value:
            yield from _objects(inner)
    else:
        yield from type(value).__mro__


def _own_file(module: types.ModuleType | None) -> Path | None:
    """The file of a module if it is the user's own."""
    name = getattr(module, "__file__", None)
    return _if_own(Path(name)) if isinstance(name, str) else None


def _if_own(file: Path) -> Path | None:
    file = file.resolve()
    if _INSTALLED.intersection(file.parts) or not file.is_file():
        return None
    if any(file.is_relative_to(place) for place in (_OURS, *_PYTHONS)):
        return None
    return file


def _imported(file: Path, package: str) -> Iterator[tuple[str, Path]]:
    """The modules of the user's own that a module imports: those loaded, or beside it."""
    for name in _imported_names(file.read_bytes(), package):
        own = _own_file(sys.modules.get(name))
        if own is None and name not in sys.modules:
            beside = file.parent.joinpath(*name.split("."))
            places = (beside.with_name(f"{beside.name}.py"), beside / "__init__.py")
            own = next(filter(None, map(_if_own, places)), None)
        if own is not None:
            yield name, own


@functools.lru_cache(maxsize=256)  # what many runs of a process use is parsed once
def _imported_names(source: bytes, package: str) -> tuple[str, ...]:
    """The names of the modules that a module in a package may import, each once."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # no Python, such as one that was compiled
        return ()
    return tuple(dict.fromkeys(_names_in(tree, package)))


def _names_in(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name(
                    "." * node.level + (node.module or ""), package or None
                )
            except ImportError:  # a relative import outside of a package
                continue
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
