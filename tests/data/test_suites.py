"""Files of pairs and suites: read as they are published, or refused with the place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.data.detokenizing import joined
from finetune_lm.data.examples import Examples
from finetune_lm.data.items import items_of
from finetune_lm.data.reading_examples import ReadingOfPairs, read_examples
from finetune_lm.errors import UserError

PAIRS = ReadingOfPairs()


def blimp(path: Path, *pairs: tuple[str, str], **more: Any) -> Path:
    lines = [
        {"sentence_good": good, "sentence_bad": bad, "UID": "u", **more, "pairID": str(i)}
        for i, (good, bad) in enumerate(pairs)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def own(path: Path, *lines: tuple[str, dict[str, Any]]) -> Path:
    path.write_text("".join(f"{text}\n" for text, _ in lines))
    metadata = path.with_name(path.name.removesuffix(".txt") + "_metadata.jsonl")
    metadata.write_text("".join(json.dumps(values) + "\n" for _, values in lines))
    return path


def syntaxgym(path: Path, **changes: Any) -> Path:
    def condition(name: str, *contents: str) -> dict[str, Any]:
        regions = [{"region_number": i, "content": c} for i, c in enumerate(contents, start=1)]
        return {"condition_name": name, "regions": regions}

    suite = {
        "meta": {"name": "number", "metric": "sum"},
        "region_meta": {"1": "np", "2": "comma", "3": "verb"},
        "predictions": [{"type": "formula", "formula": "(3;%match%) < (3;%mis-match%)"}],
        "items": [
            {
                "item_number": number,
                "conditions": [
                    condition("match", noun, ",", "runs ."),
                    condition("mis-match", noun, "", "run ."),
                ],
            }
            for number, noun in enumerate(("The cat", "A dog"), start=1)
        ],
        **changes,
    }
    path.write_text(json.dumps(suite, indent=4))
    return path


def test_blimp(tmp_path: Path) -> None:
    path = blimp(
        tmp_path / "drop.jsonl", ("a b.", "b a."), ("c d.", "d c."), linguistics_term="order"
    )
    examples = read_examples(str(path), pairs=PAIRS)
    assert examples.name == "drop"
    assert examples.has_pairs
    assert examples.texts == ["a b.", "b a.", "c d.", "d c."]
    assert examples.metadata[3] == {
        "UID": "u",
        "linguistics_term": "order",
        "pairID": "1",
        "item": 1,
        "condition": "bad",
        "expected": False,
        "phenomenon": "order",
    }


def test_multiblimp_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "nld.jsonl.gz"
    line = {"sen": "De kat slaapt.", "wrong_sen": "De kat slapen.", "phenomenon": "SV-#"}
    path.write_bytes(gzip.compress(json.dumps(line).encode()))
    examples = read_examples(str(path), pairs=PAIRS)
    assert examples.texts == ["De kat slaapt.", "De kat slapen."]
    assert [m["phenomenon"] for m in examples.metadata] == ["SV-#", "SV-#"]
    assert [m["expected"] for m in examples.metadata] == [True, False]


def test_a_sentence_of_several_pairs_is_there_once(tmp_path: Path) -> None:
    path = blimp(tmp_path / "x.jsonl", ("a", "b"), ("a", "c"), ("c", "c"))
    examples = read_examples(str(path), pairs=PAIRS)
    assert examples.texts == ["a", "b", "c"]
    a, b, c = examples.metadata
    assert (a["item"], a["condition"], a["pairID"]) == ([0, 1], "good", ["0", "1"])
    assert (b["item"], b["condition"], b["expected"]) == (0, "bad", False)
    assert (c["item"], c["condition"]) == ([1, 2, 2], ["bad", "good", "bad"])
    items = items_of(examples.metadata)
    found = [
        [
            (examples.texts[m.example], m.condition, m.expected, m.metadata["pairID"])
            for m in i.members
        ]
        for i in items
    ]
    assert found == [
        [("a", "good", True, "0"), ("b", "bad", False, "0")],
        [("a", "good", True, "1"), ("c", "bad", False, "1")],
        [("c", "good", True, "2"), ("c", "bad", False, "2")],
    ]


def test_so_many_samples_are_so_many_lines(tmp_path: Path) -> None:
    path = blimp(tmp_path / "x.jsonl", ("a", "b"), ("a", "c"), ("a", "d"))
    examples = read_examples(str(path), 2, PAIRS)
    assert examples.texts == ["a", "b", "c"]
    assert examples.metadata[0]["item"] == [0, 1]
    assert read_examples(str(path), 9, PAIRS).texts == ["a", "b", "c", "d"]


def test_syntaxgym(tmp_path: Path) -> None:
    examples = read_examples(str(syntaxgym(tmp_path / "suite.json")), pairs=PAIRS)
    assert examples.texts == ["The cat , runs .", "The cat run .", "A dog , runs .", "A dog run ."]
    assert examples.predictions == ("(3;%match%) < (3;%mis-match%)",)
    assert examples.metadata[0] == {
        "item": 1,
        "condition": "match",
        "phenomenon": "number",
        "regions": [["1", 0, 7], ["2", 8, 9], ["3", 10, 16]],
    }
    assert examples.metadata[1]["regions"] == [["1", 0, 7], ["3", 8, 13]]
    detokenized = read_examples(str(tmp_path / "suite.json"), 1, ReadingOfPairs(detokenize=True))
    assert detokenized.texts == ["The cat, runs.", "The cat run."]
    assert detokenized.metadata[0]["regions"] == [["1", 0, 7], ["2", 7, 8], ["3", 9, 14]]


def test_a_suite_on_one_line(tmp_path: Path) -> None:
    path = syntaxgym(tmp_path / "suite.json")
    path.write_text(json.dumps(json.loads(path.read_text())) + "\n")
    assert len(read_examples(str(path), pairs=PAIRS)) == 4


def test_a_leading_space_moves_regions(tmp_path: Path) -> None:
    path = syntaxgym(tmp_path / "suite.json")
    examples = read_examples(str(path), pairs=ReadingOfPairs(leading_space=True))
    assert examples.texts[0] == " The cat , runs ."
    for text, values in zip(examples.texts, examples.metadata, strict=True):
        for name, begin, end in values["regions"]:
            assert text[begin:end] in (
                {"1": "The cat", "2": ",", "3": "runs ."}[name],
                "A dog",
                "run .",
            )


def test_own_lines(tmp_path: Path) -> None:
    path = own(
        tmp_path / "own.txt",
        ("a", {"pair": "p", "condition": "x", "expected": True}),
        ("b", {"pair": "p", "condition": "y", "expected": False}),
        ("c", {"pair": "p", "condition": "z", "expected": False}),
    )
    examples = read_examples(str(path), pairs=ReadingOfPairs(leading_space=True))
    assert examples.has_pairs
    assert examples.texts == [" a", " b", " c"]
    [item] = items_of(examples.metadata)
    assert item.expected is not None
    assert item.expected.condition == "x"
    assert [member.condition for member in item.others] == ["y", "z"]


def test_plain_files_stay_as_they_are(tmp_path: Path) -> None:
    metadata = {"item": 3, "condition": "x", "expected": "dogs", "regions": [["1", 0, 1]]}
    path = own(tmp_path / "own.txt", ("a", metadata), ("b", {"source": "web"}))
    expected = Examples(
        "own",
        str(path),
        ["a", "b"],
        None,
        [metadata, {"source": "web"}],
        str(tmp_path / "own_metadata.jsonl"),
    )
    assert read_examples(str(path), pairs=ReadingOfPairs(leading_space=True)) == expected
    # Lines that a contrast compares have pairs.
    reading = ReadingOfPairs(leading_space=True, contrasts=(frozenset({"x"}),))
    assert read_examples(str(path), pairs=reading).texts == [" a", " b"]
    reading = ReadingOfPairs(leading_space=True, contrasts=(frozenset({"x", "y"}),))
    assert read_examples(str(path), pairs=reading) == expected


def test_files_to_train_on_are_not_read_as_pairs(tmp_path: Path) -> None:
    path = blimp(tmp_path / "x.jsonl", ("a", "b"))
    with pytest.raises(UserError, match="must have the key 'text'"):
        read_examples(str(path))


def test_metadata_of_pairs_have_a_line_a_pair(tmp_path: Path) -> None:
    path = blimp(tmp_path / "x.jsonl", ("a", "b"), ("a", "c"))
    (tmp_path / "x_metadata.jsonl").write_text('{"rating": 1.5}\n{"rating": 2.5}\n')
    examples = read_examples(str(path), pairs=PAIRS)
    assert [values["rating"] for values in examples.metadata] == [[1.5, 2.5], 1.5, 2.5]
    (tmp_path / "x_metadata.jsonl").write_text('{"rating": 1.5}\n')
    with pytest.raises(UserError, match=r"has 1 and .* has 2"):
        read_examples(str(path), pairs=PAIRS)


def broken_suite(**changes: Any) -> Any:
    return lambda path: syntaxgym(path, **changes)


FORMULA = {"type": "formula"}
BAD_FILES = {
    "x.jsonl, line 2: must have 'sentence_good' and 'sentence_bad'": (
        '{"sentence_good": "a", "sentence_bad": "b"}\n{"text": "c"}\n'
    ),
    "x.jsonl, line 2: 'sentence_bad' must be a string": (
        '{"sentence_good": "a", "sentence_bad": "b"}\n{"sentence_good": "a", "sentence_bad": 3}\n'
    ),
    "x.jsonl, line 1: must have 'sen' and 'wrong_sen'": '{"sen": "a"}\n',
    "x.jsonl, line 2: an example must have the key 'text'": (
        '{"text": "c"}\n{"sentence_good": "a", "sentence_bad": "b"}\n'
    ),
    "x.jsonl: must be JSON but is not": '{\n"items": [,]\n}\n',
    "x.jsonl: a file that is one JSON object must be a SyntaxGym suite": '{\n"things": []\n}\n',
    "x.jsonl, line 1: must be JSON but is not": '{"sentence_good": "a"\n{"sentence_good": "a"}\n',
}


@pytest.mark.parametrize("said", BAD_FILES)
def test_mixtures_and_broken_lines_are_named(tmp_path: Path, said: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(BAD_FILES[said])
    with pytest.raises(UserError) as error:
        read_examples(str(path), pairs=PAIRS)
    assert said in str(error.value)


def changed(item: int, change: Any) -> list[Any]:
    """The items of the suite, one of them changed."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        items = json.loads(syntaxgym(Path(directory, "s.json")).read_text())["items"]
    change(items[item])
    return list(items)


BAD_SUITES: dict[str, dict[str, Any]] = {
    "item 1: an item_number must occur once": {
        "items": changed(1, lambda item: item.update(item_number=1))
    },
    "item 2: must have a list of 'conditions'": {
        "items": changed(1, lambda item: item.update(conditions=[]))
    },
    "item 2: must have the condition 'mis-match'": {
        "items": changed(1, lambda item: item["conditions"].pop())
    },
    "item 2: the condition 'match' must occur once": {
        "items": changed(1, lambda item: item["conditions"].append(item["conditions"][0]))
    },
    "item 2, condition 'match': region 1 must occur once": {
        "items": changed(
            1,
            lambda item: item["conditions"][0]["regions"].append(
                {"region_number": 1, "content": ""}
            ),
        )
    },
    "item 2, condition 'match', region 1: 'content' must be text": {
        "items": changed(1, lambda item: item["conditions"][0]["regions"][0].update(content=3))
    },
    "item 2 of the list: must have an 'item_number'": {
        "items": changed(1, lambda item: item.update(item_number=None))
    },
    "prediction 1: cannot be read at '$'": {"predictions": [{**FORMULA, "formula": "$"}]},
    "prediction 1: must be an object": {"predictions": ["a < b"]},
    "item 1: must have the condition 'other'": {
        "predictions": [{**FORMULA, "formula": "(1;%other%) < 3"}]
    },
    "no item has the region 7": {"predictions": [{**FORMULA, "formula": "(7;%match%) < 3"}]},
    "item 1: a prediction must say (region;%condition%)": {
        "predictions": [{**FORMULA, "formula": "match < 3"}]
    },
    "the metric of a suite must be sum or mean": {"meta": {"metric": "median"}},
    "must be a SyntaxGym suite with 'items'": {"items": []},
}


@pytest.mark.parametrize("said", BAD_SUITES)
def test_broken_suites_are_named(tmp_path: Path, said: str) -> None:
    path = syntaxgym(tmp_path / "suite.json", **BAD_SUITES[said])
    with pytest.raises(UserError) as error:
        read_examples(str(path), pairs=PAIRS)
    assert said in str(error.value)
    assert "suite.json" in str(error.value)


GOOD = {"item": 1, "condition": "x", "expected": True}
WORSE = {"item": 1, "condition": "y", "expected": False}
BAD_METADATA: dict[str, list[dict[str, Any]]] = {
    "line 3: must have 'condition'": [GOOD, WORSE, {"item": 2}],
    "line 2: must have 'expected'": [GOOD, {"item": 1, "condition": "y"}],
    "line 2: must have 'pair' or 'item'": [GOOD, {"condition": "y", "expected": False}],
    "line 2: 'expected' must be true or false but is 0": [GOOD, {**WORSE, "expected": 0}],
    "item 1 (lines 1, 2): one sentence must be expected to be likelier than the others but 2": [
        GOOD,
        {**WORSE, "expected": True},
    ],
    "item 1 (lines 1): must have two sentences": [GOOD],
    "item 1 (lines 1, 2, 3): each sentence must have a condition": [GOOD, WORSE, WORSE],
}


@pytest.mark.parametrize("said", BAD_METADATA)
def test_broken_items_of_own_lines_are_named(tmp_path: Path, said: str) -> None:
    path = own(tmp_path / "own.txt", *[("a", values) for values in BAD_METADATA[said]])
    with pytest.raises(UserError) as error:
        read_examples(str(path), pairs=PAIRS)
    assert f"own_metadata.jsonl, {said}" in str(error.value)


def test_detokenized_by_hand() -> None:
    for contents, expected in {
        ("She left", ", he said", "."): "She left, he said.",
        ("It is n't", "John 's", "( or so )"): "It isn't John's (or so)",
        ("He said", '" yes', 'and no "', "; then left"): 'He said "yes and no"; then left',
        ("the boys '", "dog"): "the boys' dog",
    }.items():
        parts = [(str(i), content) for i, content in enumerate(contents)]
        text, spans = joined(parts, detokenize=True)
        assert text == expected
        assert len(spans) == len(contents)


words = st.sampled_from(["the", "cat", ",", ".", "n't", "'s", "(", ")", '"', "?", "é"])


@given(st.lists(st.lists(words, max_size=4), min_size=1, max_size=5), st.booleans())
def test_regions_are_where_they_are_said_to_be(contents: list[list[str]], detokenize: bool) -> None:
    parts = [(str(i), " ".join(content)) for i, content in enumerate(contents)]
    text, spans = joined(parts, detokenize=detokenize)
    assert [name for name, _, _ in spans] == [name for name, content in parts if content]
    # Nothing but spaces is lost, and regions follow one another.
    for name, begin, end in spans:
        content = dict(parts)[name]
        assert text[begin:end].replace(" ", "") == content.replace(" ", "")
        assert detokenize or text[begin:end] == content
    ends = [0, *[end for _, _, end in spans]]
    for before, (_, begin, _) in zip(ends, spans, strict=False):
        assert text[before:begin] in ("", " ")
    assert text.replace(" ", "") == "".join(c.replace(" ", "") for _, c in parts)
