"""A grid for Python users: its runs are done, and what they left comes back as data frames."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_lm.errors import UserError
from finetune_lm.grids.collecting import axis_columns, load_grid
from finetune_lm.grids.grid_checks import check_grid
from finetune_lm.grids.grid_file import read_grid
from finetune_lm.grids.grid_runs import GridRun, runs_of
from finetune_lm.grids.grid_status import summary
from finetune_lm.grids.local_workers import check_jobs, work
from finetune_lm.grids.run_states import state_of
from finetune_lm.messages import say
from finetune_lm.ranks import world
from finetune_lm.recording.tables import as_frame
from finetune_lm.several_ranks import joined

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("run", "state", "reason", "seconds", "output_dir")


@dataclass(frozen=True)
class GridResult:
    """What the runs of a grid have come to.

    Attributes:
        path: The grid file.
        output_dir: Where the directories of its runs are.
        runs: A row for each run, in the order in which they are done: ``run``, the name of its
            directory; a column for each name in which the runs differ; ``state`` (``finished``,
            ``failed``, ``under way``, ``stopped`` or ``waiting``); ``reason``, why it failed;
            ``seconds``, how long it has taken; ``output_dir``.
    """

    path: str
    output_dir: Path
    runs: pd.DataFrame = field(repr=False)

    @property
    def failed(self) -> pd.DataFrame:
        """The rows of those that failed."""
        return self.runs[self.runs["state"] == "failed"]

    def load(self, table: str | None = None) -> pd.DataFrame:
        """The tables of all finished runs in one, as `load_grid` reads it.

        Args:
            table: Which kind of table: ``tests`` (the default, ``trials`` for studies), ``words``,
                ``pairs``, ``summary``, ``probes``, ``metrics`` and so on; or a pattern of names of
                files.

        Raises:
            UserError: If no run has one.
        """
        return load_grid(self.path, table)


@joined()
def grid(path: str | Path, *, jobs: int = 1, retry: bool = False) -> GridResult:
    """Do all runs of a grid that are not finished, as ``finetune-lm grid FILE run`` does.

    What was stopped goes on, and what another process works at is left to it. A run that fails is
    left with its reason, and the others go on.

    Args:
        path: The grid file. Paths in it begin in the current directory.
        jobs: In so many processes at once. One is this process; several are new ones.
        retry: Whether to try those again that failed, or whose process died three times.

    Returns:
        How each run is now, and its tables.

    Raises:
        UserError: With everything that is wrong with the grid or any of its runs, before the first
            begins.
        KeyboardInterrupt: If a signal came. The same call goes on.

    Example:
        >>> result = grid("grid.yaml", jobs=2)  # doctest: +SKIP
        >>> result.runs.groupby("state").size()  # doctest: +SKIP
        >>> tests = result.load()  # doctest: +SKIP
        >>> tests.groupby(["verb", "seed"])["surprisal"].mean()  # doctest: +SKIP
    """
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise UserError(f"jobs must be an integer of at least 1 but got {jobs!r}.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    check_jobs(jobs)
    file = read_grid(str(path))
    runs = runs_of(file)
    if world().is_first:
        check_grid(runs)
    work(str(path), runs, jobs, retry=retry)
    say(summary(runs))
    return GridResult(str(path), file.output_dir, _table(runs))


def _table(runs: list[GridRun]) -> pd.DataFrame:
    """How each run is."""
    import pyarrow as pa

    states = [state_of(run.directory) for run in runs]
    columns = {
        "run": pa.array([run.name for run in runs]),
        **{
            column: pa.array([run.values[axis] for run in runs]).cast(kind)
            for axis, (column, kind) in axis_columns(runs[0].grid, _COLUMNS).items()
        },
        "state": pa.array([each.state.value for each in states]),
        "reason": pa.array([each.reason or None for each in states], pa.string()),
        "seconds": pa.array([each.seconds for each in states], pa.float64()),
        "output_dir": pa.array([str(run.directory) for run in runs]),
    }
    return as_frame(pa.table(columns))
