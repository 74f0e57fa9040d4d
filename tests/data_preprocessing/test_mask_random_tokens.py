from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.data_preprocessing import mask_random_tokens
from finetune_lm.errors import UserError
from finetune_lm.models.vocabulary import vocabulary_of
from masking import BATCHES, SEEDS, copied, encode, n_ordinary, same, tokenizer_of

NAMES = ["tiny-mlm", "bert", "roberta"]
ALL_MASKS = {"mask": 1.0, "random": 0.0, "original": 0.0}


@given(BATCHES, st.sampled_from(NAMES), st.floats(0, 1), SEEDS)
def test_counts_are_exact_and_nothing_special_is_chosen(texts, name, mask_prop, seed):
    tokenizer = tokenizer_of(name)
    inputs = encode(tokenizer, texts)
    before = copied(inputs)
    torch.manual_seed(seed)
    outputs = mask_random_tokens(inputs, tokenizer, mask_prop)
    assert same(inputs, before)
    labels, ids = outputs["labels"], inputs["input_ids"]
    scored = labels != -100
    for row in range(len(texts)):
        n = n_ordinary(inputs, tokenizer, row)
        assert scored[row].sum() == min(max(round(mask_prop * n), 1), n)
    assert (labels[scored] == ids[scored]).all()
    assert not vocabulary_of(tokenizer).is_special(labels[scored].numpy()).any()
    assert (outputs["input_ids"][~scored] == ids[~scored]).all()
    assert torch.equal(outputs["attention_mask"], inputs["attention_mask"])


def test_proportions_over_many_tokens():
    """Also that neither order nor rounding of the proportions matters."""
    tokenizer = tokenizer_of("tiny-mlm")
    vocabulary = vocabulary_of(tokenizer)
    ids = torch.from_numpy(np.resize(vocabulary.ordinary_ids, (200, 500)))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for props in (
        None,
        {"original": 0.1, "random": 0.1, "mask": 0.8},
        {"mask": 0.7, "random": 0.2, "original": 0.1},  # adds up to 0.9999999999999999
    ):
        expected = props or {"mask": 0.8, "random": 0.1, "original": 0.1}
        torch.manual_seed(1)
        outputs = mask_random_tokens(inputs, tokenizer, 0.15, props)
        scored = outputs["labels"] != -100
        n = int(scored.sum())
        assert n == 200 * round(0.15 * 500)
        now, then = outputs["input_ids"][scored], ids[scored]
        masks, same_ = now == tokenizer.mask_token_id, now == then
        found = {"mask": masks, "original": same_, "random": ~masks & ~same_}
        for key, share in expected.items():
            deviation = math.sqrt(n * share * (1 - share))
            # A random token is now and then the original one: 1 in 1,395.
            assert abs(int(found[key].sum()) - n * share) < 4 * deviation + n / 1_395
        assert np.isin(now[found["random"]], vocabulary.ordinary_ids).all()


def test_random_tokens_are_never_special():
    tokenizer = tokenizer_of("bert")
    ids = torch.full((100, 100), vocabulary_of(tokenizer).ordinary_ids[0])
    props = {"mask": 0.0, "random": 1.0, "original": 0.0}
    outputs = mask_random_tokens({"input_ids": ids}, tokenizer, 1.0, props)
    assert set(outputs["input_ids"].flatten().tolist()) == set(
        vocabulary_of(tokenizer).ordinary_ids.tolist()
    )
    assert not set(tokenizer.all_special_ids) & set(outputs["input_ids"].flatten().tolist())


def test_every_position_is_as_likely_as_any_other():
    tokenizer = tokenizer_of("tiny-mlm")
    inputs = encode(tokenizer, ["the man drank the water ."] * 6_000)
    torch.manual_seed(0)
    chosen = (mask_random_tokens(inputs, tokenizer, 0.3)["labels"] != -100).sum(dim=0)
    expected, deviation = 6_000 * 2 / 6, math.sqrt(6_000 * (2 / 6) * (4 / 6))
    assert chosen[0] == chosen[-1] == 0
    assert ((chosen[1:-1] - expected).abs() < 4 * deviation).all()


def test_unknown_tokens_are_tokens_of_the_text():
    tokenizer = tokenizer_of("tiny-mlm")
    inputs = encode(tokenizer, ["☃ ☃"])
    unknown = tokenizer.unk_token_id
    assert inputs["input_ids"].tolist()[0][1:-1] == [unknown, unknown]
    outputs = mask_random_tokens(inputs, tokenizer, 1.0, ALL_MASKS)
    assert outputs["labels"].tolist() == [[-100, unknown, unknown, -100]]


def test_given_labels_are_kept():
    tokenizer = tokenizer_of("tiny-mlm")
    inputs = encode(tokenizer, ["the man drank"])
    inputs["labels"] = inputs["input_ids"] + 7
    outputs = mask_random_tokens(inputs, tokenizer, 1.0, ALL_MASKS)
    assert torch.equal(outputs["labels"], inputs["labels"])
    assert (outputs["input_ids"][:, 1:-1] == tokenizer.mask_token_id).all()


def test_the_same_seed_gives_the_same_masks():
    tokenizer = tokenizer_of("tiny-mlm")
    inputs = encode(tokenizer, ["the man drank the water"] * 9)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(mask_random_tokens(inputs, tokenizer))
    assert same(drawn[0], drawn[1])
    assert not same(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mask_prop": 1.1}, "mask_prop must be a number from 0 to 1 but got 1.1"),
        ({"mask_prop": "x"}, "mask_prop must be a number from 0 to 1 but got 'x'"),
        ({"mask_prop": float("nan")}, "mask_prop must be a number"),
        ({"replacement_props": {"mask": 1.0}}, "exactly the keys mask, random, original but has"),
        ({"replacement_props": {**ALL_MASKS, "other": 0}}, "but has mask, random, original, other"),
        (
            {"replacement_props": {"mask": 1.2, "random": -0.2, "original": 0}},
            "replacement_props.random must be a number from 0 to 1 but got -0.2",
        ),
        ({"replacement_props": {**ALL_MASKS, "random": 0.1}}, "must add up to 1 but got 1.1"),
        ({"replacement_props": 3}, "must have a number for each"),
    ],
)
def test_values_that_cannot_be(kwargs, message):
    tokenizer = tokenizer_of("tiny-mlm")
    with pytest.raises(UserError, match=message):
        mask_random_tokens(encode(tokenizer, ["a"]), tokenizer, **kwargs)


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_a_tokenizer_without_masks(name):
    with pytest.raises(UserError, match="needs a tokenizer with a mask token"):
        mask_random_tokens({"input_ids": torch.ones(1, 1)}, tokenizer_of(name))
