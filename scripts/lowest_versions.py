"""Print the lowest versions that pyproject.toml allows, as constraints for pip.

`make test-lowest` installs them. PyTorch stays as `constraints.txt` has it, because its older
releases come with gigabytes of CUDA, and so do the tools that run the tests.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AS_PINNED = ("torch",)
TOOLS = ("hypothesis", "pytest")
_AT_LEAST = re.compile(r"(?P<name>[A-Za-z0-9._-]+)>=(?P<version>[0-9.]+) *(?P<marker>;.*)?")


def lowest(requirement: str) -> str:
    """Return a requirement with its lower bound as the only version.

    Example:
        >>> lowest("numpy>=2.0")
        'numpy==2.0'

    Raises:
        ValueError: If it has no lower bound, or another bound besides.
    """
    found = _AT_LEAST.fullmatch(requirement)
    if found is None:
        raise ValueError(f"a dependency must have a lower bound alone but is {requirement!r}.")
    return f"{found['name']}=={found['version']}{found['marker'] or ''}"


def main() -> None:
    """Print a line for each dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0]: line for line in lines}
    for line in map(lowest, project["dependencies"]):
        name = line.partition("==")[0]
        print(pinned[name] if name in AS_PINNED else line)
    for name in TOOLS:
        print(pinned[name])


if __name__ == "__main__":
    main()
