"""Several processes make a run if a launcher has said to each which it is; others are told so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from finetune_lm.errors import UserError
from finetune_lm.ranks import world
from finetune_lm.runs.over_ranks import optimizer_problems, over_ranks_problems
from finetune_lm.runs.same_for_all import check_programs_and_arguments

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
    # Where nobody chose a seed each rank has drawn one.
    all_args[1].seed = world().decided(lambda: all_args[1].seed)
    problems = [problem for args in all_args for problem in args.problems()]
    if world().size > 1 and not problems:
        check_programs_and_arguments(all_args)
        problems = [*over_ranks_problems(all_args), *optimizer_problems(all_args)]
    if problems:
        raise UserError(*problems)
    check_one_process(is_study=all_args[2].do_optimize)


def check_one_process(*, is_study: bool = False) -> None:
    """See that this process is not one of several that do not know of each other.

    Args:
        is_study: Whether it works at a study, which srun may start as several workers.

    Raises:
        UserError: If it is.
    """
    if world().size > 1:
        return
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
        f"this must be one process, but {name} is {os.environ[name]}. Several processes make one "
        f"run where torchrun or accelerate launch has started them: torchrun --nproc-per-node 2 -m "
        f"finetune_lm ... With srun start one task for each node, which starts torchrun."
    )
