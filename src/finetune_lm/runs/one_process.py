"""One process makes a run: several that launchers start for one run are told so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from finetune_lm.errors import UserError

if TYPE_CHECKING:
    from finetune_lm.runs.run_identity import AllArguments

_N_PROCESSES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""What torchrun, accelerate launch and MPI say."""

_N_TASKS = "SLURM_STEP_NUM_TASKS"
"""How many tasks srun has started with one command. How many a job may have (SLURM_NTASKS) says
nothing of a program that the job starts by itself."""

_RANKS = ("RANK", "LOCAL_RANK")


def check_arguments(all_args: AllArguments) -> None:
    """See that arguments can be used, as far as no file is needed, and so by this process.

    Raises:
        UserError: With everything that is wrong.
    """
    problems = [problem for args in all_args for problem in args.problems()]
    if problems:
        raise UserError(*problems)
    check_one_process(is_study=all_args[2].do_optimize)


def check_one_process(*, is_study: bool = False) -> None:
    """See that this process is not one of several that are to make one run.

    Args:
        is_study: Whether it works at a study, which srun may start as several workers.

    Raises:
        UserError: If it is.
    """
    for name in (*_N_PROCESSES, *(() if is_study else (_N_TASKS,))):
        if _number(name, 1) > 1:
            raise _several(name)
    for name in _RANKS:
        if _number(name, 0) > 0:
            raise _several(name)


@contextmanager
def alone() -> Iterator[None]:
    """Let libraries not look for other processes where a launcher has started this one alone."""
    hidden = {name: os.environ.pop(name) for name in _RANKS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdecimal() else default


def _several(name: str) -> UserError:
    return UserError(
        f"a run must be one process, since several are not supported yet, but {name} is "
        f"{os.environ[name]}. Start it without torchrun, accelerate launch and mpirun, as one task "
        f"of srun."
    )
