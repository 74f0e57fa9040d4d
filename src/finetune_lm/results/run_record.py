"""``run.json``: with what, when and how well a run was made."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from finetune_lm.results.whole_files import write_whole

_PACKAGES = (
    "finetune-lm",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "datasets",
    "pyarrow",
    "numpy",
    "pandas",
)


class RunRecord:
    """The record of one run, rewritten whole at every change.

    Args:
        path: Where ``run.json`` goes.
        **facts: What is known at the start.
    """

    def __init__(self, path: Path, **facts: Any) -> None:
        self._path = path
        self._begun = time.monotonic()
        self._facts: dict[str, Any] = {
            "state": "running",
            "started": _now(),
            "versions": {"python": platform.python_version(), **_versions()},
            "platform": platform.platform(),
            "git_commit": _git_commit(),
            "seconds": {},
            **facts,
        }
        self._write()

    def add(self, **facts: Any) -> None:
        """Put more on record."""
        self._facts.update(facts)
        self._write()

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Put on record how long a part of the run takes."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._facts["seconds"][what] = round(time.monotonic() - begun, 3)
            self._write()

    def end(self, state: str, error: str | None = None) -> None:
        """Put on record how the run ended: ``finished``, ``failed`` or ``interrupted``."""
        self._facts["seconds"]["total"] = round(time.monotonic() - self._begun, 3)
        # Where the disk is full, saying so must not hide why the run ended.
        with suppress(OSError):
            self.add(state=state, ended=_now(), error=error, peak_memory_mb=_peak_memory_mb())

    def _write(self) -> None:
        with write_whole(self._path) as aside:
            aside.write_text(json.dumps(self._facts, indent=2, default=str) + "\n", "utf-8")


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _git_commit() -> str | None:
    """The commit of the project that the run is started in, if it is under git."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def _peak_memory_mb() -> dict[str, float]:
    """The most memory that this process has had, by device."""
    peaks = {}
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Linux counts in KiB, macOS in bytes.
        peaks["cpu"] = round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
    except ImportError:  # Windows
        pass
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peaks["cuda"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return peaks
