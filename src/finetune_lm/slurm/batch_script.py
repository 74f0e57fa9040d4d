"""The script that ``sbatch`` is given: it starts a program, and again where that has stopped."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_lm.constants import CONFIG_YAML
from finetune_lm.errors import UserError
from finetune_lm.runs.requeueing import STATUS_FILE
from finetune_lm.slurm.sbatch_options import SbatchOptions

TASK = "{task}"
"""Stands for the number of an array's task."""

NPROC_PER_NODE = "nproc-per-node"
"""Our own option among those of ``sbatch``, named as torchrun's is."""

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
status=$?{told}

# 138: SIGUSR1, sent before the time is up. 143: SIGTERM, where another job takes the place. A job
# that somebody has cancelled does not count as running any more, and is not started again.
if [ $status -eq 138 ] || [ $status -eq 143 ]; then
    state=$(squeue --noheader --jobs "$job" --format %T)
    if [ "$state" = RUNNING ]; then scontrol requeue "$job"; fi
fi
exit $status
"""

_TOLD = """
# torchrun has an exit status of its own.
if [ $status -ne 0 ] && [ -s "${name}" ]; then status=$(cat "${name}"); fi
rm -f "${name}" || true"""

_RUN = """\
run={run_dir}
if [ -e "$run/{config}" ]; then
    srun {program} --resume "$run"
else
    srun {program} {words}
fi"""


@dataclass(frozen=True)
class Launch:
    """Several processes that make a run together, which torchrun starts on each node.

    Attributes:
        n_per_node: How many on each.
        has_several_nodes: Whether the job has more than one node.
        longest_end: How many seconds they may take to their end once they have been told to stop.
    """

    n_per_node: int
    has_several_nodes: bool
    longest_end: int

    def shell(self) -> tuple[str, str]:
        """What comes before the program, and the program, in the language of the shell."""
        python, *program = PROGRAM
        before = [f'export {STATUS_FILE}="$PWD/.status-$job"', f'rm -f "${STATUS_FILE}"']
        words = [python, "-m", "torch.distributed.run", "--nproc-per-node", str(self.n_per_node)]
        # It hands these on, and waits until what has to be saved is saved.
        words += ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]
        words += ["--shutdown-timeout", str(self.longest_end)]
        found = "--standalone"
        if self.has_several_nodes:
            before.append('head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)')
            found = (
                '--nnodes "$SLURM_JOB_NUM_NODES" --rdzv-backend c10d --rdzv-id "$job" '
                '--rdzv-endpoint "$head:$((20000 + SLURM_JOB_ID % 10000))"'
            )
        return "\n".join(before) + "\n", f"{shlex.join(words)} {found} {shlex.join(program)}"


def launch_of(options: SbatchOptions) -> tuple[SbatchOptions, Launch | None]:
    """Options of ``sbatch`` without ``--nproc-per-node``, which is ours, and what that asks for.

    Raises:
        UserError: If it is no number of processes, or does not go with another option.
    """
    if not options.has(NPROC_PER_NODE):
        return options, None
    text, nodes = options.value(NPROC_PER_NODE), options.value("nodes") or "1"
    if text is None or not text.isdecimal() or int(text) < 1:
        raise UserError(
            f"--{NPROC_PER_NODE} must be how many processes there are on each node, but got "
            f"{text or 'nothing'}."
        )
    tasks = options.value("ntasks")
    if (options.value("ntasks-per-node") or "1") != "1" or tasks not in (None, nodes):
        raise UserError(
            f"with --{NPROC_PER_NODE} there must be one task on each node, which starts the "
            f"others. Leave out --ntasks and --ntasks-per-node."
        )
    launch = Launch(int(text), nodes != "1", options.longest_end)
    return options.without(NPROC_PER_NODE), launch


@dataclass(frozen=True)
class Command:
    """What a job does.

    Attributes:
        name: What the job is called, unless it has a name.
        words: The arguments of this program. `TASK` in them stands for the number of the task.
        run_dir: The output directory of the run that it makes. A job that is started again goes on
            with what is there. None if the same words do that by themselves.
        launch: The processes that do it together; None for one.
    """

    name: str
    words: Sequence[str]
    run_dir: str | None = None
    launch: Launch | None = None

    def shell(self) -> str:
        """The command in the language of the shell."""
        before, program = self.launch.shell() if self.launch else ("", shlex.join(PROGRAM))
        words = " ".join(map(_quoted, self.words))
        if self.run_dir is None:
            return f"{before}srun {program} {words}"
        return before + _RUN.format(
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
        told=_TOLD.format(name=STATUS_FILE) if command.launch else "",
    )


def _quoted(word: str) -> str:
    """A word as the shell must read it to get it as it is, with the task's number put in."""
    parts = [shlex.quote(part) if part else "" for part in word.split(TASK)]
    return '"$SLURM_ARRAY_TASK_ID"'.join(parts) or "''"
