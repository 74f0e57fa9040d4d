from __future__ import annotations

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from finetune_lm import UserError
from finetune_lm.study.study_directory import (
    TrialLog,
    check_study_dir,
    choose_study_dir,
    make_study_dir,
)

ME = f"{socket.gethostname()}.{os.getpid()}"


def test_where_a_study_goes(tmp_path):
    def chosen(given=None, name=None, has_storage=False):
        return str(choose_study_dir(given, "org/m", ["train"], name, has_storage=has_storage))

    assert chosen("mine") == "mine"
    assert chosen("mine", "s") == "mine"
    assert chosen().startswith("outputs/train/org-m/2")
    # The journal of a named study is found again.
    assert chosen(name="a/b") == "outputs/train/org-m/a-b"
    assert chosen(name="s", has_storage=True).startswith("outputs/train/org-m/2")


def test_every_process_has_files_of_its_own(tmp_path):
    first, second, third = (make_study_dir(tmp_path / "out") for _ in range(3))
    assert first.config_text.name == "config.txt"
    assert first.run_json.name == "run.json"
    assert first.config_yaml.name == "config.yaml"
    assert second.config_text.name == f"config.{ME}.txt"
    assert second.run_json.name == f"run.{ME}.json"
    assert second.config_yaml.name == f"config.{ME}.yaml"
    assert third.config_text.name == f"config.{ME}.2.txt"
    assert first.results == third.results
    assert first.plots == third.plots


def test_of_several_at_the_same_time_each_has_its_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make_study_dir(tmp_path / "out"), range(24)))
    assert len({directory.config_text for directory in made}) == 24


def put(directory, study=None, **files):
    directory.mkdir(exist_ok=True)
    (directory / "run.json").write_text(json.dumps({"study": study} if study else {}))
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


STUDY = {"name": "s", "storage": "optimization_journal.log"}


def test_a_directory_of_the_same_study_may_be_gone_on_with(tmp_path):
    check_study_dir(tmp_path / "new" / "deep", "s", "optimization_journal.log")
    directory = put(tmp_path / "out", STUDY, optimization_results__csv__gz="x", config__txt="x")
    check_study_dir(directory, "s", "optimization_journal.log")


OTHERS = {
    "a run": (
        {"metrics__csv__gz": "x"},
        None,
        "must not have results of a run, but .* has metrics",
    ),
    "tests": (
        {"x-test_results__csv__gz": "x"},
        None,
        "must not have results of a run, but .* has x-test_results.csv.gz",
    ),
    "another study": (
        {"optimization_results__csv__gz": "x"},
        {**STUDY, "name": "other"},
        "has those of 'other', kept in optimization_journal.log; this one is 's', kept in",
    ),
    "another storage": (
        {},
        {**STUDY, "storage": "sqlite:///x.db"},
        "has those of 's', kept in sqlite:///x.db",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_results_of_something_else_are_never_written_over(tmp_path, case):
    files, study, message = OTHERS[case]
    directory = put(tmp_path / "out", study, **files)
    with pytest.raises(UserError, match=message):
        check_study_dir(directory, "s", "optimization_journal.log")


@pytest.mark.parametrize("name", ["config.txt", "config.yaml", "optimization_results.csv.gz"])
def test_a_file_that_is_of_no_run_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"must not have a {name} that is not of a run"):
        check_study_dir(tmp_path, "s", "x")


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"must be a directory but .*file is a file"):
        check_study_dir(tmp_path / "file" / "out", "s", "x")


def test_a_single_run_does_not_write_over_a_study(tmp_path):
    from finetune_lm.runs.directory import results_in

    (tmp_path / "optimization_results.csv.gz").write_text("x")
    (tmp_path / "optimization_journal.log").write_text("x")
    assert results_in(tmp_path) == ["optimization_journal.log", "optimization_results.csv.gz"]


def test_the_log_grows_by_what_each_trial_tries(tmp_path):
    path = tmp_path / "config.txt"
    log = TrialLog(path, "ModelArguments\n  x: 1\n\n")
    head = path.read_text()
    assert head == "ModelArguments\n  x: 1\n"
    log.begin(3, {"lr": 1.5e-05, "train_optimizer": "torch.optim.SGD"}, ", again")
    log.end("2.5 (2 epochs)")
    first, *lines = path.read_text().removeprefix(head).splitlines()
    assert first == ""
    assert lines[0].startswith("trial 3, 20")
    assert lines[0].endswith(", again")
    assert lines[1:] == [
        "  lr:              1.5e-05",
        "  train_optimizer: torch.optim.SGD",
        "  2.5 (2 epochs)",
    ]


def test_a_trial_may_try_nothing(tmp_path):
    log = TrialLog(tmp_path / "config.txt", "x")
    log.begin(0, {})
    assert (tmp_path / "config.txt").read_text().startswith("x\n\ntrial 0, ")
