"""Pairs, predictions and contrasts against brute force, and summaries by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import finetune_lm
from finetune_lm.analysis.comparisons import Wanted
from finetune_lm.analysis.pair_summary import standard_error, wilson
from finetune_lm.analysis.pairs import Asked, PassSplitter, columns_of_pass
from finetune_lm.errors import UserError
from finetune_lm.formulas import parse_contrasts

Sentence = dict[str, Any]


def frame(sentences: list[Sentence], **constants: Any) -> pd.DataFrame:
    """Rows of tokens. A sentence has ``bits`` (None: not predicted), ``regions``, metadata."""
    rows = []
    for number, sentence in enumerate(sentences):
        metadata = {k: v for k, v in sentence.items() if k not in ("bits", "regions", "unknown")}
        regions = sentence.get("regions", [None] * len(sentence["bits"]))
        for bits, region in zip(sentence["bits"], regions, strict=True):
            rows.append(
                {
                    "model_name": "m",
                    "dataset_name": "d",
                    "dataset_type": "test",
                    "epoch": pd.NA,
                    "example_num": number,
                    "item": number,
                    "original_text": "a b",
                    "is_target": True,
                    "is_unknown": sentence.get("unknown", False),
                    "region": region,
                    "surprisal": bits,
                    "seed": 1,
                    **constants,
                    **metadata,
                }
            )
    return pd.DataFrame(rows).astype({"surprisal": float, "epoch": "Int64"})


def good(item: Any, *bits: float | None, **more: Any) -> Sentence:
    return {"item": item, "condition": "good", "expected": True, "bits": bits, **more}


def bad(item: Any, *bits: float | None, **more: Any) -> Sentence:
    return {"item": item, "condition": "bad", "expected": False, "bits": bits, **more}


def test_pairs_by_hand() -> None:
    found = finetune_lm.pairs(
        frame(
            [
                good(0, 1.0, 2.0),
                bad(0, 4.0),  # 1 bit more by sum, 2.5 by mean per token
                good(1, 5.0),
                bad(1, 2.0, 2.5),  # 0.5 less by sum, 2.75 less per token
                good(2, 3.0),
                bad(2, 1.5, 1.5),  # a tie by sum
            ]
        ),
        start_token="<s>",
    )
    pairs = found.pairs
    assert pairs["difference"].tolist() == [1.0, -0.5, 0.0]
    assert pairs["difference_per_token"].tolist() == [2.5, -2.75, -1.5]
    assert pairs["correct"].tolist() == [1.0, 0.0, 0.5]
    assert pairs["correct_per_token"].tolist() == [1.0, 0.0, 0.0]
    assert pairs["surprisal_better"].tolist() == [3.0, 5.0, 3.0]
    assert pairs["surprisal_worse"].tolist() == [4.0, 4.5, 3.0]
    assert pairs["n_tokens_better"].tolist() == [2, 1, 1]
    assert pairs["n_tokens_worse"].tolist() == [1, 2, 2]
    assert pairs["better"].tolist() == ["good"] * 3
    assert pairs["worse"].tolist() == ["bad"] * 3
    assert pairs["item"].tolist() == [0, 1, 2]
    assert pairs["phenomenon"].tolist() == ["d"] * 3
    [row] = found.summary.to_dict("records")
    assert row["n_pairs"] == 3
    assert row["accuracy"] == 0.5
    assert row["ties"] == 1
    assert row["mean_difference"] == pytest.approx(1 / 6)
    assert row["se"] == pytest.approx(np.std([1, -0.5, 0], ddof=1) / math.sqrt(3))
    assert row["accuracy_per_token"] == pytest.approx(1 / 3)
    assert row["ties_per_token"] == 0
    assert row["mean_difference_per_token"] == pytest.approx(-1.75 / 3)
    assert (row["ci_low"], row["ci_high"]) == wilson(0.5, 3)
    assert row["n_with_unknown"] == 0
    assert row["leading_space"] is np.False_ or row["leading_space"] is False
    assert row["start_token"] == "<s>"


def test_wilson_against_published_values() -> None:
    # Newcombe (1998), table I: intervals of method 3 for 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for right, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


def test_a_standard_error_needs_two_values() -> None:
    assert standard_error(np.array([1.0])) is None
    assert standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)


def test_equal_costs_are_ties_whatever_the_order_of_tokens() -> None:
    bits = [0.1, 7.3, 2.9, 11.7]
    found = finetune_lm.pairs(frame([good(0, *bits), bad(0, *reversed(bits))]))
    assert found.pairs["correct"].tolist() == [0.5]
    assert found.summary["ties"].tolist() == [1]


def test_several_others_are_beaten_by_the_likeliest() -> None:
    sentences = [
        good(0, 5.0),
        {**bad(0, 9.0), "condition": "x"},
        {**bad(0, 6.0), "condition": "y"},
        {**bad(0, 2.0, 2.0, 2.0, 2.0), "condition": "z"},
    ]
    [row] = finetune_lm.pairs(frame(sentences)).pairs.to_dict("records")
    assert (row["worse"], row["difference"]) == ("y", 1.0)
    assert row["difference_per_token"] == -3.0


def test_regions() -> None:
    def sentence(make: Any, *bits: float) -> Sentence:
        made: Sentence = make(0, *bits)
        return {**made, "regions": ["start", "verb", "end"]}

    both = frame([sentence(good, 1.0, 2.0, 9.0), sentence(bad, 1.0, 4.0, 5.0)])
    assert finetune_lm.pairs(both).pairs["difference"].tolist() == [-2.0]
    found = finetune_lm.pairs(both, region="verb")
    assert found.pairs["difference"].tolist() == [2.0]
    assert found.summary["region"].tolist() == ["verb"]
    # One region that all have in common is what pairs are scored over.
    only = both.assign(region=both["region"].where(both["region"] == "verb", None))
    assert finetune_lm.pairs(only).pairs["difference"].tolist() == [2.0]


def test_what_has_no_cost_is_missing_and_never_0() -> None:
    found = finetune_lm.pairs(
        frame([good(0, None), bad(0, 3.0), good(1, None, 1.0), bad(1, None, 3.0)])
    )
    assert found.pairs["difference"].isna().tolist() == [True, False]
    assert found.pairs["correct"].isna().tolist() == [True, False]
    assert found.summary["n_pairs"].tolist() == [1]
    assert found.summary["accuracy"].tolist() == [1.0]
    assert found.pairs["difference"].tolist()[1] == 2.0


def test_items_that_are_not_whole_are_left_out() -> None:
    found = finetune_lm.pairs(frame([good(0, 1.0), bad(0, 2.0), good(1, 1.0)]))
    assert found.pairs["item"].tolist() == [0]
    with pytest.raises(UserError, match="items to compare"):
        finetune_lm.pairs(frame([good(0, 1.0)]))
    with pytest.raises(UserError, match="rows of tokens, with the column dataset_name"):
        finetune_lm.pairs(pd.DataFrame({"x": [1]}))


def test_unknown_tokens_are_counted_by_pair() -> None:
    sentences = [good(0, 1.0), bad(0, 2.0, unknown=True), good(1, 1.0), bad(1, 2.0)]
    found = finetune_lm.pairs(frame(sentences))
    assert found.pairs["has_unknown"].tolist() == [True, False]
    assert found.summary["n_with_unknown"].tolist() == [1]
    without = frame(sentences).drop(columns="is_unknown")
    assert finetune_lm.pairs(without).summary["n_with_unknown"].isna().all()


def test_sentences_of_several_pairs() -> None:
    shared = {
        "item": "[0, 1]",
        "condition": "good",
        "expected": "true",
        "pairID": '["a", "b"]',
        "bits": [2.0],
    }
    one = {"item": "0", "condition": "bad", "expected": "false", "pairID": "a", "bits": [3.0]}
    two = {"item": "1", "condition": "bad", "expected": "false", "pairID": "b", "bits": [1.0]}
    found = finetune_lm.pairs(frame([shared, one, two]))
    assert found.pairs["difference"].tolist() == [1.0, -1.0]
    assert found.pairs["pairID"].tolist() == ["a", "b"]
    assert found.pairs["item"].tolist() == ["0", "1"]


def test_metadata_that_all_sentences_of_an_item_share_come_along() -> None:
    found = finetune_lm.pairs(
        frame(
            [
                good(0, 1.0, verb="see", rating=2.5, noun="a"),
                bad(0, 2.0, verb="see", rating=2.5, noun="b"),
            ]
        )
    )
    assert found.pairs.columns[-3:].tolist() == ["verb", "rating", "noun"]
    assert found.pairs["verb"].tolist() == ["see"]
    assert found.pairs["rating"].tolist() == [2.5]
    assert found.pairs["noun"].isna().all()


def test_contrasts_by_item() -> None:
    bits = {0: (1.0, 2.0, 4.0, 8.0), 1: (1.0, 1.0, 1.0, 5.0)}
    sentences = [
        {"item": item, "condition": condition, "bits": [each]}
        for item, costs in bits.items()
        for condition, each in zip("abcd", costs, strict=True)
    ]
    sentences.append({"item": 2, "condition": "a", "bits": [1.0]})
    contrasts = {"simple": "b - a", "interaction": "(d - c) - (b - a)"}
    found = finetune_lm.pairs(frame(sentences), contrasts=contrasts)
    by_name = dict(list(found.pairs.groupby("comparison_name", sort=False)))
    assert by_name["simple"]["difference"].tolist() == [1.0, 0.0]
    assert by_name["interaction"]["difference"].tolist() == [3.0, 4.0]
    assert found.pairs["correct"].isna().all()
    row = found.summary.set_index("comparison_name").loc["interaction"]
    assert row["n_pairs"] == 2
    assert row["mean_difference"] == 3.5
    assert row["se"] == pytest.approx(0.5)
    assert pd.isna(row["accuracy"])
    with pytest.raises(UserError, match=r"contrasts\.x"):
        finetune_lm.pairs(frame(sentences), contrasts={"x": "a -"})
    # A mean over the sentences that an item has of a condition.
    twice = [*sentences[:2], {"item": 0, "condition": "a", "bits": [3.0]}]
    found = finetune_lm.pairs(frame(twice), contrasts={"x": "b - a"})
    assert found.pairs["difference"].tolist() == [0.0]


def test_predictions() -> None:
    def sentence(item: int, condition: str, *bits: float, regions: str = "12") -> Sentence:
        return {"item": item, "condition": condition, "bits": bits, "regions": list(regions)}

    sentences = [
        sentence(1, "a", 1.0, 5.0),
        sentence(1, "b", 2.0, 3.0),
        sentence(2, "a", 1.0, 1.0),
        sentence(2, "b", 3.0, regions="1"),  # nothing in region 2: it costs nothing
    ]
    formulas = ["(2;%a%) > (2;%b%)", "(*;%a%) < (*;%b%) & (1;%a%) < (1;%b%)"]
    found = finetune_lm.pairs(frame(sentences), predictions=formulas)
    assert found.pairs["comparison_name"].tolist() == [formulas[0]] * 2 + [formulas[1]] * 2
    assert found.pairs["correct"].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert found.pairs["difference"].tolist() == [2.0, 1.0, -1.0, 1.0]
    assert found.summary["accuracy"].tolist() == [1.0, 0.5]
    by_name = finetune_lm.pairs(frame(sentences), predictions={"d": formulas[:1]})
    assert by_name.summary["accuracy"].tolist() == [1.0]


def test_one_data_set_after_another_and_epochs_apart() -> None:
    first = [good(0, 1.0), bad(0, 2.0)]
    table = pd.concat(
        [
            frame(first, epoch=0),
            frame(first, epoch=0, dataset_name="e"),
            frame([good(0, 3.0), bad(0, 2.0)], epoch=1),
        ],
        ignore_index=True,
    )
    # In whatever order the rows stand.
    table = table.sort_values("surprisal", kind="stable")
    summary = finetune_lm.pairs(table).summary
    found = {
        (row["epoch"], row["dataset_name"]): row["accuracy"] for row in summary.to_dict("records")
    }
    assert found == {(0, "d"): 1.0, (0, "e"): 1.0, (1, "d"): 0.0}


# Any items with any costs, against brute force.
costs = st.lists(st.one_of(st.none(), st.integers(0, 80).map(lambda n: n / 8)), max_size=4)
sentences_of_items = st.lists(
    st.lists(st.tuples(costs, st.booleans()), min_size=1, max_size=4), min_size=1, max_size=6
)


def made(items: list[list[tuple[list[float | None], bool]]]) -> Iterator[Sentence]:
    for item, members in enumerate(items):
        for place, (bits, unknown) in enumerate(members):
            yield {
                "item": item,
                "condition": f"c{place}",
                "expected": place == 0,
                "phenomenon": "even" if item % 2 == 0 else "odd",
                "bits": bits,
                "unknown": unknown,
            }


def total(bits: list[float | None]) -> float | None:
    there = [each for each in bits if each is not None]
    return sum(there) if there else None


def mean(bits: list[float | None]) -> float | None:
    there = [each for each in bits if each is not None]
    return sum(there) / len(there) if there else None


def brute_force(items: list[list[tuple[list[float | None], bool]]], cost: Any) -> dict[int, Any]:
    found = {}
    for item, members in enumerate(items):
        # An example without any token is in no row.
        there = [(place, bits) for place, (bits, _) in enumerate(members) if bits]
        if len(there) < 2 or there[0][0] != 0:
            continue
        better, *others = (cost(bits) for _, bits in there)
        missing = better is None or any(other is None for other in others)
        found[item] = None if missing else min(others) - better
    return found


@given(sentences_of_items, st.randoms(use_true_random=False))
def test_pairs_are_what_brute_force_finds(
    items: list[list[tuple[list[float | None], bool]]], random: Any
) -> None:
    expected = {"difference": brute_force(items, total)}
    expected["difference_per_token"] = brute_force(items, mean)
    sentences = list(made(items))
    if not any(sentence["bits"] for sentence in sentences):
        return
    table = frame(sentences)
    if not expected["difference"]:
        with pytest.raises(UserError):
            finetune_lm.pairs(table)
        return
    found = finetune_lm.pairs(table)
    for column, by_item in expected.items():
        assert found.pairs["item"].tolist() == list(by_item)
        for difference, wanted in zip(found.pairs[column], by_item.values(), strict=True):
            assert pd.isna(difference) if wanted is None else difference == pytest.approx(wanted)
    for row in found.summary.to_dict("records"):
        scored = [
            d
            for item, d in expected["difference"].items()
            if d is not None and ("even" if item % 2 == 0 else "odd") == row["phenomenon"]
        ]
        assert row["n_pairs"] == len(scored)
        if scored:
            points = [0.5 if abs(d) <= 1e-6 else float(d > 0) for d in scored]
            assert row["accuracy"] == pytest.approx(sum(points) / len(points))
            assert row["ties"] == points.count(0.5)
            assert row["mean_difference"] == pytest.approx(sum(scored) / len(scored))
            assert row["ci_low"] <= row["accuracy"] <= row["ci_high"]
    # The same whatever the batches in which rows come, and in which order sentences are.
    rows = pa.Table.from_pandas(table, preserve_index=False)
    asked = Asked(Wanted(parse_contrasts({})))
    metadata = ["condition", "expected", "phenomenon"]
    of_pass = columns_of_pass(rows.column_names)
    splitter = PassSplitter(asked, metadata, of_pass)
    results = []
    begin = 0
    while begin < len(rows):
        size = random.randint(1, 5)
        results += splitter.add(rows.slice(begin, size))
        begin += size
    [result] = [*results, *splitter.finish()]
    whole = PassSplitter(asked, metadata, of_pass)
    [once] = [*whole.add(rows), *whole.finish()]
    assert result.pairs.equals(once.pairs)
    assert result.summary.equals(once.summary)
