"""The two functions that mask random spans, and T5's arithmetic behind them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.data_preprocessing import mask_random_spans, mask_truerandom_spans
from finetune_lm.data_preprocessing._spans import input_and_target_lengths, noise_mask
from finetune_lm.errors import UserError
from finetune_lm.models.vocabulary import vocabulary_of
from masking import (
    BATCHES,
    SEEDS,
    check_spans,
    copied,
    encode,
    label_ids,
    n_ordinary,
    real_ids,
    same,
    tokenizer_of,
)

NAMES = ["tiny-seq2seq", "t5"]
BOTH = [mask_random_spans, mask_truerandom_spans]


def n_masked(outputs, row, sentinels):
    return len([i for i in label_ids(outputs, row) if i not in sentinels])


@given(BATCHES, st.sampled_from(NAMES), st.floats(0, 1), st.floats(1, 6), SEEDS)
def test_random_spans(texts, name, mask_prop, mean, seed):
    tokenizer = tokenizer_of(name)
    sentinels = vocabulary_of(tokenizer).sentinel_ids.tolist()
    inputs = encode(tokenizer, texts)
    before = copied(inputs)
    torch.manual_seed(seed)
    outputs = mask_random_spans(inputs, tokenizer, mask_prop, mean)
    assert same(inputs, before)
    check_spans(inputs, outputs, tokenizer)
    for row in range(len(texts)):
        n = n_ordinary(inputs, tokenizer, row)
        n_noise = min(max(round(mask_prop * n), 1), n - 1)
        assert n_masked(outputs, row, sentinels) == n_noise
        ids = real_ids(outputs, row)
        assert ids[0] == real_ids(inputs, row)[0]
        assert not any(a in sentinels and b in sentinels for a, b in itertools.pairwise(ids))
        n_spans = min(max(round(n_noise / mean), 1), n_noise, n - n_noise, len(sentinels) - 1)
        assert sum(i in sentinels for i in ids) == n_spans


@given(BATCHES, st.sampled_from(NAMES), st.floats(0, 1), SEEDS)
def test_truly_random_spans(texts, name, mask_prop, seed):
    tokenizer = tokenizer_of(name)
    sentinels = vocabulary_of(tokenizer).sentinel_ids.tolist()
    inputs = encode(tokenizer, texts)
    before = copied(inputs)
    torch.manual_seed(seed)
    outputs = mask_truerandom_spans(inputs, tokenizer, mask_prop)
    assert same(inputs, before)
    check_spans(inputs, outputs, tokenizer)
    for row in range(len(texts)):
        n = n_ordinary(inputs, tokenizer, row)
        ids = real_ids(outputs, row)
        assert not any(a in sentinels and b in sentinels for a, b in itertools.pairwise(ids))
        if sum(i in sentinels for i in ids) < len(sentinels) - 1:
            assert n_masked(outputs, row, sentinels) == min(max(round(mask_prop * n), 1), n)


def test_the_first_token_may_be_in_a_truly_random_span():
    tokenizer = tokenizer_of("tiny-seq2seq")
    inputs = encode(tokenizer, ["the man drank the water"] * 200)
    outputs = mask_truerandom_spans(inputs, tokenizer, 0.2)
    first = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    assert 10 < (outputs["input_ids"][:, 0] == first).sum() < 90


def test_span_lengths_are_as_t5s():
    """Every cut of the noise into pieces is as likely as any other, and so of what is kept."""
    tokenizer = tokenizer_of("tiny-seq2seq")
    ids = torch.full((20_000, 10), 100)
    torch.manual_seed(3)
    outputs = mask_random_spans({"input_ids": ids}, tokenizer, 0.4, 2.0)  # 4 of 10 in 2 spans
    second = tokenizer.convert_tokens_to_ids("<extra_id_1>")
    where = (outputs["labels"] == second).nonzero()[:, 1]
    counts = torch.bincount(where, minlength=5)
    assert counts.sum() == 20_000
    for length in (1, 2, 3):
        deviation = math.sqrt(20_000 * (1 / 3) * (2 / 3))
        assert abs(int(counts[length + 1]) - 20_000 / 3) < 4 * deviation
    first = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    begins = torch.bincount((outputs["input_ids"] == first).nonzero()[:, 1], minlength=6)
    assert begins[0] == 0
    # Six kept tokens: one or more before each span, none or more behind the last. Of these 15
    # divisions 6 - k have k tokens before the first span.
    for place in range(1, 6):
        share = (6 - place) / 15
        deviation = math.sqrt(20_000 * share * (1 - share))
        assert abs(int(begins[place]) - 20_000 * share) < 4 * deviation


@pytest.mark.parametrize("function", BOTH)
def test_one_token(function):
    tokenizer = tokenizer_of("tiny-seq2seq")
    inputs = encode(tokenizer, ["man"])
    outputs = function(inputs, tokenizer)
    sentinels = vocabulary_of(tokenizer).sentinel_ids.tolist()
    man, end = inputs["input_ids"][0].tolist()
    if function is mask_random_spans:  # the first token is never noise
        assert real_ids(outputs, 0) == [man, end]
        assert label_ids(outputs, 0) == sentinels[:1]
    else:
        assert real_ids(outputs, 0) == [sentinels[0], end]
        assert label_ids(outputs, 0) == [sentinels[0], man, sentinels[1]]


@pytest.mark.parametrize("function", BOTH)
def test_more_spans_than_sentinels(function):
    """The family's tokenizer has 20."""
    tokenizer = tokenizer_of("t5")
    inputs = encode(tokenizer, ["the man drank the water again and again . " * 12])
    kwargs = {"mean_noise_span_length": 1.0} if function is mask_random_spans else {}
    outputs = function(inputs, tokenizer, mask_prop=0.4, **kwargs)
    check_spans(inputs, outputs, tokenizer)
    sentinels = vocabulary_of(tokenizer).sentinel_ids
    assert torch.isin(outputs["input_ids"], torch.from_numpy(sentinels)).sum() == 19


@pytest.mark.parametrize("function", BOTH)
def test_given_labels_are_kept(function):
    tokenizer = tokenizer_of("t5")
    inputs = encode(tokenizer, ["the man", "water"])
    inputs["labels"] = torch.tensor([[5, 6, 7], [5, -100, -100]])
    outputs = function(inputs, tokenizer)
    assert torch.equal(outputs["labels"], inputs["labels"])
    assert not torch.equal(outputs["input_ids"], inputs["input_ids"])


@pytest.mark.parametrize("function", BOTH)
def test_a_text_with_sentinels_in_it(function):
    tokenizer = tokenizer_of("tiny-seq2seq")
    inputs = encode(tokenizer, ["the man", "the <extra_id_0> drank"])
    with pytest.raises(UserError, match="must not have sentinels in it already but one has: 'the"):
        function(inputs, tokenizer)


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("name", ["bert", "bart", "gpt2"])
def test_a_tokenizer_without_sentinels(function, name):
    with pytest.raises(UserError, match="needs a tokenizer with sentinels"):
        function({"input_ids": torch.ones(1, 1)}, tokenizer_of(name))


@pytest.mark.parametrize("value", [0.5, "x", None, float("inf")])
def test_a_span_length_that_cannot_be(value):
    tokenizer = tokenizer_of("t5")
    with pytest.raises(UserError, match="mean_noise_span_length must be a number of at least 1"):
        mask_random_spans(encode(tokenizer, ["a"]), tokenizer, mean_noise_span_length=value)


@pytest.mark.parametrize(
    ("length", "density", "mean", "expected"),
    [(512, 0.15, 3.0, (568, 114)), (512, 0.5, 3.0, (766, 512)), (128, 0.15, 3.0, (141, 29))],
)
def test_t5s_table_of_lengths(length, density, mean, expected):
    n, n_labels = input_and_target_lengths(length, density, mean)
    assert (n, n_labels) == expected


def test_the_table_is_what_the_function_makes():
    tokenizer = tokenizer_of("tiny-seq2seq")
    ids = torch.full((3, 569), 100)
    ids[:, -1] = tokenizer.eos_token_id
    outputs = mask_random_spans({"input_ids": ids}, tokenizer)
    assert outputs["input_ids"].shape == (3, 512)
    assert outputs["labels"].shape == (3, 114)
    assert (outputs["labels"] != -100).all()
    with pytest.raises(UserError, match="length must leave room for text but is 1"):
        input_and_target_lengths(1, 0.15, 3.0)


def test_the_only_span_of_a_short_text_may_be_anywhere_but_first():
    """It always ended the text before."""
    torch.manual_seed(0)
    allowed = torch.ones(2_000, 8, dtype=torch.bool)
    noise = noise_mask(allowed, 0.15, 3.0, most_spans=5)
    assert (noise.sum(dim=1) == 1).all()
    places = torch.bincount(noise.long().argmax(dim=1), minlength=8)
    assert places[0] == 0
    # Seven places, equally likely: within 4 standard deviations.
    assert ((places[1:] - 2_000 / 7).abs() < 4 * (2_000 * 6 / 49) ** 0.5).all()
