"""Keyword arguments of preprocessing functions, checked before anything is loaded."""

from __future__ import annotations

import pytest

from finetune_lm.arguments.given_functions import preprocessing_problems
from finetune_lm.cli import main
from finetune_lm.data_preprocessing import mask_random_tokens, mask_words


def needs(inputs, tokenizer, a, b=1): ...


def takes_anything(inputs, tokenizer, **kwargs): ...


def takes_model(inputs, tokenizer, model): ...


def takes_one(inputs): ...


CASES = [
    (needs, {"a": 1}, True, []),
    (needs, {"a": 1, "b": 2}, True, []),
    (needs, {}, False, []),
    (
        needs,
        {},
        True,
        ["data_preprocessing_fn_kwargs.test.a must be given, because needs needs it."],
    ),
    (
        needs,
        {"a": 1, "c": 2},
        True,
        ["data_preprocessing_fn_kwargs.test.c is no argument of needs, which takes a, b."],
    ),
    (takes_anything, {"x": 1}, True, []),
    (takes_model, {}, True, []),
    (
        takes_model,
        {"model": 1},
        True,
        [
            "data_preprocessing_fn_kwargs.test.model is no argument of takes_model, which takes "
            "none."
        ],
    ),
    (
        takes_one,
        {},
        True,
        [
            "data_preprocessing_fn.test must take the inputs and the tokenizer but takes_one takes "
            "inputs."
        ],
    ),
    (max, {"x": 1}, True, []),  # has no signature to look at
    (
        mask_random_tokens,
        {"mask_porp": 0.2},
        False,
        [
            "data_preprocessing_fn_kwargs.test.mask_porp is no argument of mask_random_tokens, "
            "which takes mask_prop, replacement_props. Did you mean "
            "data_preprocessing_fn_kwargs.test.mask_prop?"
        ],
    ),
    (
        mask_random_tokens,
        {"mask_prop": 15},
        True,
        ["data_preprocessing_fn_kwargs.test: mask_prop must be a number from 0 to 1 but got 15."],
    ),
    (mask_words, {"words_to_mask": "man"}, True, []),
]


@pytest.mark.parametrize(("function", "kwargs", "is_used", "problems"), CASES)
def test_problems(function, kwargs, is_used, problems):
    used = ["test"] if is_used else []
    assert preprocessing_problems({"test": function}, {"test": kwargs}, used) == problems


def test_they_are_told_with_everything_else_that_is_wrong(capsys):
    argv = ["--model_name_or_path", "x", "--test_file", "x.txt.gz", "--epochs", "-1"]
    argv += ["--data_preprocessing_fn.test", "data_preprocessing.mask_words"]
    assert main(argv) == 2
    shown = capsys.readouterr().err
    assert "words_to_mask must be given, because mask_words needs it" in shown
    assert "epochs must be at least 1" in shown


@pytest.mark.parametrize("texts", [["0"], ["-1"], ["x"], ["1", "2"], []])
def test_a_preview_needs_a_number(texts, capsys):
    argv = ["--model_name_or_path", "x", "--test_file", "x.txt.gz", "--preview", *texts]
    assert main(argv) == 2
    assert "preview must be a number of examples, at least 1, but got" in capsys.readouterr().err
