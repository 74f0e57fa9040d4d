"""How far the run of a grid is, read off its directory; and what its workers put down there."""

from __future__ import annotations

import enum
import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from finetune_lm.constants import CONFIG_YAML
from finetune_lm.grids.run_log import LOG
from finetune_lm.runs.directory import CHECKPOINTS, MANIFEST, RUN_JSON
from finetune_lm.runs.lock import LOCK, RunLock
from finetune_lm.whole_files import unsealed, write_whole

GRID_RUN = "grid_run.json"
"""What the workers of a grid put down about a run, in its directory."""

MOST_DEATHS = 3
"""A run that took so many processes down with it is not tried again."""


class State(enum.Enum):
    """How far a run is."""

    WAITING = "waiting"
    RUNNING = "under way"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass
class GridRunRecord:
    """What workers have put down about a run.

    Attributes:
        values: Its values by axis.
        digest: What stands for its arguments as they were written.
        n_unended: How many processes have begun with it of which no end is known: those that died,
            and one that is at work.
        failed: Why it failed; None if it has not.
        finished: Whether a study is over, of which the records of its processes say less: each has
            done its own part.
    """

    values: dict[str, str]
    digest: str = ""
    n_unended: int = 0
    failed: str | None = None
    finished: bool = False

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """What there is; None if no worker was here yet, or what it wrote cannot be read."""
        try:
            said = json.loads((directory / GRID_RUN).read_bytes())
            return cls(**said)
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    @property
    def is_left_alone(self) -> bool:
        """Whether the run failed, or took too many processes down with it."""
        return self.failed is not None or self.n_unended >= MOST_DEATHS

    def write(self, directory: Path) -> None:
        """Put it down."""
        with write_whole(directory / GRID_RUN) as aside:
            text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
            aside.write_text(f"{text}\n", encoding="utf-8")


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        state: How far.
        reason: Why it failed; empty if it has not.
        seconds: How long it has taken, in all its processes; None where that is not known.
    """

    state: State
    reason: str = ""
    seconds: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether a worker leaves it as it is."""
        return self.state in (State.FINISHED, State.FAILED)


def state_of(directory: Path, *, is_locked_here: bool = False) -> RunState:
    """How far the run of a directory is.

    Args:
        directory: The directory. It need not be there.
        is_locked_here: Whether this process has its lock.
    """
    if not directory.is_dir():
        return RunState(State.WAITING)
    records = [record for path in _records(directory) if (record := _unsealed(path))]
    seconds = max((_seconds(record) for record in records), default=None)
    said = GridRunRecord.read(directory)
    is_study = any("study" in record for record in records)
    if (said is not None and said.finished) if is_study else _is_finished(records):
        return RunState(State.FINISHED, seconds=seconds)
    if not is_locked_here and RunLock(directory).is_held():
        return RunState(State.RUNNING, seconds=seconds)
    if said is not None and said.is_left_alone:
        reason = said.failed or f"its process died {said.n_unended} times."
        return RunState(State.FAILED, reason, seconds)
    return RunState(State.STOPPED if records else State.WAITING, seconds=seconds)


def data_of(directory: Path) -> str:
    """What stands for the data of a run: the same give the same. Empty where that is not known."""
    record = _unsealed(directory / RUN_JSON) or {}
    hashes = record.get("data_sha256")
    return json.dumps(sorted(hashes.values())) if isinstance(hashes, dict) and hashes else ""


def can_be_resumed(directory: Path) -> bool:
    """Whether a run has left something to go on from."""
    has_config = (directory / CONFIG_YAML).is_file()
    return has_config and any(directory.glob(f"{CHECKPOINTS}/*/{MANIFEST}"))


def clear(directory: Path) -> None:
    """Take away what a run has left that cannot go on, but for what was put down about it."""
    for path in directory.iterdir():
        if path.name in (LOCK, GRID_RUN, LOG):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _records(directory: Path) -> list[Path]:
    """The records of the processes in a directory: a study has several."""
    stem, _, ending = RUN_JSON.partition(".")
    return sorted(directory.glob(f"{stem}*.{ending}"))


def _unsealed(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        return unsealed(path)
    return None


def _seconds(record: dict[str, Any]) -> float:
    with suppress(AttributeError, TypeError, ValueError):
        return float(record.get("seconds", {}).get("total", 0.0))
    return 0.0


def _is_finished(records: list[dict[str, Any]]) -> bool:
    return any(record.get("state") == "finished" for record in records)
