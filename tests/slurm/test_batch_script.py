"""What a script does, with a cluster whose commands are scripts themselves."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from finetune_lm.errors import UserError
from finetune_lm.slurm.batch_script import PROGRAM, Command, batch_script, launch_of
from finetune_lm.slurm.sbatch_options import SbatchOptions

JOB = {"SLURM_JOB_ID": "70"}
TASK = {"SLURM_JOB_ID": "70", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"}
COMMANDS = {
    "srun": 'printf "%s\\0" "$@" >words; echo "$SRUN_CPUS_PER_TASK" >cpus; exit $STATUS',
    "squeue": 'test "$3" = "$JOB" && echo $STATE',
    "scontrol": 'echo "$@" >>requeued',
}


@pytest.fixture
def bash(tmp_path):
    """Runs a script with these variables; returns its status and what it has queued again."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, text in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)

    def run(command, status=0, state="RUNNING", **variables):
        script = batch_script(command, SbatchOptions(), tmp_path)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        array, task = (variables.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
        done = subprocess.run(
            ["bash"],
            input=script,
            env={
                **kept,
                **variables,
                "PATH": f"{commands}:{os.environ['PATH']}",
                "STATUS": str(status),
                "STATE": state,
                "JOB": f"{array}_{task}" if array else variables["SLURM_JOB_ID"],
            },
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.stderr == ""
        requeued = tmp_path / "requeued"
        what = requeued.read_text() if requeued.exists() else ""
        requeued.unlink(missing_ok=True)
        return done.returncode, what

    return run


def words(tmp_path):
    """What the program was given."""
    given = (tmp_path / "words").read_text().split("\0")
    assert tuple(given[: len(PROGRAM)]) == PROGRAM
    return given[len(PROGRAM) : -1]


ODD = ["a b", "", "$HOME", "'", '"', "`ls`", "\\", "*", "~", "line\nbreak", "é", "{now}"]


def test_the_program_is_given_its_arguments_as_they_are(bash, tmp_path):
    assert bash(Command("x", ODD), **JOB) == (0, "")
    assert words(tmp_path) == ODD


def test_a_task_is_given_its_number(bash, tmp_path):
    given = ["{task}", "a{task}b c{task}", "out/{task}", "'{task}'"]
    assert bash(Command("x", given), **TASK) == (0, "")
    assert words(tmp_path) == ["3", "a3b c3", "out/3", "'3'"]


@pytest.mark.parametrize("variables", [JOB, TASK])
def test_a_run_that_has_begun_is_gone_on_with(bash, tmp_path, variables):
    """If and only if it has left a config.yaml, which is the last thing that it needs."""
    run_dir, there = "outputs/it's {task}", tmp_path / "outputs" / "it's 3"
    if variables is JOB:
        run_dir, there = "outputs/it's", tmp_path / "outputs" / "it's"
    command = Command("x", ["--seed", "1"], run_dir)
    there.mkdir(parents=True)
    (there / "run.json").touch()
    bash(command, **variables)
    assert words(tmp_path) == ["--seed", "1"]
    (there / "config.yaml").touch()
    bash(command, **variables)
    assert words(tmp_path) == ["--resume", str(there.relative_to(tmp_path))]


@pytest.mark.parametrize("variables", [JOB, TASK])
@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING", ""])
@pytest.mark.parametrize("status", [0, 1, 2, 130, 137, 138, 143])
def test_when_a_job_is_queued_again_and_which(bash, variables, state, status):
    """Of an array only the task; nothing that is finished, has failed or was cancelled."""
    name = "70_3" if variables is TASK else "70"
    again = f"requeue {name}\n" if status in (138, 143) and state == "RUNNING" else ""
    assert bash(Command("x", ["y"]), status, state, **variables) == (status, again)


def test_all_processors_of_the_job_are_the_programs(bash, tmp_path):
    bash(Command("x", ["y"]), SLURM_CPUS_PER_TASK="6", **JOB)
    assert (tmp_path / "cpus").read_text() == "6\n"
    bash(Command("x", ["y"]), **JOB)
    assert (tmp_path / "cpus").read_text() == "\n"


def test_a_directory_that_is_gone_is_an_error(tmp_path):
    script = batch_script(Command("x", ["y"]), SbatchOptions(), tmp_path / "it's gone")
    assert f"cd {shlex.quote(str(tmp_path))}" not in script
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "it's gone" in done.stderr


def test_options_stand_before_any_command(tmp_path):
    """Behind one sbatch does not look for them."""
    script = batch_script(Command("mine", ["y"]), SbatchOptions.read(["--mem=1G"]), tmp_path)
    assert script.splitlines()[:6] == [
        "#!/bin/bash",
        "#SBATCH --job-name=mine",
        "#SBATCH --mem=1G",
        "#SBATCH --signal=USR1@120",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
    ]


LAUNCHED = (
    *(PROGRAM[0], "-m", "torch.distributed.run", "--nproc-per-node", "4", "--signals-to-handle"),
    *("SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", "--shutdown-timeout"),
)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((), ("120", "--standalone")),
        (("--signal=USR1@30",), ("120", "--standalone")),
        (("--signal=SIGUSR1@300",), ("300", "--standalone")),
        (
            ("--nodes", "2"),
            (
                *("120", "--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-id", "70"),
                *("--rdzv-endpoint", "first:20070"),
            ),
        ),
    ],
)
def test_torchrun_starts_several_processes_that_leave_their_status(tmp_path, given, found):
    """Its own is 1 whenever one of theirs is not 0."""
    options, launch = launch_of(SbatchOptions.read(["--nproc-per-node=4", *given]))
    assert "nproc-per-node" not in "".join(options.lines())
    script = batch_script(Command("x", ["a b"], launch=launch), options, tmp_path)
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, text in {
        "srun": 'printf "%s\\0" "$@" >words; echo 138 >"$FINETUNE_LM_STATUS_FILE"; exit 1',
        "squeue": "echo RUNNING",
        "scontrol": 'if [ $1 = show ]; then printf "first\\nsecond\\n"; else echo "$@" >queued; fi',
    }.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    variables = {"SLURM_JOB_ID": "70", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "some"}
    done = subprocess.run(
        ["bash"],
        input=script,
        env={**os.environ, **variables, "PATH": f"{commands}:{os.environ['PATH']}"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (138, "")
    assert (tmp_path / "queued").read_text() == "requeue 70\n"
    words = (tmp_path / "words").read_text().split("\0")[:-1]
    assert words == [*LAUNCHED, *found, *PROGRAM[1:], "a b"]
    assert not list(tmp_path.glob(".status*"))


def test_processes_of_a_launch_are_not_tasks(tmp_path):
    for given, said in {
        "--nproc-per-node=x": "must be how many processes there are on each node, but got x",
        "--nproc-per-node=2 -n 4": "there must be one task on each node",
    }.items():
        with pytest.raises(UserError, match=said):
            launch_of(SbatchOptions.read(given.split()))
