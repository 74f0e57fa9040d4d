from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_lm.cli import main
from finetune_lm.data import reading_examples
from finetune_lm.errors import UserError
from finetune_lm.grids.grid_checks import check_grid
from grid_files import DATA, runs, write_grid
from helpers import write_lines


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def mistakes() -> list[str]:
    with pytest.raises(UserError) as caught:
        check_grid(runs())
    return list(caught.value.problems)


def test_mistakes_of_all_runs_are_told_together_and_once(tmp_path):
    """Of arguments, seeds, files, metadata, kinds of model and models."""
    for name in ("a", "b"):
        write_lines(tmp_path / f"{name}.txt.gz", ["The man has broken it."] * 3)
    write_lines(tmp_path / "c.txt.gz", ["one", "two"], metadata=[{"surprisal": 1}, {}])
    write_lines(tmp_path / "d.txt.gz", ["one", " ", "three"])
    write_grid(
        {
            "model": {
                "lm": {"model_name_or_path": "tiny-lm"},
                "mlm": {"model_name_or_path": "tiny-mlm", "epochs": 0},
                "gone": {"model_name_or_path": "./not-there"},
            },
            "verb": ["a", "b", "c", "d", "e"],
            "seed": ["1..3", "-1"],
        },
        {"data_preprocessing_fn.train": "data_preprocessing.mask_random_tokens"},
        set={"train_file": "{verb}.txt.gz"},
    )
    found = mistakes()
    by_start = {problem.split(" (in ")[0]: problem for problem in found}
    assert len(by_start) == len(found)
    assert set(by_start) == {
        "seed must be from 0 to 4294967295 but got -1.",
        "epochs must be at least 1 but got 0.",
        "c_metadata.json.gz: metadata must not have the key 'surprisal', which is the name of a "
        "column of the results. Rename it.",
        "d.txt.gz, line 2: must not be blank. Take blank lines out of the file.",
        "there is no file e.txt.gz.",
        "data_preprocessing_fn.train: mask_random_tokens is for masked language models (mlm) but "
        "'tiny-lm' is a causal language model (lm).",
        "model_name_or_path './not-there' is not there: there is no such directory.",
    }
    assert (
        "(in 15 runs: model=lm_verb=a_seed=-1, "
        in by_start["seed must be from 0 to 4294967295 but got -1."]
    )
    # 3 models with 4 seeds each, whatever else is wrong with them.
    assert "(in 12 runs: " in by_start["there is no file e.txt.gz."]
    assert by_start["epochs must be at least 1 but got 0."].endswith(
        "(in 20 runs: model=mlm_verb=a_seed=1, model=mlm_verb=a_seed=2, model=mlm_verb=a_seed=3 "
        "and 17 more)"
    )


def test_measures_that_a_tokenizer_cannot_have_are_told(tmp_path):
    write_lines(tmp_path / "a.txt.gz", ["The man has broken it."] * 3)
    write_grid(
        {"measures_kwargs.Candidates.words": ["glass", "unbelievable"], "seed": ["1..3"]},
        {"measures": ["measures.Candidates"]},
        set={"train_file": "a.txt.gz"},
    )
    [told] = mistakes()
    assert "measure Candidates: each word must be one token but 'unbelievable' is 7 tokens" in told
    assert "(in 3 runs: " in told


def test_the_command_says_so_and_begins_nothing(capsys):
    write_grid({"seed": "1..200", "epochs": [1, 2]}, set={"train_file": "{epochs}.txt.gz"})
    for action in ("list", "run"):
        assert main(["grid", "grid.yaml", action]) == 2
        told = capsys.readouterr().err
        assert "there is no file 2.txt.gz. (in 200 runs: " in told
        assert told.count("\n") == 2
        assert not Path("out").exists()


def test_each_file_is_read_once(monkeypatch):
    read: list[str] = []
    original = reading_examples._read_examples

    def counted(path: str, *more: Any) -> Any:
        read.append(path)
        return original(path, *more)

    monkeypatch.setattr(reading_examples, "_read_examples", counted)
    kl = {
        "loss_classes.train": ["loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"],
        "loss_classes_kwargs.train.KLBaselineLoss.dataset": str(DATA / "sentences.txt.gz"),
    }
    write_grid({"epochs": "1..5", "seed": "1..3"}, kl)
    check_grid(runs())
    assert len(read) == len(set(read)) == 4


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    path = write_lines(tmp_path / "a.txt.gz", ["one"])
    with reading_examples.reading_once():
        first = reading_examples.read_examples(path)
        assert reading_examples.read_examples(path) is first
        write_lines(tmp_path / "a.txt.gz", ["one", "two"])
        assert reading_examples.read_examples(path).texts == ["one", "two"]
        write_lines(tmp_path / "a.txt.gz", ["one", "two"], metadata=[{"x": 1}, {"x": 2}])
        assert reading_examples.read_examples(path).metadata == [{"x": 1}, {"x": 2}]
        assert reading_examples.read_examples(path, 1).metadata == [{"x": 1}]
    assert reading_examples.read_examples(path) is not first


def test_runs_that_were_made_with_other_arguments_are_told():
    write_grid({"seed": "1..2"}, {"max_test_samples": 1, "epochs": 1})
    assert main(["grid", "grid.yaml", "run"]) == 0
    write_grid(
        {"seed": "1..3"}, {"max_test_samples": 1, "epochs": 1, "preprocessing_num_workers": 1}
    )
    check_grid(runs())
    write_grid(
        {"seed": "1..3"}, {"max_test_samples": 1, "epochs": 1, "train_optimizer_kwargs.lr": 2}
    )
    assert mistakes() == [
        "output_dir must not have runs that were made with other arguments: of seed=1, "
        "train_optimizer_kwargs.lr was 0.001 and is 2. Give another output_dir, or put back what "
        "was changed. (in 2 runs: seed=1, seed=2)"
    ]
    said = json.loads(Path("out/seed=1/grid_run.json").read_text())
    assert said["finished"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["grid", "grid.yaml"], "the following arguments are required: ACTION"),
        (["grid", "grid.yaml", "lst"], "lst must be one of list, run, "),
        (["grid", "grid.yaml", "run", "--jobs", "0"], "--jobs must be at least 1 but got 0."),
        (["grid", "nowhere.yaml", "run"], "nowhere.yaml: the config file cannot be read"),
    ],
)
def test_what_the_command_does_not_take(capsys, words, told):
    write_grid({"seed": "1..2"})
    assert main(words) == 2
    assert told in capsys.readouterr().err
