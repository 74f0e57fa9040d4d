"""The picture of probes: its numbers by hand, and that it is drawn from a run's own table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import matplotlib.image
import pandas as pd
import pytest

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.measures import WordBoundary

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data" / "nonce_verb"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("probe_curves", ROOT / "examples/probe_curves.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line(number, item, subject, object_, step, costs, *, order="expected", text=None):
    """The rows of a line of three words, the second of two tokens; the last has a full stop."""
    text = text or f"{subject} flomped {object_}."
    words = text.split()
    tokens = [(0, costs[0]), (1, 1.0), (1, 1.0), (2, costs[1]), (2, 0.25)]
    return [
        {
            "dataset_name": "test",
            "example_num": number,
            "item": item,
            "epoch": step // 5 - 1,
            "step": step,
            "word_num": place,
            "word": words[place],
            "word_subj": subject,
            "word_obj": object_,
            "sentence_type": "active",
            "arg_order": order,
            "original_text": text,
            "seen_in": "train" if order == "expected" else None,
            "is_target": True,
            "surprisal": cost,
        }
        for place, cost in tokens
    ]


def test_a_word_costs_the_sum_of_its_tokens_and_an_item_counts_once(script):
    probes = pd.DataFrame(
        [
            *line(0, 0, "man", "tea", 0, (4.0, 2.0)),
            *line(1, 0, "man", "tea", 0, (6.0, 2.0)),  # the same item with another adverb
            *line(2, 1, "boy", "tea", 0, (8.0, 4.0)),
            *line(0, 0, "man", "tea", 5, (1.0, 0.0)),
            *line(2, 1, "boy", "tea", 5, (1.0, None)),  # NA is no cost
            *line(3, 2, "tea", "tea", 0, (50.0, 50.0)),  # twice the same word: left out
        ]
    )
    costs = script.word_costs(probes, "surprisal")
    assert set(costs["example_num"]) == {0, 1, 2}
    table = script.curves(costs).set_index(["role", "trained"])
    subject, object_ = table.loc["word_subj"], table.loc["word_obj"]
    assert subject["mean"].to_dict() == {0: 6.5, 1: 1.0}  # (mean of 4 and 6, 8)
    assert object_["mean"].to_dict() == {0: 3.25, 1: 0.25}  # the full stop is part of the word
    # Two items 3 bits apart: their standard deviation is 3 / sqrt(2), that of their mean 1.5.
    assert subject["error"].to_dict() == pytest.approx({0: 1.5, 1: 0.0})
    assert subject["size"].to_dict() == {0: 2, 1: 2}
    assert object_["size"].to_dict() == {0: 2, 1: 1}
    assert table["is_taught"].all()


def test_no_panel_is_cut_off(script, tmp_path, monkeypatch):
    """The axis that all panels share has room for the dearest word, wherever it is."""
    probes = pd.DataFrame(
        [
            *line(0, 0, "man", "tea", 0, (4.0, 2.0)),
            *line(1, 0, "man", "tea", 0, (60.0, 2.0)),
            *line(0, 0, "man", "tea", 5, (4.0, 2.0)),
            *line(1, 0, "man", "tea", 5, (50.0, 2.0)),
        ]
    )
    probes.loc[probes["example_num"] == 1, "sentence_type"] = "passive"
    monkeypatch.setattr(script.plt, "close", lambda _figure: None)
    script.draw(script.curves(script.word_costs(probes, "surprisal")), "", 0, tmp_path / "x.png")
    figure = script.plt.gcf()
    limits = [axis.get_ylim() for axis in figure.axes]
    monkeypatch.undo()
    script.plt.close(figure)
    assert len(limits) == 2
    for low, high in limits:
        assert low == 0
        assert high > 60


def test_it_is_drawn_from_a_run(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = finetune_lm.run(
        ModelArguments("tiny-lm"),
        DataTrainingArguments(
            train_file=str(DATA / "flomped_active.txt.gz"),
            validation_file=str(DATA / "flomped_passive.txt.gz"),
            probe_file=[str(DATA / "flomped_test.txt.gz"), str(DATA / "fillers.txt.gz")],
            max_train_samples=16,
            max_validation_samples=4,
            max_probe_samples=40,
            measures={"probe": [WordBoundary]},
            epochs=1,
            seed=1,
            output_dir="out",
        ),
    )
    probes = result.probe_results
    probes = probes[probes["dataset_name"] == "flomped_test"]
    costs = script.word_costs(probes, "surprisal_corrected")
    # 40 lines, 2 words, before and after: every word is found.
    assert len(costs) == 40 * 2 * 2
    argv = ["probe_curves.py", "out", "out.png", "--dataset", "flomped_test"]
    monkeypatch.setattr(sys, "argv", argv)
    script.main()
    height, width, _ = matplotlib.image.imread("out.png").shape
    assert width > height > 200
    monkeypatch.setattr(sys, "argv", [*argv, "--column", "surprisal"])
    script.main()
    monkeypatch.setattr(sys, "argv", [*argv[:-1], "nothing"])
    with pytest.raises(SystemExit, match="no line has a word"):
        script.main()
    # A masked model has the column and nothing in it.
    monkeypatch.setattr(sys, "argv", argv)
    masked = probes.assign(surprisal_corrected=float("nan"))
    monkeypatch.setattr(script.finetune_lm, "load_probes", lambda _path: masked)
    script.main()
    lacking = probes.drop(columns=["arg_order"])
    monkeypatch.setattr(script.finetune_lm, "load_probes", lambda _path: lacking)
    with pytest.raises(SystemExit, match="but lack arg_order"):
        script.main()
