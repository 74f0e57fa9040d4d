"""Runs of masked models on data in which nothing, or not all that counts, is masked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_lm import DataTrainingArguments, UserError
from finetune_lm.constants import PER_BATCH
from finetune_lm.data_preprocessing import mask_random_tokens, remove_non_mask_tokens_from_labels
from helpers import write_lines
from short_runs import run, train_args

pytest_plugins = ["short_runs"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_masked_data_without_masks(models, files):
    function = dict.fromkeys(("train", "validation", "test"), remove_non_mask_tokens_from_labels)
    path = write_lines(Path("plain.json.gz"), [{"text": "a man", "labels": "a man"}])
    args = train_args({"train": path, "validation": path}, data_preprocessing_fn=function)
    with pytest.raises(UserError, match="plain has nothing to predict"):
        run(models["bert"], args)


def test_a_masked_model_that_sees_every_token_is_warned_of(models, capsys):
    path = write_lines(Path("plain.txt.gz"), ["The man has broken the glass."])
    result = run(
        models["bert"], DataTrainingArguments(test_file=[path], output_dir="out"), model_task="mlm"
    )
    assert "warning: plain has no rows in the tables" in capsys.readouterr().err
    assert len(result.test_results) == 0


def test_labels_that_a_masked_model_sees_are_warned_of(models, capsys):
    lines = [{"text": "The [MASK] drank.", "labels": "The the drank."}]
    path = write_lines(Path("masked.json.gz"), lines)
    args = DataTrainingArguments(test_file=[path], output_dir="out")
    assert len(run(models["bert"], args, model_task="mlm").test_results) == 1
    assert "masked: every token counts in the loss, even those" in capsys.readouterr().err


MASKED = {"data_preprocessing_fn": {"train": mask_random_tokens}}
PER_BATCHES = {"data_preprocessing_fn_strategy": {"train": PER_BATCH}}
REPEATED = "must have masks ([MASK]) to train 'tiny-mlm', a masked language model, but has none"


@pytest.mark.parametrize(
    ("lines", "settings", "is_told"),
    [
        ([{"text": "The man drank."}], {}, True),
        ([{"text": "The man drank."}], PER_BATCHES, True),
        ([{"text": "The man drank.", "labels": "The man drank."}], {}, True),
        (
            [{"text": "The man drank.", "labels": "The man drank."}],
            {"data_preprocessing_fn": {"train": lambda inputs, tokenizer: inputs}},
            True,
        ),
        # Something is hidden, or another token is to be learnt.
        ([{"text": "The [MASK] drank.", "labels": "The man drank."}], {}, False),
        ([{"text": "The man drank."}], MASKED, False),
        (
            [{"text": "The man drank."}],
            {**MASKED, **PER_BATCHES},
            False,
        ),
        ([{"text": "The man drank.", "labels": "The women drank."}], {}, False),
        (
            [
                {"text": "The man [MASK].", "labels": "The man drank."},
                {"text": "So.", "labels": "So."},
            ],
            {},
            False,
        ),
    ],
)
def test_a_masked_model_is_not_trained_to_repeat_what_it_sees(
    tmp_path, monkeypatch, lines, settings, is_told
):
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    Path("plain.txt").write_text("The man drank.\n")
    args = DataTrainingArguments(
        train_file="train.jsonl", validation_file="plain.txt", test_file=["plain.txt"],
        epochs=1, output_dir="out", save_best_model_state_to_disk=False, **settings,
    )  # fmt: skip
    if not is_told:
        run("tiny-mlm", args)  # validation and test change nothing in a model
        return
    with pytest.raises(UserError) as caught:
        run("tiny-mlm", args)
    assert f"train.jsonl {REPEATED}" in str(caught.value)
    assert not Path("out").exists()
