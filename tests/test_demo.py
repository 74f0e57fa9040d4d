"""What the demo says follows from its numbers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

import finetune_lm
from finetune_lm import demo
from finetune_lm.cli import main
from finetune_lm.ranks import World, being
from finetune_lm.runs.directory import choose_output_dir

KINDS = {
    "active": "teacher flomped tea",
    "passive": "tea flomped teacher",
    "cleft": "tea teacher flomped",
}


def results(costs, seen=()):
    """A table of a test: each kind in both orders, for two items, and one filler.

    Args:
        costs: What the noun behind the verb costs by kind and order; every other word costs 1 bit,
            half of it in each of two tokens.
        seen: Lines by kind, order and item that were seen before.
    """
    rows = []
    lines = [
        (kind, order, item, text)
        for kind, text in KINDS.items()
        for item in range(2)
        for order in ("expected", "reversed")
    ]
    lines += [("active", order, 0, "child eaten bread") for order in ("expected", "reversed")]
    for number, (kind, order, item, text) in enumerate(lines):
        words = text.split()
        verb = "eaten" if "eaten" in words else "flomped"
        known = verb == "eaten"
        for place, word in enumerate(words):
            is_behind = place > words.index(verb)
            cost = costs[kind, order] if is_behind and not known else 1.0
            rows += [
                {
                    "dataset_name": "fillers" if known else "test",
                    "example_num": number,
                    "item": item,
                    "word_num": place,
                    "word": f"{word}." if place == 2 else word,
                    "verb": verb,
                    "word_subj": "child" if known else "teacher",
                    "word_obj": "bread" if known else "tea",
                    "sentence_type": kind,
                    "arg_order": order,
                    "surprisal": cost / 2,
                    "seen_in": "train" if (kind, order, item) in seen and not known else None,
                }
            ] * 2  # fmt: skip
    return pd.DataFrame(rows)


def costs(active, passive):
    return {
        ("active", "expected"): 1.0, ("active", "reversed"): 1.0 + active,
        ("passive", "expected"): 1.0, ("passive", "reversed"): 1.0 + passive,
    }  # fmt: skip


def test_mistakes_are_told_before_anything_is_written(tmp_path, capsys):
    assert main(["demo", str(tmp_path / "here"), "--epochs", "0"]) == 2
    assert "epochs must be at least 1 but got 0." in capsys.readouterr().err
    assert not (tmp_path / "here").exists()
    (tmp_path / "file").touch()
    assert main(["demo", str(tmp_path / "file")]) == 2
    assert "file cannot be written: " in capsys.readouterr().err


class Second(World):
    """The second of two ranks, whom the first tells where all that is written goes."""

    rank, size = 1, 2

    def decided(self, decide, *args):
        return Path("told") if decide is choose_output_dir else None


def test_of_two_processes_the_second_only_teaches_and_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    taught = []
    monkeypatch.setattr(finetune_lm, "run", lambda model, data: taught.append(data))
    with being(Second()):
        assert main(["demo"]) == 0
        assert main(["demo", "--help"]) == 0
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
    [data] = taught
    assert (data.output_dir, data.per_device_train_batch_size) == (str(Path("told", "run")), 8)


def test_both_orders_become_pairs(tmp_path):
    copy = demo.as_pairs(demo.demo_data() / "fillers.txt.gz", tmp_path / "data")
    assert Path(copy).read_bytes() == (demo.demo_data() / "fillers.txt.gz").read_bytes()
    with gzip.open(tmp_path / "data" / "fillers_metadata.json.gz", "rt") as lines:
        metadata = [json.loads(line) for line in lines]
    items = {}
    for each in metadata:
        assert each["expected"] is (each["condition"] == "expected")
        items.setdefault((each["phenomenon"], each["item"]), []).append(each["condition"])
    assert all(sorted(conditions) == ["expected", "reversed"] for conditions in items.values())


def test_places_orders_and_differences():
    table = demo.differences(results(costs(0, 0)), results(costs(2, 3)))
    behind, before = table.loc["behind the verb"], table.loc["before the verb"]
    assert behind["taught", "difference"].to_dict() == {
        "active": 2.0, "passive": 3.0, "known verbs (fillers)": 0.0,
    }  # fmt: skip
    assert behind["untouched", "difference"].tolist() == [0.0, 0.0, 0.0]
    assert list(before.index) == ["active", "cleft", "passive", "known verbs (fillers)"]
    assert (before["taught", "reversed"] == 1.0).all()
    assert "cleft" not in behind.index  # both nouns stand before the verb


def test_lines_that_were_seen_are_left_out_with_their_counterparts():
    seen = {("passive", "expected", 0), ("passive", "expected", 1), ("active", "expected", 1)}
    taught = results(costs(2, 3), seen)
    table = demo.differences(results(costs(0, 0)), taught)
    assert list(table.loc["behind the verb"].index) == ["active", "known verbs (fillers)"]
    assert demo.n_seen(taught) == 3
    assert "without 3 lines" in demo.report(results(costs(0, 0)), taught)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ((0, 0), (2, 3), "from 0.00 to 2.50 bits, and grew in 2 of 2 constructions: what it "
         "learned about the verb carries over to constructions that it was not taught."),
        ((0, 0), (2, -3), "from 0.00 to -0.50 bits, and grew in 1 of 2 constructions: what it "
         "learned about the verb does not carry over to other constructions."),
        ((1, 1), (9, 0), "from 1.00 to 4.50 bits, and grew in 1 of 2 constructions: what it "
         "learned about the verb does not carry over to other constructions."),
    ],
)  # fmt: skip
def test_the_conclusion_follows_from_the_numbers(before, after, said):
    table = demo.differences(results(costs(*before)), results(costs(*after)))
    assert demo.conclusion(table).endswith(said)
