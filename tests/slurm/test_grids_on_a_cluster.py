"""A grid whose workers are the tasks of an array, on a real SLURM."""

from __future__ import annotations

import json
import shutil

from commands import Command
from finetune_lm.cli import main
from finetune_lm.grids.run_states import State
from grid_files import runs, states, tables, write_grid
from slurm_cluster import wait_until


def test_four_packs_of_which_one_is_preempted_and_whoever_submits_is_killed(
    cluster, programs, tmp_path, monkeypatch
):
    """All runs are there, none was made twice, and each is what it is by itself."""
    monkeypatch.chdir(tmp_path)
    vary = {"seed": "1..3", "epochs": [1, 2]}
    callback = {"model_pre_train_step_callbacks": "waiting.WaitForSignal"}
    write_grid(vary, callback)
    assert main(["grid", "grid.yaml", "run"]) == 0
    alone = {run.name: tables(run.directory) for run in runs()}
    shutil.rmtree("out")

    waits = tmp_path / "waits"
    for task in (1, 2, 3, 4):
        (waits / str(task)).mkdir(parents=True)
    cluster.environment["WAIT_AT"] = f"{waits}/$SLURM_ARRAY_TASK_ID:0.1"
    # Between sbatch and the script, which starts a program with torch in it already.
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "sbatch").write_text(
        programs.as_filter(f"{shutil.which('sbatch')} --output=log-%a")
    )
    (commands / "sbatch").chmod(0o755)
    environment = {**cluster.environment, "PATH": f"{commands}:{cluster.environment['PATH']}"}
    submits = Command(
        *("grid", "grid.yaml", "submit", "--tasks", 4, "--time", "1:00:00", "--", "--mem=1"),
        cwd=tmp_path,
        environment=environment,
    )
    wait_until(cluster.jobs)
    submits.kill()
    submits.wait()
    [job] = {name.partition("_")[0] for name in cluster.jobs()}
    # Otherwise three might do all runs before the fourth begins.
    for task in (1, 2, 3, 4):
        wait_until((waits / str(task) / "0.1").exists)
    for task in (1, 3, 4):
        (waits / str(task) / "go").touch()
    # Others do what is left, while one run is under way; then another job wants all of the node.
    wait_until(lambda: list(cluster.jobs()) == [f"{job}_2"])
    assert sorted(states().values(), key=str) == [State.FINISHED] * 5 + [State.RUNNING]
    urgent = cluster.submit(
        "#!/bin/sh\n", "--partition=urgent", "--exclusive", "--output=urgent", cwd=tmp_path
    )
    cluster.wait(urgent)
    assert sorted(states().values(), key=str) == [State.FINISHED] * 5 + [State.STOPPED]
    cluster.start_again(f"{job}_2")
    cluster.wait(job)

    assert set(states().values()) == {State.FINISHED}
    assert {run.name: tables(run.directory) for run in runs()} == alone
    sessions = [
        [each["state"] for each in json.loads((run.directory / "run.json").read_text())["sessions"]]
        for run in runs()
    ]
    assert sorted(sessions) == [["finished"]] * 5 + [["interrupted", "finished"]]
    said = "".join((tmp_path / f"log-{task}").read_text() for task in (1, 2, 3, 4))
    assert said.count(": begun.") == 7
