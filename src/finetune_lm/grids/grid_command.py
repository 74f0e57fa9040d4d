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
from finetune_lm.grids.local_workers import check_jobs
from finetune_lm.messages import say
from finetune_lm.ranks import world

_DESCRIPTION = """\
Do many runs, described in one file, that differ in some arguments.

  list      print the directories of all runs
  run       do all unfinished runs on this machine
  submit    submit them to a cluster with SLURM; options of sbatch may follow --
  status    show the progress of all runs; exit status 1 if any failed
  collect   combine the tables of all finished runs into one, OUT: .parquet or .csv.gz
"""


class _Parser(SubcommandParser):
    """Reads the words behind ``grid``, in whatever order the file and the action are given."""

    def __init__(self) -> None:
        super().__init__("grid", _DESCRIPTION)
        self.add_argument("grid", metavar="FILE", help="The grid file.")
        self.add_argument("action", metavar="ACTION", help=f"One of {', '.join(ACTIONS)}.")
        self.add_argument("out", metavar="OUT", nargs="?", help="collect: where the table goes.")
        self.add_argument(
            "--table",
            metavar="NAME",
            help="collect: which tables: tests (the default), words, pairs, summary, probes, "
            "probe_words, probe_pairs, probe_summary, metrics, metric_words, trials (the default "
            "for studies); or a pattern of names of files.",
        )
        self.add_argument(
            "--jobs",
            type=int,
            default=1,
            metavar="N",
            help="run: number of processes at once; submit: number of processes in each task.",
        )
        self.add_argument(
            "--retry",
            action="store_true",
            help="run, submit: also repeat runs that failed, or whose process died three times.",
        )
        self.add_argument(
            "--threads",
            type=int,
            metavar="N",
            help="run, submit: number of threads of each process. The last digits of results may "
            "depend on it. By default torch decides.",
        )
        self.add_argument(
            "--tasks",
            type=int,
            metavar="N",
            help="submit: maximum number of tasks in the job array.",
        )
        self.add_argument(
            "--time", metavar="TIME", help="submit: time limit of a task, as for sbatch."
        )
        self.add_argument(
            "--dry-run", action="store_true", help="submit: print the script and exit."
        )
        self.add_argument(
            "--nproc-per-node",
            type=int,
            metavar="N",
            help="submit: number of processes that make each run together, on each node of a task "
            "(torchrun).",
        )
        self.add_argument("--unchecked", action="store_true", help=argparse.SUPPRESS)

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """What the words say.

        Raises:
            UserError: If they are not what the command takes.
        """
        words = list(words)
        middle = words.index("--") if "--" in words else len(words)
        args = super().read(self._positionals_first(words[:middle]))
        args.sbatch = words[middle + 1 :]
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
            for name in ("jobs", "threads", "tasks", "nproc-per-node")
            if (value := getattr(args, name.replace("-", "_"))) is not None and value < 1
        ]
        if args.action == "submit" and args.tasks is None:
            problems.append(f"{self.prog}: submit needs --tasks, in how many tasks to do the runs.")
        if args.action != "submit":
            given = {"--tasks": args.tasks, "--time": args.time, "--dry-run": args.dry_run}
            given |= {"--nproc-per-node": args.nproc_per_node, "--": args.sbatch}
            names = ", ".join(name for name, value in given.items() if value)
            if names:
                problems.append(f"{self.prog}: {names} can only be given to submit.")
        if args.action == "collect" and args.out is None:
            problems.append(f"{self.prog}: collect needs the name of a .parquet or .csv.gz file.")
        if args.action != "collect":
            given = {args.out: args.out, "--table": args.table}
            problems += [
                f"{self.prog}: {name} can only be given to collect."
                for name, value in given.items()
                if value is not None
            ]
        if problems:
            raise UserError(*problems)
        return args

    def _positionals_first(self, words: Sequence[str]) -> list[str]:
        """The words with options last, since argparse takes what is optional in one place only."""
        takes = {n for a in self._actions if a.nargs is None for n in a.option_strings}
        positionals, options = [], []
        left = iter(words)
        for word in left:
            if not word.startswith("-"):
                positionals.append(word)
                continue
            options.append(word)
            if word in takes and (value := next(left, None)) is not None:
                options.append(value)
        return [*positionals, *options]


def _check(runs: list[GridRun]) -> None:
    from finetune_lm.grids.grid_checks import check_grid  # imports NumPy

    check_grid(runs)


def _summary(runs: list[GridRun]) -> str:
    from finetune_lm.grids.grid_status import summary

    return summary(runs)


def _check_none_failed(runs: list[GridRun]) -> None:
    from finetune_lm.grids.grid_status import check_none_failed

    check_none_failed(runs)


def _list(args: argparse.Namespace, runs: list[GridRun]) -> str:
    _check(runs)
    say(f"{len(runs)} run{'s' * (len(runs) > 1)}")
    return "".join(f"{run.directory}\n" for run in runs)


def _run(args: argparse.Namespace, runs: list[GridRun]) -> None:
    if args.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    if not args.unchecked and world().is_first:
        _check(runs)
    from finetune_lm.grids.followed_runs import GpuLostError
    from finetune_lm.grids.local_workers import work

    try:
        work(args.grid, runs, args.jobs, retry=args.retry)
    except GpuLostError as error:
        if world().size > 1:
            raise UserError(f"{error} Give the command again: it goes on.") from error
        say(f"{error} Beginning anew ...")
        again = [sys.executable, "-m", "finetune_lm", "grid", args.grid, "run"]
        os.execv(sys.executable, [*again, *(["--unchecked"] if args.unchecked else [])])
    if not args.unchecked and world().is_first:
        say(_summary(runs))
        _check_none_failed(runs)


def _submit(args: argparse.Namespace, runs: list[GridRun]) -> str | None:
    from finetune_lm.grids.submission import Submission

    time = [] if args.time is None else ["--time", args.time]
    threads = [] if args.threads is None else ["--threads", str(args.threads)]
    jobs = [] if args.jobs == 1 else ["--jobs", str(args.jobs)]
    options = [*time, *args.sbatch]
    if args.nproc_per_node is not None:
        options += ["--nproc-per-node", str(args.nproc_per_node)]
    submission = Submission(
        runs, args.grid, args.tasks, options, [*jobs, *threads], retry=args.retry
    )
    script = submission.script()  # what is wrong with it is told before runs are checked
    _check(runs)
    if script is None:
        say("nothing is left to do.")
        return None
    return script if args.dry_run else f"{submission.submit(script)}\n"


def _status(args: argparse.Namespace, runs: list[GridRun]) -> None:
    sys.stdout.write(f"{_summary(runs)}\n")
    sys.stdout.flush()
    _check_none_failed(runs)


def _collect(args: argparse.Namespace, runs: list[GridRun]) -> None:
    from finetune_lm.grids.collecting import collect, default_table

    say(collect(runs, Path(args.out), args.table or default_table(runs)).told())


Action = Callable[[argparse.Namespace, list[GridRun]], str | None]

ACTIONS: Mapping[str, Action] = {
    "list": _list,
    "run": _run,
    "submit": _submit,
    "status": _status,
    "collect": _collect,
}
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
    if args.action == "run":
        check_jobs(args.jobs)
    elif not world().is_first:
        return None
    # Modules of the user's own are found here, as for a single run.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    return ACTIONS[args.action](args, runs_of(read_grid(args.grid)))
