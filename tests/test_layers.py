"""The way through the house is one way: nothing imports from above it, and there is no circle."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "finetune_lm"


def layers() -> list[str]:
    """Packages and modules from top to bottom, as CONTRIBUTING lists them."""
    block = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("src/finetune_lm/\n")[1]
    lines = [line for line in block.split("```")[0].splitlines() if line.startswith("  ")]
    names = [line.split()[0] for line in lines if not line.startswith("   ")]
    return [name.rstrip("/").removesuffix(".py") for name in names]


MODULES = {
    ".".join(("finetune_lm", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(node: ast.AST) -> Iterator[str]:
    """The modules of the package that some code imports, types for annotations left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").startswith("finetune_lm"):
            for alias in child.names:
                name = f"{child.module}.{alias.name}"
                yield name if name in MODULES else str(child.module)
        elif isinstance(child, ast.Import):
            yield from (a.name for a in child.names if a.name.startswith("finetune_lm"))
        yield from imports(child)


@functools.cache
def imports_of_modules() -> dict[str, set[str]]:
    return {
        name: set(imports(ast.parse(path.read_text("utf-8")))) & MODULES.keys() - {name}
        for name, path in MODULES.items()
    }


def layer(module: str) -> str:
    return (*module.split("."), "")[1]


def test_every_part_of_the_package_is_a_layer():
    parts = {layer(name) for name in MODULES} - {"", "__init__"}
    assert sorted(layers()) == sorted(parts)


def test_nothing_imports_from_above_it():
    height = {name: -number for number, name in enumerate(layers())}
    wrong = [
        f"{name} imports {other}"
        for name, others in imports_of_modules().items()
        for other in others
        if layer(name) and layer(other) and height[layer(other)] > height[layer(name)]
    ]
    assert not wrong


def test_no_file_comes_back_to_itself():
    imported = imports_of_modules()
    for start in MODULES:
        seen, ahead = set(), set(imported[start])
        while ahead:
            name = ahead.pop()
            assert name != start
            if name not in seen:
                seen.add(name)
                ahead |= imported[name]
