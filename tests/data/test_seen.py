"""Test lines that were learned from, or that chose the epoch."""

from __future__ import annotations

from pathlib import Path

import pytest

import finetune_lm
from finetune_lm.cli import main
from finetune_lm.data.examples import Examples
from finetune_lm.data.seen import seen_before, tell_of_seen
from finetune_lm.models.tasks import TASKS


def file(name, texts, labels=None):
    return Examples(name, f"{name}.txt", texts, labels, [{} for _ in texts])


def test_each_line_is_looked_up_in_both_files(capsys):
    files = {
        "train": [file("a", ["One.", "Two.", "Three."])],
        "validation": [file("b", ["Three.", "Four."])],
        "test": [
            file("c", ["Two. ", "Five.", "Three.", "Four.", "Four.", "two."]),
            file("d", ["Six."]),
            file("e", [" One."]),
        ],
    }
    found = seen_before(files, TASKS["lm"])
    assert found == {
        "c.txt": ["train", None, "train and validation", "validation", "validation", None],
        "d.txt": [None],
        "e.txt": ["train"],
    }
    tell_of_seen(files, {None: found})
    said = capsys.readouterr().err
    assert (
        "4 of the 6 lines of c.txt are in the training or validation file too (lines 1, 3, 4, "
        in (said)
    )
    assert "d.txt" not in said
    assert " mode" not in said
    assert "1 of the 1 lines of e.txt is in the training or validation file too (line 1)." in said


@pytest.mark.parametrize("task", TASKS)
def test_labels_make_lines_different_where_the_model_takes_them(task):
    files = {
        "train": [file("a", ["The <mask>.", "One."], ["The tea.", "One."])],
        "validation": [],
        "test": [
            file("b", ["The <mask>.", "The <mask>.", "One."], ["The tea.", "The cup.", "One."])
        ],
    }
    other = "train" if task == "lm" else None
    assert seen_before(files, TASKS[task])["b.txt"] == ["train", other, "train"]


def test_what_differs_by_mode_is_told_of_each(capsys):
    files = {"train": [], "validation": [], "test": [file(name, ["x", "y"]) for name in "uv"]}
    of_masked = {"u.txt": ["train", None], "v.txt": ["train", None]}
    tell_of_seen(files, {"lm": {**of_masked, "v.txt": ["train", "train"]}, "mlm": of_masked})
    each = "{} of the 2 lines of {}.txt {} in the training or validation file too ({}){}. The "
    each += "column seen_in says which."
    assert capsys.readouterr().err.splitlines() == [
        each.format(1, "u", "is", "line 1", ""),
        each.format(2, "v", "are", "lines 1, 2", ", as the lm mode reads them"),
        each.format(1, "v", "is", "line 1", ", as the mlm mode reads them"),
    ]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("The man drank.\nThe woman drank.\nThe tea.\n")
    Path("b.txt").write_text("The child drank.\n")
    Path("c.txt").write_text("The woman drank.\nThe child drank.\nThe dog drank.\nThe tea.\n")
    Path("d.txt").write_text("The tea.\nThe cat.\n")


TRAIN = ["--train_file", "a.txt", "--validation_file", "b.txt", "--epochs", "1"]
TEST = ["--model_name_or_path", "tiny-lm", "--seed", "1", "--test_file", "c.txt", "d.txt"]


def seen_in(output_dir):
    table = finetune_lm.load_metrics(f"{output_dir}/tiny-lm-test_results.csv.gz")
    assert list(table.columns).index("seen_in") == list(table.columns).index("original_text") - 1
    return table.groupby("original_text")["seen_in"].agg(lambda values: set(values.fillna("NA")))


@pytest.mark.parametrize("more", [(), ("--save_tmp_test_files",)])
def test_the_test_table_says_where_a_line_was_seen(files, capsys, more):
    # The third line of the training file is not used.
    assert main([*TEST, *TRAIN, "--max_train_samples", "2", "--output_dir", "out", *more]) == 0
    assert seen_in("out").to_dict() == {
        "The woman drank.": {"train"},
        "The child drank.": {"validation"},
        "The dog drank.": {"NA"},
        "The tea.": {"NA"},
        "The cat.": {"NA"},
    }
    said = capsys.readouterr().err
    assert (
        "2 of the 4 lines of c.txt are in the training or validation file too (lines 1, 2)" in said
    )
    assert "d.txt are" not in said
    assert "seen_in" not in finetune_lm.load_metrics("out")


def test_preprocessing_that_makes_several_examples_of_one_line(files):
    masked = ["--data_preprocessing_fn.test", "data_preprocessing.expand_with_masks"]
    for strategy in ("once", "per_batch"):
        argv = [*TEST, *TRAIN, *masked, "--data_preprocessing_fn_strategy.test", strategy]
        argv[1] = "tiny-mlm"
        assert main([*argv, "--output_dir", strategy, *MLM_TRAINING]) == 0
        table = finetune_lm.load_metrics(f"{strategy}/tiny-mlm-test_results.csv.gz")
        found = table.groupby("original_text")["seen_in"].agg(lambda v: set(v.fillna("NA")))
        assert found["The tea."] == {"train"}
        assert found["The dog drank."] == {"NA"}
        assert table["is_target"].all()


MLM_TRAINING = [
    *("--data_preprocessing_fn.train", "data_preprocessing.mask_random_tokens"),
    *("--data_preprocessing_fn.validation", "data_preprocessing.mask_random_tokens"),
]


def test_a_run_that_only_tests_has_seen_nothing(files, capsys):
    assert main([*TEST, "--output_dir", "out"]) == 0
    assert set().union(*seen_in("out")) == {"NA"}
    assert "too (line" not in capsys.readouterr().err
