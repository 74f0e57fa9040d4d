"""Keyword arguments of model modifiers, checked before anything is loaded."""

from __future__ import annotations

import functools

import pytest

from finetune_lm.arguments import ModelArguments
from finetune_lm.arguments.given_functions import modifier_problems
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
CASES = [
    (needs, {"a": 1}, []),
    (needs, {"a": 1, "b": 2}, []),
    (needs, {}, [f"{PREFIX}.needs.a must be given, because needs needs it."]),
    (
        needs,
        {"a": 1, "bb": 2},
        [
            f"{PREFIX}.needs.bb is no argument of needs, which takes a, b. "
            f"Did you mean {PREFIX}.needs.b?"
        ],
    ),
    (
        needs,
        {"a": 1, "tokenizer": 2},
        [f"{PREFIX}.needs.tokenizer is no argument of needs, which takes a, b."],
    ),
    (takes_anything, {"x": 1}, []),
    (
        takes_anything,
        {"model": 1},
        [f"{PREFIX}.takes_anything.model is no argument of takes_anything, which takes none."],
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
    (picky, {"b": 2}, [f"{PREFIX}.picky.b is no argument of picky, which takes a."]),
]


@pytest.mark.parametrize(("function", "kwargs", "problems"), CASES)
def test_keyword_arguments(function, kwargs, problems):
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
