"""The command ``finetune-lm grid FILE ACTION``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from finetune_lm.arguments.subcommands import SubcommandParser
from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.errors import UserError
from finetune_lm.grids.grid_file import read_grid
from finetune_lm.grids.grid_runs import GridRun, runs_of
from finetune_lm.grids.grid_status import check_none_failed, summary
from finetune_lm.messages import say

_DESCRIPTION = """\
Do many runs that differ in some arguments, from one file.

  list      print the directories of all runs
  run       do all runs that are not finished, on this machine
  status    say how far they are; exit status 1 if any failed
"""


class _Parser(SubcommandParser):
    """Reads the words behind ``grid``, in whatever order the file and the action are given."""

    def __init__(self) -> None:
        super().__init__("grid", _DESCRIPTION)
        self.add_argument("grid", metavar="FILE", help="The grid file.")
        self.add_argument("action", metavar="ACTION", help=f"One of {', '.join(ACTIONS)}.")
        self.add_argument(
            "--jobs", type=int, default=1, metavar="N", help="run: in so many processes at once."
        )
        self.add_argument(
            "--retry",
            action="store_true",
            help="run: try those again that failed, or whose process died three times.",
        )
        self.add_argument(
            "--threads",
            type=int,
            metavar="N",
            help="run: how many threads each process computes with. With another number of "
            "threads the last digits of results may be others. By default torch decides.",
        )
        self.add_argument("--unchecked", action="store_true", help=argparse.SUPPRESS)

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """What the words say.

        Raises:
            UserError: If they are not what the command takes.
        """
        args = super().read(words)
        if args.grid in ACTIONS and args.action not in ACTIONS:
            args.grid, args.action = args.action, args.grid
        problems = []
        if args.action not in ACTIONS:
            problems.append(
                f"{self.prog}: {args.action} must be one of {', '.join(ACTIONS)}."
                f"{did_you_mean(args.action, ACTIONS)}"
            )
        problems += [
            f"{self.prog}: --{name} must be at least 1 but got {value}."
            for name in ("jobs", "threads")
            if (value := getattr(args, name)) is not None and value < 1
        ]
        if problems:
            raise UserError(*problems)
        return args


def _check(runs: list[GridRun]) -> None:
    from finetune_lm.grids.grid_checks import check_grid  # imports NumPy

    check_grid(runs)


def _list(args: argparse.Namespace, runs: list[GridRun]) -> str:
    _check(runs)
    say(f"{len(runs)} run{'s' * (len(runs) > 1)}")
    return "".join(f"{run.directory}\n" for run in runs)


def _run(args: argparse.Namespace, runs: list[GridRun]) -> None:
    if args.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    if not args.unchecked:
        _check(runs)
    if args.jobs > 1:
        from finetune_lm.grids.local_workers import LocalWorkers

        LocalWorkers(args.grid, args.jobs, retry=args.retry).run()
    else:
        from finetune_lm.grids.walking import Worker

        Worker(runs, retry=args.retry).walk()
    if not args.unchecked:
        say(summary(runs))
        check_none_failed(runs)


def _status(args: argparse.Namespace, runs: list[GridRun]) -> None:
    sys.stdout.write(f"{summary(runs)}\n")
    sys.stdout.flush()
    check_none_failed(runs)


Action = Callable[[argparse.Namespace, list[GridRun]], str | None]

ACTIONS: Mapping[str, Action] = {"list": _list, "run": _run, "status": _status}
"""By name: what is done with the words of the command and the runs of the grid."""


def parser() -> SubcommandParser:
    """What reads the words behind the command."""
    return _Parser()


def do(args: argparse.Namespace) -> str | None:
    """Do what the words ask for.

    Returns:
        What is to be printed.

    Raises:
        UserError: If something is wrong that the user can put right, or a run has failed.
        KeyboardInterrupt: If a signal came.
    """
    # Modules of the user's own are found here, as for a single run.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    return ACTIONS[args.action](args, runs_of(read_grid(args.grid)))
