"""Several processes at one study, of which one is killed: the same on every kind of storage."""

from __future__ import annotations

import signal

import studies
from finetune_lm.study.results import load_results
from studies import finish, start, wait_for

RESULTS = "optimization_results.csv.gz"


def command(model, directory, *more):
    files = studies.files(directory)
    return [
        *("--model_name_or_path", model, "--do_optimize", "--epochs", 2, "--seed", 5),
        *("--train_file", files["train_file"], "--validation_file", files["validation_file"]),
        *("--study_kwargs.sampler", "optuna.samplers.RandomSampler"),
        *("--params.lr.values", "1e-4", "1e-2", "--params.lr.suggest_kwargs.log"),
        *("--model_pre_train_step_callbacks", "studies.HangHere"),
        *("--optimize_kwargs.n_trials", 50, "--study_kwargs.load_if_exists"),
        *more,
    ]


def results_of(directory):
    """The table of a study, without trials that were one too many and not run.

    Two processes may begin the last trial at the same moment.
    """
    table = load_results(directory / RESULTS)
    return table[table["reason"] != "the study had all of its trials"].reset_index(drop=True)


def survive_a_kill(argv, tmp_path, *, n_others, max_trials, find_results, plots=False):
    """Let one process hang in a trial while others work, kill it, and let another one start.

    Returns:
        The results at the end.
    """
    argv = [*argv, "--max_trials", max_trials]
    marker = tmp_path / "hangs"
    hanging = start(*argv, cwd=tmp_path, HANG=str(marker))
    try:
        wait_for(marker, hanging)
        others = [start(*argv, cwd=tmp_path, plots=plots) for _ in range(n_others)]
        for other in others:
            finish(other)
        # Its trial is under way, and counts, however long it takes: the others have left it alone.
        table = find_results()
        states = table["state"].value_counts().to_dict()
        assert states == {"COMPLETE": max_trials - 1, "RUNNING": 1}
        [running] = table[table["state"] == "RUNNING"].to_dict("records")
        assert running["pid"] == hanging.pid
        assert running["number"] == 0
        finished = table[table["state"] == "COMPLETE"]
        assert set(finished["pid"]) <= {other.pid for other in others}
        # No values were tried twice.
        assert finished["lr"].nunique() == max_trials - 1
    finally:
        hanging.send_signal(signal.SIGKILL)
        hanging.communicate()

    said = finish(start(*argv, cwd=tmp_path, plots=plots))
    assert "trial 0 was cut off, and its values are queued again" in said
    table = find_results()
    assert table["state"].value_counts().to_dict() == {"COMPLETE": max_trials, "FAIL": 1}
    assert table["number"].is_unique
    [lost] = table[table["state"] == "FAIL"].to_dict("records")
    assert lost["number"] == 0
    assert lost["reason"].startswith(f"process {hanging.pid} on ")
    assert lost["reason"].endswith(" ended in the middle of it")
    [again] = table[table["repeats"] == 0].to_dict("records")
    assert again["lr"] == lost["lr"]
    assert table["lr"].nunique() == max_trials
    return table
