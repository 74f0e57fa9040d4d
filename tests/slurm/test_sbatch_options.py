from __future__ import annotations

import shlex

import pytest

from finetune_lm.errors import UserError
from finetune_lm.slurm.sbatch_options import SbatchOptions

ADDED = ["--signal=USR1@120", "--requeue", "--open-mode=append"]


def lines(words):
    return SbatchOptions.read(shlex.split(words)).lines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", []),
        ("--time 1:00:00 --gres gpu:1", ["--time=1:00:00", "--gres=gpu:1"]),
        ("--time=1:00:00 --gres=gpu:1", ["--time=1:00:00", "--gres=gpu:1"]),
        ("-t 1:00:00 -pgpu -N 1", ["--time=1:00:00", "--partition=gpu", "--nodes=1"]),
        ("-w node7", ["-w node7"]),
        ("--exclusive --mem 4G", ["--exclusive", "--mem=4G"]),
        ("--exclusive -x node1", ["--exclusive", "-x node1"]),
        ("--nice=-5", ["--nice=-5"]),
        ("--comment 'a \"b\" c'", ['--comment="a \\"b\\" c"']),
        ("--comment ''", ["--comment="]),
    ],
)
def test_options_are_those_of_sbatch(words, expected):
    assert lines(words) == [*expected, *ADDED]


def test_what_a_script_needs_may_be_given_otherwise():
    assert lines("--signal USR1@300 --requeue --open-mode truncate") == [
        *("--signal=USR1@300", "--requeue", "--open-mode=truncate"),
    ]
    assert SbatchOptions.read(["-J", "mine"]).named("other").value("job-name") == "mine"
    assert SbatchOptions.read([]).named("other").lines()[0] == "--job-name=other"


@pytest.mark.parametrize(
    ("array", "tasks"),
    [
        ("1-4", [1, 2, 3, 4]),
        ("0-8:2", [0, 2, 4, 6, 8]),
        ("3,1,7-8%2", [1, 3, 7, 8]),
        ("5", [5]),
        ("1-3,2-4", [1, 2, 3, 4]),
    ],
)
def test_the_tasks_of_an_array(array, tasks):
    options = SbatchOptions.read(["--array", array])
    assert options.tasks() == tasks
    assert SbatchOptions.read([f"-a{array}"]) == options
    assert SbatchOptions.read([]).tasks() is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--array"], "but got nothing."),
        (["--array", "1-x"], "but got 1-x."),
        (["--array", "4-1"], "but got 4-1."),
        (["--array", "1-4:0"], "but got 1-4:0."),
        (["--array", "1-4%0"], "but got 1-4%0."),
        (["--signal", "TERM@60"], "--signal must be USR1@SECONDS"),
        (["--signal", "B:USR1@60"], "--signal must be USR1@SECONDS"),
        (["--wrap", "echo"], "--wrap cannot be given, since it is for jobs without a script."),
        (["--no-requeue"], "--no-requeue cannot be given"),
        (["1:00:00"], "'1:00:00' must be an option of sbatch"),
        (["--time", "1", "2"], "'2' must be an option of sbatch"),
        (["--comment", "a\nb"], "--comment must be on one line but got 'a\\nb'."),
    ],
)
def test_mistakes(words, told):
    with pytest.raises(UserError) as caught:
        SbatchOptions.read(words)
    assert told in str(caught.value)


def test_mistakes_are_told_together():
    with pytest.raises(UserError) as caught:
        SbatchOptions.read(["x", "--array", "y", "--wrap", "z"])
    assert len(caught.value.problems) == 3
