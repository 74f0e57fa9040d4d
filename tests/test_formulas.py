"""Formulas about conditions: read as they are meant, worked out as by hand, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.errors import UserError
from finetune_lm.formulas import Cost, parse_contrast, parse_prediction

Costs = dict[Cost, float]


def looked_up(costs: Costs) -> Callable[[Cost], np.ndarray]:
    return lambda cost: np.array([costs[cost]])


def contrast(text: str, **costs: float) -> float:
    values = {Cost(name): value for name, value in costs.items()}
    return float(parse_contrast(text, "here").value(looked_up(values))[0])


def holds(text: str, costs: Costs) -> float:
    return float(parse_prediction(text, "here").holds(looked_up(costs))[0])


def test_contrasts_by_hand() -> None:
    abcd = {"a": 1.0, "b": 20.0, "c": 300.0, "d": 4000.0}
    for text, expected in {
        "b - a": 19.0,
        "a - b - c": -319.0,
        "a - b + c": 281.0,
        "a - [b + c]": -319.0,
        "(a - b) - (c - d)": 3681.0,
        "[(a)] - -b": 21.0,
        "a + 2.5 - .5 + 1e1": 13.0,
        "%a% + b": 21.0,
        "a": 1.0,
        "-a": -1.0,
    }.items():
        assert contrast(text, **abcd) == pytest.approx(expected), text
    assert contrast("no-gap - gap", **{"no-gap": 5.0, "gap": 3.0}) == 2.0
    assert contrast("%no gap% - gap", **{"no gap": 5.0, "gap": 3.0}) == 2.0


def test_regions_of_contrasts() -> None:
    formula = parse_contrast("(6;%a%) - (*;%b-c%) + ( verb ; %a% )", "here")
    assert formula.costs == (Cost("a", "6"), Cost("b-c", "*"), Cost("a", "verb"))
    values = {Cost("a", "6"): 1.0, Cost("b-c", "*"): 10.0, Cost("a", "verb"): 100.0}
    assert formula.value(looked_up(values)) == [91.0]


def test_predictions_by_hand() -> None:
    costs = {Cost("a", "1"): 1.0, Cost("b", "1"): 2.0, Cost("c", "1"): 2.0005}
    a, b, c = "(1;%a%)", "(1;%b%)", "(1;%c%)"
    for text, expected in {
        f"{a} < {b}": 1,
        f"{a}>{b}": 0,
        f"{b} < {b}": 0,
        f"{b} > {b}": 0,
        f"{b} = {c}": 1,  # within 0.001
        f"{b} = {c} + 0.001": 0,
        f"{b} + 1e6 = {b} + 1000009": 1,  # within 1e-5 of a million
        f"{b} + 1e6 = {b} + 1000011": 0,
        f"[{a} < {b}] & [{b} < {a}]": 0,
        f"[{a} < {b}] | [{b} < {a}]": 1,
        f"[[{a} - {b}] < [{b} - {a}]]": 1,
        # All three count, and & binds closer than |.
        f"{a} < {b} & {a} < {b} & {b} < {a}": 0,
        f"{a} < {b} | {a} < {b} & {b} < {a}": 1,
        f"[{a} < {b} | {a} < {b}] & {b} < {a}": 0,
        f"{a} - {b} + {a} > -0.5": 1,  # from the left: 1 - 2 + 1
    }.items():
        assert holds(text, costs) == expected, text


def test_a_difference_within_a_millionth_of_a_bit_is_none() -> None:
    costs = {Cost("a"): 1.0, Cost("b"): 1.0 + 9e-7, Cost("c"): 1.0 + 1.1e-6}
    assert holds("a < b", costs) == holds("b > a", costs) == 0
    assert holds("a < c", costs) == holds("c > a", costs) == 1


def test_margins_by_hand() -> None:
    costs = {Cost("a"): 1.0, Cost("b"): 3.0, Cost("c"): 3.5}

    def margin(text: str) -> float:
        return float(parse_prediction(text, "here").margin(looked_up(costs))[0])

    assert margin("b > a") == 2.0
    assert margin("b < a") == -2.0
    assert margin("b > a & c > b") == 0.5
    assert margin("b > a | c > b") == 2.0
    assert math.isnan(margin("b > a & c = b"))


def test_what_is_missing_makes_all_missing() -> None:
    values = {"a": np.array([1.0, np.nan]), "b": np.array([2.0, 2.0])}
    for text in ("a < b", "b > 0 | a < b", "b > 0 & a < b", "a = b"):
        found = parse_prediction(text, "here").holds(lambda cost: values[cost.condition])
        assert not np.isnan(found[0]), text
        assert np.isnan(found[1]), text
    found = parse_contrast("b - a", "here").value(lambda cost: values[cost.condition])
    assert found[0] == 1.0
    assert np.isnan(found[1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must not be empty"),
        ("a - ", "must follow but it ends"),
        ("a b", "must follow but there is 'b'"),
        ("[a - b", "']' must follow but it ends"),
        ("[a - b)", "']' must follow but there is ')'"),
        ("a $ b", "cannot be read at '$ b'"),
        ("(6;a)", "cannot be read at ';a)'"),
        ("a - (a < b)", "'-' must stand between costs or numbers"),
        ("a < b < c", "'<' must stand between costs or numbers"),
        ("a & b", "'&' must stand between comparisons"),
        ("[" * 60 + "a" + "]" * 60, "more than 50 brackets"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, said: str) -> None:
    for parse in (parse_contrast, parse_prediction):
        with pytest.raises(UserError) as error:
            parse(text, "contrasts.x")
        assert str(error.value).startswith("contrasts.x: ")
        assert said in str(error.value)


def test_a_prediction_compares_and_a_contrast_does_not() -> None:
    with pytest.raises(UserError, match="must compare costs"):
        parse_prediction("a - b", "here")
    with pytest.raises(UserError, match="must be a number"):
        parse_contrast("a < b", "here")
    with pytest.raises(UserError, match="must name conditions"):
        parse_contrast("1 - 2", "here")


# Formulas as nested tuples, written down with brackets around everything and worked out by Python.
NAMES = ("a", "b_1", "no-gap")
Tree = tuple
costs_or_numbers = st.one_of(
    st.sampled_from([(region, name) for region in ("1", "*", None) for name in NAMES]),
    st.integers(0, 9),
)
numbers = st.recursive(
    costs_or_numbers,
    lambda below: st.tuples(st.sampled_from("+-"), below, below),
    max_leaves=8,
)
truths = st.recursive(
    st.tuples(st.sampled_from("<>="), numbers, numbers),
    lambda below: st.tuples(st.sampled_from("&|"), below, below),
    max_leaves=5,
)


def written(tree: object, brackets: str) -> str:
    if isinstance(tree, int):
        return str(tree)
    assert isinstance(tree, tuple)
    if len(tree) == 2:
        region, name = tree
        return f"%{name}%" if region is None else f"({region};%{name}%)"
    sign, left, right = tree
    return f"{brackets[0]}{written(left, brackets)} {sign} {written(right, brackets)}{brackets[1]}"


def worked_out(tree: object, costs: Costs) -> float:
    if isinstance(tree, int):
        return tree
    assert isinstance(tree, tuple)
    if len(tree) == 2:
        region, name = tree
        return costs[Cost(name, region)]
    left, right = (worked_out(side, costs) for side in tree[1:])
    return {
        "+": lambda: left + right,
        "-": lambda: left - right,
        "<": lambda: left < right,
        ">": lambda: left > right,
        "=": lambda: left == right,
        "&": lambda: left and right,
        "|": lambda: left or right,
    }[tree[0]]()


# Whole numbers, so that nothing is nearly equal.
tables = st.fixed_dictionaries(
    {Cost(name, region): st.integers(0, 20) for region in ("1", "*", None) for name in NAMES}
)


@given(numbers, tables, st.sampled_from(["()", "[]"]))
def test_contrasts_are_worked_out_as_python_would(tree: object, costs: Costs, b: str) -> None:
    text = f"%a% - %a% + {written(tree, b)}"
    assert parse_contrast(text, "here").value(looked_up(costs)) == worked_out(tree, costs)


@given(truths, tables, st.sampled_from(["()", "[]"]))
def test_predictions_are_worked_out_as_python_would(tree: object, costs: Costs, b: str) -> None:
    formula = parse_prediction(written(tree, b), "here")
    found = formula.holds(looked_up(costs))
    assert found.shape in ((1,), ())
    assert float(np.ravel(found)[0]) == bool(worked_out(tree, costs))
    margin = float(np.ravel(formula.margin(looked_up(costs)))[0])
    if "=" in formula.text:
        return
    assert (margin > 0) == bool(worked_out(tree, costs))


@given(st.text(alphabet="ab1*;%()[]+-<>=&| .", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_contrast, parse_prediction):
        with suppress(UserError):
            assert parse(text, "here").costs
