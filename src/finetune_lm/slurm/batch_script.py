"""The script that ``sbatch`` is given: it starts a program, and again where that has stopped."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_lm.constants import CONFIG_YAML
from finetune_lm.slurm.sbatch_options import SbatchOptions

TASK = "{task}"
"""Stands for the number of an array's task."""

PROGRAM = (sys.executable, "-m", "finetune_lm")
"""By its whole path, so that a job needs no environment to be active."""

_SCRIPT = """\
#!/bin/bash
{options}

cd {directory} || exit 1

# Otherwise SIGTERM would end this shell, and the program with it before that has saved its state.
trap : TERM

# srun does not take this over from sbatch by itself.
if [ -n "$SLURM_CPUS_PER_TASK" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi

# A task of an array by its own name: its number may be that of the whole array.
job=$SLURM_JOB_ID
if [ -n "$SLURM_ARRAY_TASK_ID" ]; then job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID; fi

{command}
status=$?

# 138: SIGUSR1, sent before the time is up. 143: SIGTERM, where another job takes the place. A job
# that somebody has cancelled does not count as running any more, and is not started again.
if [ $status -eq 138 ] || [ $status -eq 143 ]; then
    state=$(squeue --noheader --jobs "$job" --format %T)
    if [ "$state" = RUNNING ]; then scontrol requeue "$job"; fi
fi
exit $status
"""

_RUN = """\
run={run_dir}
if [ -e "$run/{config}" ]; then
    srun {program} --resume "$run"
else
    srun {program} {words}
fi"""


@dataclass(frozen=True)
class Command:
    """What a job does.

    Attributes:
        name: What the job is called, unless it has a name.
        words: The arguments of this program. `TASK` in them stands for the number of the task.
        run_dir: The output directory of the run that it makes. A job that is started again goes on
            with what is there. None if the same words do that by themselves.
    """

    name: str
    words: Sequence[str]
    run_dir: str | None = None

    def shell(self) -> str:
        """The command in the language of the shell."""
        program = shlex.join(PROGRAM)
        words = " ".join(map(_quoted, self.words))
        if self.run_dir is None:
            return f"srun {program} {words}"
        return _RUN.format(
            run_dir=_quoted(self.run_dir), config=CONFIG_YAML, program=program, words=words
        )


def batch_script(command: Command, options: SbatchOptions, directory: Path) -> str:
    """A script for ``sbatch``.

    It starts the program by ``srun``, which hands signals on to it; SLURM sends it SIGUSR1 some
    time before the job's time is up. When the program has saved its state and ended, the script has
    its own job queued again: of an array only this task.

    Args:
        command: What to do.
        options: What the job needs.
        directory: Where it is done.
    """
    lines = options.named(command.name).lines()
    return _SCRIPT.format(
        options="\n".join(f"#SBATCH {line}" for line in lines),
        directory=shlex.quote(str(directory.absolute())),
        command=command.shell(),
    )


def _quoted(word: str) -> str:
    """A word as the shell must read it to get it as it is, with the task's number put in."""
    parts = [shlex.quote(part) if part else "" for part in word.split(TASK)]
    return '"$SLURM_ARRAY_TASK_ID"'.join(parts) or "''"
