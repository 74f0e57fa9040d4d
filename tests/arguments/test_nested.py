from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.arguments.nested import DELETE_FIELD, merge, with_deletions

keys = st.sampled_from(["a", "b", "c", "d.e"])
leaves = st.integers() | st.none() | st.text() | st.lists(st.integers())
dictionaries: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(keys, leaves),
    lambda nested: st.dictionaries(keys, leaves | nested),
    max_leaves=12,
)


def leaf_paths(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if isinstance(value, dict) and (value or not path):
        found: dict[tuple[str, ...], Any] = {}
        for key, item in value.items():
            found |= leaf_paths(item, (*path, key))
        return found
    return {path: value}


@given(dictionaries)
def test_nothing_given_changes_nothing(base: dict[str, Any]) -> None:
    assert merge(base, {}, "x", []) == base


@given(dictionaries, dictionaries)
def test_what_is_given_holds_and_the_rest_stays(base: Any, given: Any) -> None:
    merged = leaf_paths(merge(base, given, "x", []))
    for path, value in leaf_paths(given).items():
        if value != {}:
            assert merged[path] == value
    for path, value in leaf_paths(base).items():
        is_touched = any(
            path[: len(other)] == other or other[: len(path)] == path for other in leaf_paths(given)
        )
        assert is_touched or merged[path] == value


@given(dictionaries, dictionaries, dictionaries)
def test_layers_can_be_put_together_in_any_grouping(a: Any, b: Any, c: Any) -> None:
    left = merge(merge(a, b, "x", []), c, "x", [])
    # Equal wherever b and c do not disagree on what is a dictionary.
    if not any(isinstance(value, dict) for layer in (a, b, c) for value in layer.values()):
        assert left == merge(a, merge(b, c, "x", []), "x", [])
    assert merge(left, c, "x", []) == left


@given(dictionaries, dictionaries)
def test_deletions_lead_to_exactly_the_effective_values(default: Any, effective: Any) -> None:
    problems: list[str] = []
    assert merge(default, with_deletions(default, effective), "x", problems) == effective
    assert problems == []


def test_a_key_is_deleted_at_any_depth() -> None:
    base = {"a": {"b": {"c": 1, "d": 2}}, "e": 3}
    problems: list[str] = []
    given = {"a": {"b": {"c": DELETE_FIELD}}, "e": DELETE_FIELD}
    assert merge(base, given, "x", problems) == {"a": {"b": {"d": 2}}}
    assert problems == []
    assert base == {"a": {"b": {"c": 1, "d": 2}}, "e": 3}


def test_a_key_that_is_not_there_cannot_be_deleted() -> None:
    problems: list[str] = []
    merge({"weight_decay": 0}, {"weight_deca": DELETE_FIELD}, "kwargs", problems)
    merge({}, {"a": {"b": DELETE_FIELD}}, "kwargs", problems)
    assert problems == [
        "kwargs.weight_deca cannot be deleted because it is not there. "
        "Did you mean kwargs.weight_decay?",
        "kwargs.a.b cannot be deleted because it is not there.",
    ]
