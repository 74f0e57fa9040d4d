from __future__ import annotations

import pytest

from finetune_lm.slurm.queue import cluster, states_of, this_job


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, ""),
        ({"JOB_ID": "7"}, "7"),
        ({"JOB_ID": "9", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "2"}, "7_2"),
        ({"JOB_ID": "7", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "3"}, "7_3"),
    ],
)
def test_the_name_of_the_job(monkeypatch, variables, job):
    for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert this_job() == job


def test_without_a_cluster(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)
    assert cluster() == ""
    assert states_of({"7"}) is None
    assert states_of(set()) == {}


def test_a_real_queue(cluster, monkeypatch, tmp_path):
    """A task has a state of its own, also the one whose number is that of the whole array."""
    from finetune_lm.slurm import queue

    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")  # a user's own wish
    assert queue.cluster() == "tests"
    script = "#!/bin/sh\ntest $SLURM_ARRAY_TASK_ID = 3 || sleep 600\n"
    job = cluster.submit(script, "--array=1-3", "--output=/dev/null", cwd=tmp_path)
    held = cluster.submit("#!/bin/sh\n", "--hold", "--output=/dev/null", cwd=tmp_path)
    from slurm_cluster import wait_until

    alive = {f"{job}_1": "RUNNING", f"{job}_2": "RUNNING", held: "PENDING"}
    wait_until(lambda: cluster.jobs() == alive)
    numbers = cluster.run("squeue", "--noheader", "--array", "--Format", "JobID,ArrayTaskID")
    assert [job, "3"] not in [line.split() for line in numbers.splitlines()]
    asked = {f"{job}_1", f"{job}_2", f"{job}_3", held, "4000000", "4000000_1"}
    assert states_of(asked) == alive
    for name in asked:
        assert states_of({name}) == {key: alive[key] for key in alive if key == name}
    cluster.run("scancel", f"{job}_1", held)
    wait_until(lambda: list(cluster.jobs()) == [f"{job}_2"])
    assert states_of(asked) == {f"{job}_2": "RUNNING"}
    cluster.run("scancel", job)
    cluster.wait(job)
    assert states_of(asked) == {}
