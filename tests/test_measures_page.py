"""docs/measures.md: its examples run, and their numbers are those of brute force."""

from __future__ import annotations

import inspect
import json
import math
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from finetune_lm import load_metrics, measures
from finetune_lm.arguments import ModelArguments
from finetune_lm.model_modifiers import add_new_tokens
from finetune_lm.models.loading import load_model
from test_docs import ROOT, try_page

PAGE = (ROOT / "docs" / "measures.md").read_text("utf-8")


def test_the_table_has_all_measures_and_their_columns():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| .* \| (\w+).* \|$", PAGE, re.MULTILINE)
    assert [name for name, _, _ in rows] == [
        *("WordBoundary", "Entropy", "Rank", "Candidates", "BaselineKL"),
    ]
    assert sorted(name for name, _, _ in rows) == sorted(measures.__all__)
    for name, column, over_word in rows:
        cls = getattr(measures, name)
        columns = cls.columns_of(words=["NAME"]) if name == "Candidates" else cls.columns
        assert list(columns) == [column]
        assert cls.over_word == over_word
        assert inspect.getdoc(cls)


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    directory = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        try_page("measures.md", directory)
    return directory


def test_the_first_example(tried):
    [table] = (tried / "outputs" / "measured").glob("*.csv.gz")
    rows = load_metrics(table)
    names = ["surprisal_corrected", "token_entropy", "rank", "surprisal_of_tea"]
    assert rows[[*names, "surprisal_of_juice"]].notna().any().all()


def test_a_measure_of_ones_own(tried):
    [table] = (tried / "outputs" / "top5").glob("*.csv.gz")
    mass = load_metrics(table)["top5_mass"]
    assert mass.between(0, 1).all()
    # The class has about ten lines.
    text = (tried / "my_measures.py").read_text("utf-8").strip()
    assert len([line for line in text.splitlines() if line.strip()]) <= 10


def slot_costs(model, tokenizer):
    """-log2 p of both nouns in both slots of each sentence, all slots masked together."""
    ids = tokenizer.convert_tokens_to_ids(["blork", "wug"])
    found = []
    for line in Path("asked.jsonl").read_text("utf-8").splitlines():
        inputs = tokenizer(json.loads(line)["text"], return_tensors="pt")
        slots = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]
        assert len(slots) == 2
        with torch.no_grad():
            logits = model(**inputs).logits[0, slots].double()
        found.append((-logits.log_softmax(-1)[:, ids] / math.log(2)).numpy())
    return np.stack(found)


def test_the_quantities_of_wilson_petty_and_frank(tried, monkeypatch):
    monkeypatch.chdir(tried)
    untouched = load_model(
        ModelArguments(
            "tiny-mlm",
            model_modifier_fns=[add_new_tokens],
            model_modifier_fn_kwargs={"add_new_tokens": {"added_tokens": ["blork", "wug"]}},
        )
    )
    record = json.loads(Path("outputs/slots/run.json").read_text("utf-8"))
    best = record["best_epoch"]
    trained = transformers.AutoModelForMaskedLM.from_pretrained("outputs/slots/model").eval()
    costs = {
        -1: slot_costs(untouched.model.eval(), untouched.tokenizer),
        best: slot_costs(trained, untouched.tokenizer),
    }
    module = runpy.run_path("slots.py")
    # Nothing but the slots was taught.
    rows = load_metrics("outputs/slots")
    batches = rows[rows["dataset_type"] == "train"].groupby("epoch")
    nats = batches["surprisal"].mean() * math.log(2)
    np.testing.assert_allclose(batches["loss"].first(), nats, rtol=1e-4)
    for epoch, by_hand in costs.items():
        (blork, wug), (blork_in_object, wug_in_object) = by_hand.transpose(1, 2, 0)
        expected = {
            "in_subject": wug - blork,
            "in_object": blork_in_object - wug_in_object,
            "of_blork": blork_in_object - blork,
            "of_wug": wug - wug_in_object,
        }
        for name, values in expected.items():
            np.testing.assert_allclose(module[name].xs(epoch), values, atol=1e-4)
    learned = {name: values.groupby("epoch").mean() for name, values in module["learned"].items()}
    for name, values in learned.items():
        assert values[-1] == 0
        if name.startswith("in_"):
            assert values[best] > 0.5, name  # each slot has learned its noun
    change = learned["in_subject"][best]
    before, after = (costs[epoch] for epoch in (-1, best))
    by_hand = (after - before)[:, 0].mean(axis=0)
    assert change == pytest.approx(by_hand[1] - by_hand[0], abs=1e-4)
