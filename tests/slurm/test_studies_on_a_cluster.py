"""A study whose processes are the tasks of an array, each on a node of its own, on a real SLURM."""

from __future__ import annotations

import shlex

import studies
from finetune_lm.cli import main
from finetune_lm.study.results import load_results
from slurm_cluster import wait_until


def test_a_study_over_an_array_of_which_one_process_is_killed(
    cluster, programs, tmp_path, monkeypatch, capsys
):
    """Who ends last hears of it from the queue, and does the trial again."""
    monkeypatch.chdir(tmp_path)
    files = studies.files(tmp_path)
    words = (
        "--model_name_or_path tiny-lm --do_optimize --epochs 1 --seed 5 --max_trials 4 "
        f"--train_file {files['train_file']} --validation_file {files['validation_file']} "
        "--study_kwargs.sampler optuna.samplers.RandomSampler --output_dir out "
        "--model_pre_train_step_callbacks waiting.WaitForSignal"
    )
    assert main(["sbatch", "--array=1-3", "--", *shlex.split(words)]) == 0
    script = programs.in_script(capsys.readouterr().out)
    waits = tmp_path / "waits"
    for task in (1, 2, 3):
        (waits / str(task)).mkdir(parents=True)
    cluster.environment["WAIT_AT"] = f"{waits}/$SLURM_ARRAY_TASK_ID:0.0"
    job = cluster.submit(script, "--output=log-%a", cwd=tmp_path)
    # Otherwise one might do all trials before another begins.
    for task in (1, 2, 3):
        wait_until((waits / str(task) / "0.0").exists)
    (waits / "3" / "go").touch()
    # The third process leaves the trials of the others alone, which are under way.
    wait_until(lambda: f"{job}_3" not in cluster.jobs())
    left = (tmp_path / "log-3").read_text()
    for task in (1, 2):
        pid = programs.of_task(task).pid
        told = (
            f"is still under way in process {pid} on node{task}, SLURM job {job}_{task} (running)."
        )
        assert told in left
    programs.of_task(2).kill()
    wait_until(lambda: list(cluster.jobs()) == [f"{job}_1"])
    (waits / "1" / "go").touch()
    cluster.wait(job)

    table = load_results(tmp_path / "out" / "optimization_results.csv.gz")
    table = table[table["reason"] != "the study had all of its trials"]
    [lost] = table[table["state"] == "FAIL"].to_dict("records")
    assert lost["slurm_job_id"] == f"{job}_2"
    assert lost["reason"].endswith(f"on node2, SLURM job {job}_2 ended in the middle of it")
    finished = table[table["state"] == "COMPLETE"]
    assert len(finished) == 4
    assert len(table) == 5
    assert set(finished["slurm_job_id"]) == {f"{job}_1", f"{job}_3"}
    [again] = finished[finished["repeats"] == lost["number"]].to_dict("records")
    assert (again["lr"], again["host"]) == (lost["lr"], "node1")
    assert finished["lr"].nunique() == 4
