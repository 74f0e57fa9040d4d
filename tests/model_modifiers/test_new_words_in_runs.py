"""Runs with new words by the command line, and the page about them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

import finetune_lm
from commands import run_command
from finetune_lm.cli import main

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY / "data" / "nonce_verb"
ADD = [
    *("--model_modifier_fns", "model_modifiers.add_new_tokens"),
    *("--model_modifier_fn_kwargs.add_new_tokens.added_tokens", "flomped", "dax"),
]
KWARGS = "model_modifier_fn_kwargs.add_new_tokens"


@pytest.mark.parametrize("model", ["tiny-lm", "tiny-mlm", "tiny-seq2seq"])
def test_a_run_of_each_kind(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    masking = []
    for part in ("train", "validation", "test"):
        masking += [
            *(f"--data_preprocessing_fn.{part}", "data_preprocessing.mask_word_tokens"),
            *(f"--data_preprocessing_fn_kwargs.{part}.word_tokens_to_mask", "flomped"),
        ]
    done = run_command(
        *("--model_name_or_path", model, "--epochs", 2, "--train_optimizer_kwargs.lr", "1e-2"),
        *("--train_file", DATA / "flomped_active.txt.gz", "--max_train_samples", 16),
        *("--validation_file", DATA / "flomped_passive.txt.gz", "--max_validation_samples", 8),
        *("--test_file", DATA / "flomped_test.txt.gz", "--max_test_samples", 8, "--seed", 5),
        *("--output_dir", "out", *ADD, f"--{KWARGS}.init", "random"),
        *([] if model == "tiny-lm" else masking),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "add_new_tokens: 'flomped' is one token now: " in done.stderr

    metrics = finetune_lm.load_metrics(tmp_path / "out")
    if model == "tiny-seq2seq":
        metrics = metrics[metrics["sequence_type"] == "label_sequence"]
    new = metrics[metrics["token"].str.strip() == "flomped"]
    # Once in each sentence, in every epoch, as a whole word.
    assert len(new) == 2 * (16 + 8)
    assert new["token_id"].nunique() == 1
    assert new.groupby(["dataset_type", "epoch", "example_num"]).size().eq(1).all()
    if model != "tiny-seq2seq":  # there the words are those of the labels
        assert (new["word"].str.strip(".?") == "flomped").all()
        assert new["token_is_word"].eq(~new["word"].str.contains(".", regex=False)).all()
    surprisal = new[new["dataset_type"] == "train"].groupby("epoch")["surprisal"].mean()
    assert new["surprisal"].notna().all()
    assert surprisal[1] < surprisal[0]

    saved = tmp_path / "out" / "tokenizer"
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    ids = tokenizer("The man flomped it.", add_special_tokens=False)["input_ids"]
    assert ids.count(new["token_id"].iloc[0]) == 1
    assert tokenizer.decode(ids).lower() == "the man flomped it."

    # The model and the tokenizer beside it give the same numbers without the modifier.
    status = main(
        [
            *("--model_name_or_path", "out/model", "--output_dir", "again", "--seed", "5"),
            *("--test_file", str(DATA / "flomped_test.txt.gz"), "--max_test_samples", "8"),
            *("--test_output_file_prefix", model),
            *([] if model == "tiny-lm" else masking[-4:]),
        ]
    )
    assert status == 0
    name = f"{model}-test_results.csv.gz"
    then, now = (finetune_lm.load_metrics(tmp_path / place / name) for place in ("out", "again"))
    columns = ["token", "token_id", "word_num", "token_is_word", "surprisal", "n_params"]
    assert then[columns].equals(now[columns])

    # And the same run writes the same tables, byte for byte.
    assert main(["--config", "out/config.yaml", "--output_dir", "repeated"]) == 0
    for table in ("metrics.csv.gz", name):
        one, two = ((tmp_path / place / table).read_bytes() for place in ("out", "repeated"))
        assert one == two


def test_the_number_of_parameters_counts_new_rows(tmp_path, monkeypatch):
    from finetune_lm.arguments import DataTrainingArguments, ModelArguments
    from finetune_lm.model_modifiers import add_new_tokens

    monkeypatch.chdir(tmp_path)
    words = [f"zq{a}{b}{c}" for a in "abcdef" for b in "abcde" for c in "abcde"]
    counts = {}
    for added in ([], [add_new_tokens]):
        result = finetune_lm.run(
            ModelArguments(
                "tiny-lm",
                model_modifier_fns=added,
                model_modifier_fn_kwargs={"add_new_tokens": {"added_tokens": words}}
                if added
                else {},
            ),
            DataTrainingArguments(
                test_file=[str(DATA / "fillers.txt.gz")],
                max_test_samples=2,
                output_dir=f"out{len(added)}",
            ),
        )
        counts[len(added)] = set(result.test_results["n_params"])
    assert counts == {0: {"0.6M"}, 1: {"0.7M"}}


def test_tokenizing_in_several_processes(tmp_path):
    done = run_command(
        *("--model_name_or_path", "tiny-lm", "--test_file", DATA / "flomped_test.txt.gz"),
        *("--preprocessing_num_workers", 2, "--overwrite_cache", "--max_test_samples", 40),
        *("--output_dir", "out", *ADD),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = finetune_lm.load_metrics(tmp_path / "out" / "tiny-lm-test_results.csv.gz")
    of_word = rows[rows["word"].str.strip(".?") == "flomped"]
    assert set(of_word["token"]) <= {" flomped", ".", "?"}
    assert (of_word["token"] == " flomped").sum() == of_word["example_num"].nunique() > 20


def test_a_preview_shows_the_word_as_the_vocabulary_spells_it(capsys):
    status = main(
        [
            *("--model_name_or_path", "tiny-lm", "--preview", "1"),
            *("--test_file", str(DATA / "flomped_test.txt.gz"), *ADD),
        ]
    )
    assert status == 0
    shown = capsys.readouterr().out
    assert "Ġalways Ġflomped Ġthe" in shown
    assert "\N{WORD JOINER}" not in shown


WRONG = {
    "no words": ([], f"{KWARGS}.added_tokens must be given, because add_new_tokens needs it."),
    "another name": (
        [f"--{KWARGS}.added_token", "crined"],
        f"{KWARGS}.added_token is not an argument of add_new_tokens, which takes added_tokens, "
        f"init, scale. Did you mean {KWARGS}.added_tokens?",
    ),
    "the model": (
        [f"--{KWARGS}.added_tokens", "crined", f"--{KWARGS}.model", "gpt2"],
        f"{KWARGS}.model is not an argument of add_new_tokens, which takes added_tokens, init, "
        "scale.",
    ),
    "a number": (
        [f"--{KWARGS}.added_tokens", "1984"],
        f"{KWARGS}: added_tokens must be a list of words but got 1984.",
    ),
    "a start": (
        [f"--{KWARGS}.added_tokens", "crined", f"--{KWARGS}.init", "zero"],
        f"{KWARGS}: init must be mean, mean_cov, random, subwords or copy:WORD but got 'zero'.",
    ),
    "a blank and a start": (
        [f"--{KWARGS}.added_tokens", "crined", " ", f"--{KWARGS}.init", "zero"],
        f"{KWARGS}: added_tokens must be a list of words but one of them is empty.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_told_before_anything_is_loaded(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv, message = WRONG[case]
    status = main(
        [
            *("--model_name_or_path", "no/such-model", "--test_file", str(DATA / "fillers.txt.gz")),
            *ADD[:2],
            *argv,
        ]
    )
    assert status == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_words_that_a_model_cannot_have_leave_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status = main(
        [
            *("--model_name_or_path", "tiny-lm", "--test_file", str(DATA / "fillers.txt.gz")),
            *(*ADD, f"--{KWARGS}.init", "copy:flomped"),
        ]
    )
    assert status == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "finetune-lm: error: init copy:WORD needs a WORD that is one token of this model, but "
        "'flomped' is Ġfl om ped."
    )
    assert list(tmp_path.iterdir()) == []


def test_the_page_about_new_words(tmp_path):
    page = (REPOSITORY / "docs" / "new_words.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(sh|text|python)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (_, shell), (_, said), (_, python), (_, printed) = blocks
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    words = shlex.split(shell.replace("\\\n", " "))
    assert words.pop(0) == "finetune-lm"
    done = run_command(
        *words, "--max_train_samples", 16, "--max_validation_samples", 8, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert said.strip() in done.stderr.splitlines()

    shown = subprocess.run(
        [sys.executable, "-c", python],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == printed
