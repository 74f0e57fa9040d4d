"""Keyword arguments of modifiers and preprocessing functions, checked before anything is loaded."""

from __future__ import annotations

import functools

import pytest

from finetune_lm.arguments import ModelArguments
from finetune_lm.arguments.given_functions import modifier_problems, preprocessing_problems
from finetune_lm.cli import main
from finetune_lm.data_preprocessing import mask_random_tokens, mask_words
from finetune_lm.errors import UserError


def needs(model, tokenizer, a, *, b=1): ...


def takes_anything(model, tokenizer, **kwargs): ...


def takes_no_tokenizer(model, a): ...


def takes_all_in_a_dictionary(**kwargs): ...


@functools.wraps(needs)
def wrapped(*args, **kwargs): ...


def wrapper(*args, **kwargs): ...


def picky(model, tokenizer, a=1): ...


def check_picky(a=1):
    if a > 1:
        raise UserError(f"a cannot be above 1 but got {a}.", "and more.")


picky.check = check_picky

PREFIX = "model_modifier_fn_kwargs"
MODIFIERS = [
    (needs, {"a": 1}, []),
    (needs, {"a": 1, "b": 2}, []),
    (needs, {}, [f"{PREFIX}.needs.a must be given, because needs needs it."]),
    (
        needs,
        {"a": 1, "bb": 2},
        [
            f"{PREFIX}.needs.bb is not an argument of needs, which takes a, b. "
            f"Did you mean {PREFIX}.needs.b?"
        ],
    ),
    (
        needs,
        {"a": 1, "tokenizer": 2},
        [f"{PREFIX}.needs.tokenizer is not an argument of needs, which takes a, b."],
    ),
    (takes_anything, {"x": 1}, []),
    (
        takes_anything,
        {"model": 1},
        [f"{PREFIX}.takes_anything.model is not an argument of takes_anything, which takes none."],
    ),
    (
        takes_no_tokenizer,
        {"a": 1},
        ["model_modifier_fns must take model and tokenizer but takes_no_tokenizer takes model, a."],
    ),
    (takes_all_in_a_dictionary, {"x": 1}, []),
    (wrapped, {}, [f"{PREFIX}.needs.a must be given, because needs needs it."]),
    (wrapper, {"x": 1}, []),
    (max, {"x": 1}, []),  # has no signature to look at
    (picky, {}, []),
    (picky, {"a": 1}, []),
    (
        picky,
        {"a": 2},
        [f"{PREFIX}.picky: a cannot be above 1 but got 2.", f"{PREFIX}.picky: and more."],
    ),
    # What it cannot be called with, its check is not called with either.
    (picky, {"b": 2}, [f"{PREFIX}.picky.b is not an argument of picky, which takes a."]),
]


@pytest.mark.parametrize(("function", "kwargs", "problems"), MODIFIERS)
def test_keyword_arguments_of_modifiers(function, kwargs, problems):
    assert modifier_problems([function], {function.__name__: kwargs}) == problems


def test_several_modifiers_are_told_of_together():
    args = ModelArguments(
        "tiny-lm",
        model_modifier_fns=[needs, picky],
        model_modifier_fn_kwargs={"picky": {"a": 2}},
    )
    assert [problem.split(" ")[0] for problem in args.problems()] == [
        f"{PREFIX}.needs.a", f"{PREFIX}.picky:", f"{PREFIX}.picky:",
    ]  # fmt: skip


def prepares(inputs, tokenizer, a, b=1): ...


def prepares_anyhow(inputs, tokenizer, **kwargs): ...


def takes_model(inputs, tokenizer, model): ...


def takes_one(inputs): ...


PREPROCESSING = [
    (prepares, {"a": 1}, True, []),
    (prepares, {"a": 1, "b": 2}, True, []),
    (prepares, {}, False, []),
    (
        prepares,
        {},
        True,
        ["data_preprocessing_fn_kwargs.test.a must be given, because prepares needs it."],
    ),
    (
        prepares,
        {"a": 1, "c": 2},
        True,
        ["data_preprocessing_fn_kwargs.test.c is not an argument of prepares, which takes a, b."],
    ),
    (prepares_anyhow, {"x": 1}, True, []),
    (takes_model, {}, True, []),
    (
        takes_model,
        {"model": 1},
        True,
        [
            "data_preprocessing_fn_kwargs.test.model is not an argument of takes_model, which "
            "takes none."
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
            "data_preprocessing_fn_kwargs.test.mask_porp is not an argument of mask_random_tokens, "
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


@pytest.mark.parametrize(("function", "kwargs", "is_used", "problems"), PREPROCESSING)
def test_keyword_arguments_of_preprocessing(function, kwargs, is_used, problems):
    used = ["test"] if is_used else []
    assert preprocessing_problems({"test": function}, {"test": kwargs}, used) == problems


def test_keyword_arguments_are_told_with_everything_else_that_is_wrong(capsys):
    argv = ["--model_name_or_path", "x", "--test_file", "x.txt.gz", "--epochs", "-1"]
    argv += ["--data_preprocessing_fn.test", "data_preprocessing.mask_words"]
    assert main(argv) == 2
    shown = capsys.readouterr().err
    assert "words_to_mask must be given, because mask_words needs it" in shown
    assert "epochs must be at least 1" in shown
