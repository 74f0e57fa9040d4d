"""``run.json``: with what, when and how well a run was made."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from finetune_lm.ranks import world
from finetune_lm.whole_files import sealed, write_whole

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

    A run that is resumed has several sessions, one for each process that worked on it. Seconds are
    added up over them.

    Args:
        path: Where ``run.json`` goes.
        earlier: What it says already, if the run is resumed.
        **facts: What is known at the start.
    """

    def __init__(self, path: Path, earlier: dict[str, Any] | None = None, **facts: Any) -> None:
        earlier = earlier or {}
        self._path = path
        self._is_written = world().is_first
        self._begun = {"total": time.monotonic()}
        self._seconds: dict[str, float] = dict(earlier.get("seconds", {}))
        self._peaks: dict[str, float] = dict(earlier.get("peak_memory_mb", {}))
        session = {"started": _now(), "ended": None, "state": "running"}
        self._facts: dict[str, Any] = {
            **earlier,
            "state": "running",
            "started": earlier.get("started", session["started"]),
            "ended": None,
            "error": None,
            "versions": versions(),
            "platform": platform.platform(),
            "processes": world().size,
            "directory": str(Path.cwd()),
            "git_commit": _git_commit(),
            "seconds": {},
            "sessions": [*ended_sessions(earlier), session],
            **facts,
        }
        self.write()

    @property
    def directory(self) -> Path:
        """Where the run writes."""
        return self._path.parent

    def add(self, **facts: Any) -> None:
        """Put more on record."""
        self._facts.update(facts)
        self.write()

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Put on record how long a part of the run takes."""
        self._begun[what] = time.monotonic()
        try:
            yield
        finally:
            self._seconds[what] = self._so_far(what)
            del self._begun[what]
            # Where the disk is full, saying so must not hide why the part ended.
            with suppress(OSError):
                self.write()

    def end(self, state: str, error: str | None = None) -> None:
        """Put on record how the run ended: ``finished``, ``failed`` or ``interrupted``."""
        ended = {"ended": _now(), "state": state}
        self._facts["sessions"][-1].update(ended)
        with suppress(OSError):
            self.add(**ended, error=error)

    def _so_far(self, what: str) -> float:
        return round(self._seconds.get(what, 0.0) + time.monotonic() - self._begun[what], 3)

    def write(self) -> None:
        """Write down how long things have taken up to here. Of several ranks the first does."""
        if not self._is_written:
            return
        # What a run that is killed has on record is what it took up to here.
        running = {what: self._so_far(what) for what in self._begun}
        self._facts["seconds"] = {**self._seconds, **running}
        for device, peak in _peak_memory_mb().items():
            self._peaks[device] = max(peak, self._peaks.get(device, 0.0))
        self._facts["peak_memory_mb"] = self._peaks
        with write_whole(self._path) as aside:
            aside.write_text(sealed(self._facts), "utf-8")


def ended_sessions(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The sessions in a record of processes that are not there any more."""
    sessions = [dict(session) for session in record.get("sessions", [])]
    for session in sessions:
        if session["state"] == "running":
            session["state"] = "killed"
    return sessions


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def versions() -> dict[str, str | None]:
    """The versions of Python and of the packages on which numbers depend."""
    return {"python": platform.python_version(), **{each: _version(each) for each in _PACKAGES}}


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


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
