"""How speed is measured: ratios of processor times of one thread, both sides taken in turn.

What else a machine does changes times threefold; of a ratio of minima it changes little.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

N_TIMES = 5


@dataclass(frozen=True)
class Row:
    """One line of the results.

    Attributes:
        what: What was measured.
        against: What it was compared with.
        value: What came out.
        target: What is to come out.
        met: Whether it did; None where there is no target or nothing was measured.
    """

    what: str
    against: str
    value: str
    target: str = ""
    met: bool | None = None

    @classmethod
    def at_most(cls, what: str, against: str, value: float, target: float, unit: str = "") -> Self:
        """A figure that is to be small."""
        return cls(what, against, f"{value:.3g}{unit}", f"≤ {target:g}{unit}", value <= target)

    @classmethod
    def at_least(cls, what: str, against: str, value: float, target: float, unit: str = "") -> Self:
        """A figure that is to be large."""
        return cls(what, against, f"{value:.3g}{unit}", f"≥ {target:g}{unit}", value >= target)


def processor_time(function: Callable[[], object]) -> float:
    """How long this process computes for a call, in seconds."""
    begun = time.process_time()
    function()
    return time.process_time() - begun


def smallest(*functions: Callable[[], object], n_times: int = N_TIMES) -> list[float]:
    """The least processor time of each function, in seconds, all of them taken in turn.

    Each is called once before that: what is found out once is not what it costs.
    """
    for function in functions:
        function()
    times = [[processor_time(f) for f in functions] for _ in range(n_times)]
    return [min(column) for column in zip(*times, strict=True)]


class Worker:
    """Something to be measured in a process of its own.

    Settings of the allocator and of matrix products hold for a whole process, so what is compared
    under different ones needs several, which take turns.

    Args:
        module: A module of this folder.
        maker: A function of it that makes the function to be measured. That may return its own
            time in seconds; otherwise it is measured.
        kwargs: The keyword arguments of the maker, as JSON can hold them.
    """

    def __init__(self, module: str, maker: str, **kwargs: Any) -> None:
        command = [sys.executable, __file__, module, maker, json.dumps(kwargs)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self) -> float:
        """Do it once and say how many seconds of processor time it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} ended before it was measured.")
        return float(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def smallest_of(workers: list[Worker], n_times: int = N_TIMES) -> list[float]:
    """The least processor time of each worker, in seconds, all of them taken in turn."""
    for worker in workers:
        worker.measure()
    times = [[worker.measure() for worker in workers] for _ in range(n_times)]
    return [min(column) for column in zip(*times, strict=True)]


def _work(module: str, maker: str, kwargs: str) -> None:
    """Do what a `Worker` is asked for, with one number on standard output for each time."""
    answers, sys.stdout = sys.stdout, sys.stderr
    function = getattr(importlib.import_module(module), maker)(**json.loads(kwargs))
    for _ in sys.stdin:
        begun = time.process_time()
        own = function()
        seconds = own if isinstance(own, float) else time.process_time() - begun
        print(seconds, file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _work(*sys.argv[1:])
