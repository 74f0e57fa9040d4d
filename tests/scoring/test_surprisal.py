from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.scoring import surprisal
from finetune_lm.scoring.surprisal import mean_cost, score_tokens


def score_row(logits, target):
    tensor = torch.tensor([[logits]])
    zero = torch.tensor([0])
    return score_tokens(tensor, zero, zero, torch.tensor([target]))()


@pytest.mark.parametrize("size", [2, 5, 50_257])
def test_uniform_logits_cost_log2_of_the_vocabulary(size):
    scores = score_row([0.25] * size, size - 1)
    assert scores.surprisal[0] == pytest.approx(math.log2(size), abs=1e-5)
    assert scores.predicted_token_surprisal[0] == pytest.approx(math.log2(size), abs=1e-5)


def test_logits_set_by_hand():
    # Probabilities 1/2, 1/4, 1/8, 1/8: surprisals of 1, 2, 3, 3 bits.
    logits = [math.log(p) + 3.0 for p in (1 / 2, 1 / 4, 1 / 8, 1 / 8)]
    for target, bits in enumerate((1, 2, 3, 3)):
        scores = score_row(logits, target)
        assert scores.surprisal[0] == pytest.approx(bits, abs=1e-5)
        assert scores.predicted_token_id[0] == 0
        assert scores.predicted_token_surprisal[0] == pytest.approx(1, abs=1e-5)


def test_16_bit_logits_are_scored_in_float32():
    logits = torch.randn(1, 1, 1000, generator=torch.Generator().manual_seed(1)).bfloat16()
    zero = torch.tensor([0])
    scores = score_tokens(logits, zero, zero, torch.tensor([3]))()
    exact = logits.double()[0, 0]
    expected = (exact.logsumexp(-1) - exact[3]) / math.log(2)
    assert scores.surprisal[0] == pytest.approx(expected.item(), abs=1e-5)
    assert logits.dtype == torch.bfloat16


@given(st.integers(1, 20), st.integers(2, 30), st.integers(1, 7), st.integers(0, 99))
def test_chunks_do_not_matter(n, vocabulary, at_once, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 3, vocabulary, generator=generator) * 5
    rows = torch.arange(n)
    columns = torch.randint(3, (n,), generator=generator)
    targets = torch.randint(vocabulary, (n,), generator=generator)
    whole = score_tokens(logits, rows, columns, targets)()
    before = surprisal._LOGITS_AT_ONCE
    surprisal._LOGITS_AT_ONCE = at_once * vocabulary
    try:
        in_parts = score_tokens(logits, rows, columns, targets)()
    finally:
        surprisal._LOGITS_AT_ONCE = before
    np.testing.assert_allclose(whole.surprisal, in_parts.surprisal, atol=1e-5)
    np.testing.assert_array_equal(whole.predicted_token_id, in_parts.predicted_token_id)
    expected = torch.nn.functional.cross_entropy(
        logits[rows, columns].double(), targets, reduction="none"
    ) / math.log(2)
    np.testing.assert_allclose(whole.surprisal, expected, atol=1e-4)


@pytest.mark.parametrize("vocabulary", [7, 49_152, 200_000])
@pytest.mark.parametrize("likely", [0.0, 15.0])
def test_surprisals_are_exact_in_large_vocabularies_too(vocabulary, likely):
    """Also of a token that has been learned, where torch's own cross-entropy is 4e-5 off."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 20, vocabulary, generator=generator) * 2
    targets = torch.randint(vocabulary, (20,), generator=generator)
    rows, columns = torch.zeros(20, dtype=torch.long), torch.arange(20)
    logits[0, columns, targets] += likely
    exact = logits[0].double()
    nats = exact.logsumexp(-1) - exact[columns, targets]
    scores = score_tokens(logits, rows, columns, targets)()
    np.testing.assert_allclose(scores.surprisal, nats / math.log(2), atol=1e-5)


def test_the_mean_that_ways_are_compared_with_is_exact(monkeypatch):
    monkeypatch.setattr(surprisal, "_EXACT_LOGITS_AT_ONCE", 3 * 5_003)
    logits = torch.randn(5, 5_003, generator=torch.Generator().manual_seed(0)) * 3
    targets = torch.tensor([7, 0, 5_002, 9, 9])
    expected = torch.nn.functional.cross_entropy(logits.double(), targets).item()
    assert mean_cost(logits, targets) == pytest.approx(expected, rel=1e-12)


def test_nothing_to_score():
    empty = torch.tensor([], dtype=torch.long)
    assert len(score_tokens(torch.zeros(1, 1, 4), empty, empty, empty)().surprisal) == 0
