"""``finetune-lm sbatch``: a script for ``sbatch`` that makes a run, a run a task, or a study."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from finetune_lm.arguments.subcommands import SubcommandParser
from finetune_lm.errors import UserError
from finetune_lm.slurm.batch_script import Launch, batch_script, launch_of
from finetune_lm.slurm.sbatch_options import SbatchOptions

_DESCRIPTION = """\
Print a script for sbatch that does the run or the study of ARGS, and resumes it whenever its time
was up or another job took its place:

  finetune-lm sbatch --time 4:00:00 --gres gpu:1 -- \\
    --config mine.yaml --use_gpu --output_dir outputs/mine | sbatch

Before -- come options of sbatch, long or short, and --nproc-per-node N: then torchrun starts N
processes on each node, which make the run together. ARGS must have an --output_dir. With --array
the tasks are processes of one study, or a run each: {task} in ARGS stands for the number of the
task, as in --seed {task} --output_dir outputs/mine/{task}."""


class _Parser(SubcommandParser):
    """Takes the words before ``--`` as they are, for ``sbatch``."""

    def __init__(self) -> None:
        super().__init__("sbatch", _DESCRIPTION)
        self.usage = "finetune-lm sbatch [--OPTION_OF_SBATCH VALUE ...] -- ARGS"

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """What the words say: ``options`` before ``--``, and ``words`` behind it."""
        words = list(words)
        middle = words.index("--") if "--" in words else len(words)
        if not words[middle + 1 :]:
            raise UserError(
                "the arguments of the run must come after --, as in finetune-lm sbatch --time "
                "1:00:00 -- --config mine.yaml --output_dir outputs/mine."
            )
        options = [word for word in words[:middle] if word != "--debug"]
        return argparse.Namespace(options=options, words=words[middle + 1 :])


def parser() -> SubcommandParser:
    """What reads the words behind the command."""
    return _Parser()


def do(args: argparse.Namespace) -> str:
    """The script.

    Raises:
        UserError: With all that is wrong with the options and with what each task is to do.
    """
    from finetune_lm.slurm.job_arguments import job_command

    problems: list[str] = []
    options = SbatchOptions()
    launch: Launch | None = None
    try:
        options = SbatchOptions.read(args.options)
        options, launch = launch_of(options)
    except UserError as error:
        problems += error.problems
    try:
        command = replace(job_command(args.words, options), launch=launch)
    except UserError as error:
        raise UserError(*problems, *error.problems) from error
    if problems:
        raise UserError(*problems)
    return batch_script(command, options, Path.cwd())
