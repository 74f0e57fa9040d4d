"""By which examples ways are compared: few and short ones that show all that a batch does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import family
from finetune_lm.constants import IGNORED_LABEL
from finetune_lm.scoring.fast import comparing
from finetune_lm.scoring.fast.comparing import few_to_compare, traits_of
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from helpers import dataset, examples

LONG, SHORT = comparing._TOKENS_OF_LONGEST, comparing._TOKENS_OF_OTHERS


def batch_of(lengths, counts, *, first=0):
    """Examples of so many tokens, in which so many positions are asked about from one on."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    labels = torch.full(mask.shape, IGNORED_LABEL)
    for row, n in enumerate(counts):
        labels[row, first : first + n] = 7
    inputs = {"input_ids": 3 * mask, "attention_mask": mask, "labels": labels}
    return inputs, *(labels != IGNORED_LABEL).nonzero(as_tuple=True)


def test_of_long_texts_only_the_beginnings_are_compared():
    n = LONG + 900
    few, rows, positions = few_to_compare(*batch_of([n, n, n - 1], [n, n, n - 1]))
    assert few["attention_mask"].sum(1).tolist() == [SHORT, LONG]
    assert rows.bincount().tolist() == [SHORT, LONG]
    assert positions.tolist() == [*range(SHORT), *range(LONG)]
    assert (few["labels"] != IGNORED_LABEL).sum(1).tolist() == [SHORT, LONG]
    assert few["input_ids"].shape == (2, LONG)


def test_what_is_asked_late_in_a_text_is_among_them():
    few, _, positions = few_to_compare(*batch_of([400, 300], [9, 2], first=200))
    assert few["attention_mask"].sum(1).tolist() == [204, 204]
    assert positions.tolist() == [200, 201, 200, 201, 202, 203]


def test_padding_that_counts_is_compared_as_far_as_a_text_reaches():
    inputs, *_ = batch_of([4, 5, 3], [4, 5, 3])
    wide = {name: torch.nn.functional.pad(tensor, (0, 4)) for name, tensor in inputs.items()}
    wide["labels"] = torch.full_like(wide["input_ids"], 7)
    rows, positions = (wide["labels"] >= 0).nonzero(as_tuple=True)
    few, rows, positions = few_to_compare(wide, rows, positions)
    assert few["labels"].shape == few["input_ids"].shape == (2, 5)
    assert positions.tolist() == [*range(5), *range(5)]


def test_a_decoder_is_cut_where_its_own_labels_are_long():
    inputs, *_ = batch_of([5, 6], [5, 6])
    inputs["labels"] = torch.arange(200).repeat(2, 1)
    inputs["decoder_input_ids"] = inputs["labels"] + 1
    rows, positions = (inputs["labels"] >= 0).nonzero(as_tuple=True)
    few, rows, positions = few_to_compare(inputs, rows, positions)
    assert few["input_ids"].shape == (2, 6)
    assert few["decoder_input_ids"].shape == few["labels"].shape == (2, LONG)
    assert rows.bincount().tolist() == [SHORT, LONG]
    assert (few["labels"] != IGNORED_LABEL).sum(1).tolist() == [SHORT, LONG]
    assert (few["decoder_input_ids"][rows, positions] == positions + 1).all()


examples_of_a_batch = st.lists(
    st.integers(1, SHORT).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    min_size=1,
    max_size=6,
).filter(lambda batch: any(count for _, count in batch))


@given(examples_of_a_batch)
def test_the_few_show_what_the_batch_does(batch):
    lengths, counts = zip(*batch, strict=True)
    inputs, rows, positions = batch_of(lengths, counts)
    few, its_rows, _ = few_to_compare(inputs, rows, positions)
    assert traits_of(few["attention_mask"], its_rows) == traits_of(inputs["attention_mask"], rows)
    assert len(few["labels"]) <= 3
    # Whole, as long as they are short.
    found = zip(few["attention_mask"].sum(1).tolist(), its_rows.bincount().tolist(), strict=True)
    assert set(found) <= set(batch)


@pytest.mark.parametrize(("name", "n_calls"), [("gpt2", 2), ("bert", 2), ("t5", 2), ("fnet", 4)])
def test_comparing_takes_few_tokens_once(name, n_calls, monkeypatch):
    """One pass by each way; and two more of one example to see whether padding matters."""
    monkeypatch.setattr(comparing, "_TOKENS_OF_LONGEST", 6)
    monkeypatch.setattr(comparing, "_TOKENS_OF_OTHERS", 4)
    fam = family(name)
    texts = [
        "The man has always broken the box.",
        "The man drank it and she drank it.",
        "It broke.",
    ]
    data = dataset(fam, examples(texts * 5))
    sizes, head = [], []
    layer = fam.model.get_output_embeddings()
    fam.model.register_forward_pre_hook(
        lambda _, args, given: sizes.append(given["input_ids"].numel()), with_kwargs=True
    )
    scorer = Scorer(fam.model, data.task, fast=True)
    forward = Forward(scorer, data, 15, needs=Needs(False))
    [batch] = data.batches(15)
    layer.register_forward_hook(lambda _, args, logits: head.append(logits.shape[:-1].numel()))
    with torch.no_grad():
        assert scorer.comes_to_the_same(batch, forward._layer, torch.device("cpu"))
        assert len(sizes) == n_calls
        assert sum(sizes) <= n_calls * 3 * (6 + comparing._MORE_PADDING)
        assert sum(head) <= n_calls * 3 * (6 + comparing._MORE_PADDING)
        sizes.clear()
        assert scorer.comes_to_the_same(batch, forward._layer, torch.device("cpu"))
    assert not sizes
