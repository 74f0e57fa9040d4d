"""How deep a run goes: calls of functions of the package, counted with a profile hook.

A call counts if it is on Python's stack, in a file of the package: that of a function, a method, a
closure, a lambda, a property, ``__init__``, ``__call__``, ``__enter__``, a decorator's wrapper, or
of a generator that is asked for its next value. Comprehensions do not count, which newer versions
of Python do not call either, nor does a function that calls itself count twice. Not on the stack
are context managers around a call, and generators that wait. What lies in between in other packages
(torch, Optuna) is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import finetune_lm

PACKAGE = Path(finetune_lm.__file__).parent


class Calls:
    """The calls of functions of the package, each by its name, ``file.py: Class.method``.

    Attributes:
        ways: For each function all ways that led there from the page, the page's own function first
            and itself last.
        order: All calls, in order.
    """

    def __init__(self, page: str) -> None:
        self._page = page
        self.ways: dict[str, set[tuple[str, ...]]] = {}
        self.order: list[str] = []

    def take_in(self, frame: FrameType | None) -> None:
        """Take in the call of which this is the frame."""
        way: list[str] = []
        while frame is not None:
            name = _named(frame.f_code)
            if name is None and not way:
                return
            if name is not None and way[-1:] != [name]:
                way.append(name)
                if name.startswith(f"{self._page}:"):
                    self.ways.setdefault(way[0], set()).add(tuple(reversed(way)))
                    break
            frame = frame.f_back
        self.order.append(way[0])

    def deepest(self, function: str, *, not_through: str = "nothing") -> tuple[int, str]:
        """How many calls below the page a function is at most, and the way to it, for people.

        Args:
            function: How its name ends.
            not_through: Ways that pass through a file whose path begins so do not count.
        """
        found = [
            way
            for name, ways in self.ways.items()
            if name.endswith(function)
            for way in ways
            if not any(step.startswith(not_through) for step in way[:-1])
        ]
        assert found, f"the run does not come to {function}"
        longest = max(found, key=len)
        return len(longest) - 1, " > ".join(longest)


_names: dict[CodeType, str | None] = {}


def _named(code: CodeType) -> str | None:
    if code not in _names:
        path = Path(code.co_filename)
        counts = path.is_relative_to(PACKAGE) and not code.co_name.startswith("<")
        counts = counts or (code.co_name == "<lambda>" and path.is_relative_to(PACKAGE))
        _names[code] = f"{path.relative_to(PACKAGE)}: {code.co_qualname}" if counts else None
    return _names[code]


@contextmanager
def counted(page: str = "experiment.py") -> Iterator[Calls]:
    """Count the calls made inside, from the functions of one file, the page, downwards."""
    calls = Calls(page)

    def hook(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            calls.take_in(frame)

    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        yield calls
    finally:
        sys.setprofile(before)
