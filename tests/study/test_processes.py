"""Several processes at one study, on the command line; one is killed in the middle of a trial."""

from __future__ import annotations

import studies
from commands import run_new_process
from finetune_lm.cli import main
from finetune_lm.study import search
from studies import finish, read_json, start
from study_processes import RESULTS, command, results_of, survive_a_kill


def test_two_processes_at_one_journal_and_one_is_killed(model, tmp_path):
    out = tmp_path / "out"
    argv = command(model, tmp_path, "--output_dir", out)
    survive_a_kill(
        argv,
        tmp_path,
        n_others=1,
        max_trials=3,
        find_results=lambda: results_of(out),
        plots=True,
    )
    # The log of each process has what it tried and nothing else.
    logs = {path.name: path.read_text() for path in out.glob("config*.txt")}
    assert len(logs) == 3
    assert sorted(log.count("\ntrial ") for log in logs.values()) == [1, 1, 2]
    assert "\ntrial 0, " in logs["config.txt"]
    assert sum(read_json(path)["state"] == "finished" for path in out.glob("run*.json")) == 2
    assert not list(out.glob(".*"))


def test_four_processes_at_one_journal_and_one_is_killed(model, tmp_path):
    """Without a directory: they find each other by the study's name."""
    argv = command(model, tmp_path, "--study_kwargs.study_name", "ours")

    def find_results():
        [directory] = tmp_path.glob("outputs/teach/*/ours")
        return results_of(directory)

    table = survive_a_kill(argv, tmp_path, n_others=3, max_trials=8, find_results=find_results)
    assert set(table["study_name"]) == {"ours"}


def test_four_processes_that_begin_with_one_new_database(model, tmp_path):
    """All of them make its tables, and none is the first to have done so."""
    storage = ("--study_kwargs.storage", f"sqlite:///{tmp_path}/study.db")
    argv = command(model, tmp_path, *storage, "--max_trials", 4)
    processes = [
        start(*argv, "--output_dir", tmp_path / f"out{number}", cwd=tmp_path) for number in range(4)
    ]
    for process in processes:
        finish(process)
    tables = [results_of(tmp_path / f"out{number}") for number in range(4)]
    # Who ended before others knows less.
    last = max(tables, key=lambda table: (table["state"] == "COMPLETE").sum())
    assert last["state"].tolist() == ["COMPLETE"] * 4


def test_values_do_not_depend_on_who_does_the_trial(model, tmp_path, monkeypatch):
    """The same trials, in one process and in two at the same time."""
    two = command(model, tmp_path, "--output_dir", tmp_path / "two", "--max_trials", 4)
    processes = [start(*two, cwd=tmp_path) for _ in range(2)]
    one = command(model, tmp_path, "--output_dir", tmp_path / "one", "--max_trials", 4)
    monkeypatch.setattr(search, "save_plots", lambda *_: None)
    assert main(list(map(str, one))) == 0
    for process in processes:
        finish(process)
    columns = ["number", "state", "lr", "value", "best_epoch", "n_epochs", "seed"]
    tables = [results_of(tmp_path / name)[columns] for name in ("one", "two")]
    assert tables[0].equals(tables[1])


def test_the_default_study_by_the_command_line(tmp_path):
    """All defaults: two trials, Gaussian process, patient Wilcoxon pruner, a journal."""
    data = studies.DATA
    done = run_new_process(
        *("--model_name_or_path", "tiny-lm", "--do_optimize", "--epochs", 2, "--seed", 3),
        *("--train_file", data / "flomped_active.txt.gz", "--max_train_samples", 16),
        *("--validation_file", data / "flomped_passive.txt.gz"),
        *("--max_validation_samples", 8, "--test_file", data / "flomped_test.txt.gz"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    said = done.stderr
    [out] = tmp_path.glob("outputs/flomped_active/tiny-lm/20*")
    assert sorted(path.name for path in out.iterdir()) == [
        *("config.txt", "config.yaml", "optimization_journal.log", "optimization_plots.html"),
        *("optimization_plots.pdf", RESULTS, "run.json"),
    ]
    table = results_of(out)
    assert table["state"].tolist() == ["COMPLETE", "COMPLETE"]
    assert ((table["lr"] > 2e-6) & (table["lr"] < 2e-5)).all()
    assert (table["value"] > 0).all()
    assert set(table["seed"]) == {3}
    lines = said.splitlines()
    assert sum("experimental" in line for line in lines) == 1
    assert "calls deterministic_objective, WilcoxonPruner, PatientPruner experimental" in said
    assert sum("test_file is not used in a study" in line for line in lines) == 1
    assert [line.split(":")[0] for line in lines if line.startswith("trial")] == [
        *("trial 0", "trial 1"),
    ]
    assert "Warning" not in said
    assert "Traceback" not in said
    assert lines[-1] == f"Results are in {out.relative_to(tmp_path)}"
    assert (out / "optimization_plots.pdf").read_bytes().startswith(b"%PDF")


def test_a_mistake_is_told_in_a_line(tmp_path):
    files = studies.files(tmp_path)
    process = start(
        *("--model_name_or_path", "tiny-lm", "--do_optimize", "--train_file", files["train_file"]),
        *("--validation_file", files["validation_file"], "--params.lr.values", "1e-4"),
        cwd=tmp_path,
    )
    said, _ = process.communicate()
    assert process.returncode == 2
    assert said == (
        "finetune-lm: error: params.lr.values must be at least two values, the ends of a range of "
        "numbers or the choices, but got 0.0001 (a number).\n"
    )
    assert not (tmp_path / "outputs").exists()
