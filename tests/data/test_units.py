"""Words and regions that data give: what is read, what is said of what does not fit."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.data.ragged_arrays import Ragged
from finetune_lm.data.reading_examples import read_examples
from finetune_lm.data.units import Region, read_units, regions_of_tokens
from finetune_lm.data.words import TokenPlaces, align, word_spans
from finetune_lm.errors import UserError
from helpers import write_lines

HERE = "x.json, line 3"


def message_of(values, text="The cat sat."):
    with pytest.raises(UserError) as caught:
        read_units(values, HERE).fitted(text)
    [problem] = caught.value.problems
    assert problem.startswith(HERE + ": ")
    return problem.removeprefix(HERE + ": ")


@given(st.lists(st.text("ab我们.", min_size=1), min_size=1), st.data())
def test_words_are_found_one_after_another(words, data):
    spaces = data.draw(st.lists(st.sampled_from(["", " ", "\t "]), min_size=len(words)))
    lead = data.draw(st.sampled_from(["", " "]))
    text = lead + "".join(word + space for word, space in zip(words, spaces, strict=False))
    spans = read_units({"words": words}, HERE).fitted(text).words
    assert [text[a:b] for a, b in spans] == words
    assert all(a >= b for (_, b), (a, _) in itertools.pairwise(spans))
    assert read_units({}, HERE).fitted(text).words is None


def test_what_is_wrong_with_words():
    assert message_of({"words": "The cat sat."}).startswith("'words' must be a list of strings")
    assert "but got [1]" in message_of({"words": [1]})
    assert "but one is ' cat'" in message_of({"words": ["The", " cat"]})
    assert "but one is ''" in message_of({"words": ["The", ""]})
    assert message_of({"words": ["The", "dog"]}) == (
        "'words' must follow one another in the text, but word 2 is 'dog' where the text goes on "
        "with 'cat sat.' (character 4)."
    )
    assert message_of({"words": ["The", "cat", "sat", ".", "on"]}).endswith(
        "word 5 is 'on' where the text is at its end (character 12)."
    )
    assert message_of({"words": ["The", "cat", "sat"]}) == (
        "'words' must cover the text, but '.' is left after the last of them (character 11)."
    )
    assert "'The' is left" in message_of({"words": []}, "The")


def test_what_is_wrong_with_regions():
    for regions in ("verb", {"verb": [0, 3]}, 3):
        assert message_of({"regions": regions}).startswith("'regions' must be a list of [name, ")
    for region in (
        ["verb", 3],
        ["verb", 3, 3],
        ["verb", -1, 3],
        ["verb", 0, 3.0],
        ["verb", False, 3],
        [1, 0, 3],
        [" ", 0, 3],
        "verb",
        ["verb", 0, 3, 4],
    ):
        assert json.dumps(region) in message_of({"regions": [["subj", 4, 7], region]})
    assert message_of({"regions": [["verb", 8, 13]]}) == (
        "region 'verb' must lie in the text, which has 12 characters, but is from 8 to 13."
    )
    assert message_of({"regions": [["b", 5, 8], ["a", 0, 6]]}) == (
        "regions must not overlap, but 'a' is from 0 to 6 and 'b' from 5 to 8."
    )


def test_regions_come_in_order():
    units = read_units({"regions": [["b", 5, 8], ["a", 0, 5]], "words": None}, HERE)
    assert units.regions == (Region("a", 0, 5), Region("b", 5, 8))
    assert units.words is None
    assert read_units({"regions": None}, HERE).regions == ()


REGIONS = st.lists(st.integers(0, 12), min_size=2, max_size=6, unique=True).map(sorted)


@given(
    st.lists(st.tuples(st.text("ab c", min_size=12, max_size=12), REGIONS), max_size=3), st.data()
)
def test_the_region_of_a_token_is_the_last_that_it_is_part_of(cases, data):
    """Against a search through all characters."""
    cases = [(text, edges) for text, edges in cases if text.strip()]
    texts = [text for text, _ in cases]
    regions = [
        [Region(f"r{a}", a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
        for _, edges in cases
    ]
    cuts = [data.draw(st.lists(st.integers(0, 12), max_size=5).map(sorted)) for _ in cases]
    edges = [[0, *cut, 12] for cut in cuts]
    places = TokenPlaces(
        Ragged.of([-1, *e[:-1]] for e in edges),
        Ragged.of([-1, *e[1:]] for e in edges),
        np.full(len(cases), -1),
    )
    aligned = align(texts, places, [word_spans(text) for text in texts])
    lengths = places.starts.lengths
    names, number, straddles = regions_of_tokens(texts, regions, aligned, lengths)
    of_text = np.repeat(np.arange(len(texts)), lengths)
    for i, text in enumerate(of_text.tolist()):
        start, end = int(aligned.start[i]), int(aligned.end[i])
        if start < 0:
            assert (number[i], straddles[i]) == (-1, False)
            continue
        mine = range(start, end) if start < end else [min(start, 11)]
        inside = [r for r in regions[text] if set(range(r.start, r.end)) & set(mine)]
        assert (names[number[i]] if number[i] >= 0 else None) == (
            inside[-1].name if inside else None
        )
        parts = {next((r for r in regions[text] if r.start <= c < r.end), None) for c in mine}
        assert straddles[i] == (len(parts) > 1)


def test_units_in_the_lines_and_in_the_metadata(tmp_path):
    path = tmp_path / "x.json.gz"
    lines = [
        {"text": "The cat sat.", "regions": [["verb", 8, 11]]},
        {"text": "我们来。", "words": ["我们", "来", "。"]},
        {"text": "So."},
        {"prefix": "The cat", "target": " sat down."},
        {"prefix": "The cat", "target": "s"},
        {"prefix": "", "target": "So.", "regions": []},
    ]
    write_lines(path, lines, [{"a": 1}, {}, {"regions": [["so", 0, 2]]}, {}, {}, {"words": None}])
    read = read_examples(str(path))
    assert read.texts[3:] == ["The cat sat down.", "The cats", "So."]
    assert read.metadata == [
        {"a": 1, "regions": [["verb", 8, 11]]},
        {"words": ["我们", "来", "。"]},
        {"regions": [["so", 0, 2]]},
        {"regions": [["target", 8, 17]]},
        {"regions": [["target", 7, 8]]},
        {"words": None, "regions": [["target", 0, 3]]},
    ]


def test_regions_fit_a_text_or_its_labels(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"text": "a b", "labels": "the man has", "regions": [["x", 8, 11]]}\n')
    assert len(read_examples(str(path))) == 1
    path.write_text('{"text": "a b", "labels": "the man has", "regions": [["x", 8, 12]]}\n')
    with pytest.raises(UserError, match="which has 11 characters"):
        read_examples(str(path))
