"""The index parser, against numpy's own indexing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.errors import UserError
from finetune_lm.model_modifiers._indices import index_mask, parse_index


@st.composite
def bounds(draw, size):
    """A slice that is not empty, as text."""
    parts = [
        draw(st.one_of(st.none(), st.integers(-size, size))),
        draw(st.one_of(st.none(), st.integers(-size, size))),
        draw(st.one_of(st.none(), st.integers(-3, 3).filter(bool))),
    ]
    if not list(range(size)[slice(*parts)]):
        parts = [None, None, parts[2]]
    texts = ["" if part is None else str(part) for part in parts]
    return ":".join(texts if parts[2] is not None else texts[:2])


@st.composite
def indexed_shapes(draw):
    """A shape and an index into it, as text that numpy reads the same way."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    n_given = draw(st.integers(0, len(shape)))
    dims = list(range(n_given))
    ellipsis = draw(st.one_of(st.none(), st.integers(0, n_given))) if n_given else 0
    if ellipsis is not None:  # what stands behind it is for the last dimensions
        dims = [d if d < ellipsis else d + len(shape) - n_given for d in dims]
    items, has_list = [], False
    for dim in dims:
        size = shape[dim]
        number = st.integers(-size, size - 1)
        kind = draw(st.sampled_from(["int", "slice", "slice"] + ([] if has_list else ["list"])))
        if kind == "int":
            items.append(str(draw(number)))
        elif kind == "slice":
            items.append(draw(bounds(size)))
        else:
            has_list = True
            numbers = draw(st.lists(number, min_size=1, max_size=4))
            items.append(f"[{','.join(map(str, numbers))}]")
    if ellipsis is not None:
        items.insert(ellipsis, "...")
    space = draw(st.sampled_from(["", " "]))
    return tuple(shape), f",{space}".join(items)


@given(indexed_shapes())
def test_an_index_means_what_it_means_in_numpy(case):
    shape, text = case
    expected = np.zeros(shape, dtype=bool)
    exec(f"expected[{text}] = True", {"expected": expected})
    for written in (text, text.replace("[", "(").replace("]", ")")):
        mask = index_mask(parse_index(written), shape)
        assert mask.ndim == len(shape)
        assert mask.expand(shape).numpy().tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("5", (5,)),
        ("-1", (-1,)),
        ("+2", (2,)),
        ("5,", (5,)),
        ("0:100", (slice(0, 100),)),
        (" 1 : : 2 ", (slice(1, None, 2),)),
        ("(1,5,9)", ((1, 5, 9),)),
        ("( 1, )", ((1,),)),
        ("(3)", ((3,),)),
        ("[1, 5]", ((1, 5),)),
        ("3,:", (3, slice(None))),
        (":, 2", (slice(None), 2)),
        ("...,0", (Ellipsis, 0)),
        ("1,...", (1, Ellipsis)),
        ("-3:-1,(0,2)", (slice(-3, -1), (0, 2))),
    ],
)
def test_what_can_be_written(text, items):
    assert parse_index(text) == items


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it ends too early"),
        ("  ", "it ends too early"),
        ("x", "'x' cannot stand there"),
        ("1.5", "'.' cannot stand there"),
        ("1 2", "'2' cannot stand there"),
        (",1", "',' cannot stand there"),
        ("1,,2", "',' cannot stand there"),
        ("1:2:3:4", "':' cannot stand there"),
        ("()", "brackets must hold numbers"),
        ("(1:2)", "')' is missing"),
        ("(1,2", "')' is missing"),
        ("(1,", "brackets must hold numbers"),
        ("((1,2),3)", "brackets must hold numbers"),
        ("[1,2)", "']' is missing"),
        ("1)", "')' cannot stand there"),
        ("...,...", "there can be only one ..."),
        ("(1,2),(3,4)", "only one dimension can have several numbers"),
        ("::0", "the step of a slice cannot be 0"),
        ("9" * 5000, "a number is too large"),
        ("None", "'N' cannot stand there"),
        ("__import__('os')", "'_' cannot stand there"),
        ("²", "'²' cannot stand there"),
        ("٣", "'٣' cannot stand there"),
    ],
)
def test_what_is_no_index(text, reason):
    with pytest.raises(UserError) as caught:
        parse_index(text)
    assert reason in str(caught.value)
    assert "is not an index: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("4", (4, 2), "4 is out of range: dimension 0 has 4 entries, from 0 to 3 or from -4 to -1"),
        ("-5", (4,), "-5 is out of range: dimension 0 has 4 entries"),
        ("(0,4)", (4,), "4 is out of range"),
        ("0,2", (4, 2), "2 is out of range: dimension 1 has 2 entries"),
        ("...,2", (4, 2), "2 is out of range: dimension 1 has 2 entries"),
        ("0:5", (4,), "5 is out of range: dimension 0 has 4 entries, so a slice reaches from 0 to"),
        ("-5:", (4,), "-5 is out of range"),
        ("2:2", (4,), "the slice 2:2 of dimension 0 is empty"),
        ("4:", (4,), "the slice 4: of dimension 0 is empty"),
        ("0:2:-1", (4,), "the slice 0:2:-1 of dimension 0 is empty"),
        ("0,0", (4,), "the index is for 2 dimensions, but the parameter has 1 dimension."),
        ("0,0,0", (4, 2), "the index is for 3 dimensions, but the parameter has 2 dimensions."),
        ("0", (), "the index is for 1 dimensions, but the parameter has none."),
    ],
)
def test_where_there_is_nothing(text, shape, message):
    with pytest.raises(UserError) as caught:
        index_mask(parse_index(text), shape)
    assert message in str(caught.value)


def test_a_mask_is_no_larger_than_it_must_be():
    assert index_mask(parse_index("(1,5,9)"), (1000, 768)).shape == (1000, 1)
    assert index_mask(parse_index(":, 2"), (1000, 768)).shape == (1, 768)
    assert index_mask(parse_index("0:1000"), (1000, 768)).shape == (1, 1)
    assert index_mask(parse_index("..."), ()).shape == ()
