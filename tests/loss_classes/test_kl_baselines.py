"""The baseline of a KL term: which model it is, and what is kept of its predictions."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from families import family
from finetune_lm import UserError
from finetune_lm.data_preprocessing import mask_random_tokens
from finetune_lm.loss_classes import KLBaselineLoss
from finetune_lm.models.baseline import Origin, origin_of
from kl_terms import OUTPUTS, SENTENCES, add_tokens, load, make, value

pytest_plugins = ["kl_terms"]


def test_a_model_with_other_tokens_is_refused(directories, sentences):
    def swap(model, tokenizer):
        vocab = tokenizer.get_vocab()
        a, b = list(vocab)[:2]
        vocab[a], vocab[b] = vocab[b], vocab[a]
        tokenizer.get_vocab = lambda: vocab

    loaded = load(directories["gpt2"], model_modifier_fns=[swap])
    with pytest.raises(UserError, match="must keep the tokens of the baseline"):
        make(loaded, sentences)


def n_baseline_tokens(monkeypatch, origin):
    """How many tokens the baseline was asked about, call by call."""
    calls = []
    model = origin.baseline().model
    forward = model.forward

    def counted(*args, **kwargs):
        calls.append(int(kwargs["attention_mask"].sum()))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    return calls


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_results_are_the_same_with_and_without_the_cache(directories, sentences, name, monkeypatch):
    """In float64: in float32 a gradient that is a sum of many may differ by 1e-6 of the largest."""
    loaded = load(directories[name], model_kwargs={"dtype": "float64"})
    calls = n_baseline_tokens(monkeypatch, origin_of(loaded.model))
    parameters = list(loaded.model.parameters())
    n_tokens = [len(loaded.tokenizer(text)["input_ids"]) for text in SENTENCES]
    results = []
    for cache_mb in (0, 1024):
        loss = make(loaded, sentences, n_examples_per_batch=3, cache_mb=cache_mb)
        calls.clear()
        results.append([])
        for _ in range(12):
            result = loss(OUTPUTS, None)
            gradient = torch.autograd.grad(result, parameters, allow_unused=True)
            results[-1].append((result.item(), gradient))
        if cache_mb:
            # Each example once (with a start token), and at first a few to see what is possible.
            looked_at = 3 * sum(sorted(n_tokens)[-3:]) + 3 * 3 + 3 * (max(n_tokens) + 1)
            assert sum(calls) <= sum(n_tokens) + len(SENTENCES) + looked_at
        else:
            assert sum(calls) >= 12 * sum(sorted(n_tokens)[:3])
    for (a, gradient_a), (b, gradient_b) in zip(*results, strict=True):
        assert a == pytest.approx(b, rel=1e-12)
        for one, other in zip(gradient_a, gradient_b, strict=True):
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_what_does_not_fit_the_budget_is_computed_anew(directories, sentences, monkeypatch):
    loaded = load(directories["gpt2"])
    width = loaded.model.config.hidden_size
    two_sentences = 4 * width * 24  # bytes; a sentence here has 6 to 20 tokens
    loss = make(loaded, sentences, n_examples_per_batch=None, cache_mb=two_sentences / 2**20)
    whole = make(loaded, sentences, n_examples_per_batch=None)
    first = value(loss)
    calls = n_baseline_tokens(monkeypatch, origin_of(loaded.model))
    assert value(loss) == pytest.approx(first, rel=1e-6) == pytest.approx(value(whole), rel=1e-6)
    kept = sum(part.numel() * 4 for part in loss._kept[0]._kept.values())
    assert 0 < kept <= two_sentences
    n_tokens = sum(len(loaded.tokenizer(text)["input_ids"]) + 1 for text in SENTENCES)
    assert 0 < calls[0] < n_tokens


def test_masks_that_are_drawn_anew_are_not_kept(directories, sentences):
    loaded = load(directories["bert"])
    kwargs = {
        "n_examples_per_batch": None,
        "data_preprocessing_fn": mask_random_tokens,
        "data_preprocessing_fn_kwargs": {"mask_prop": 0.3},
    }
    once = make(loaded, sentences, **kwargs)
    per_batch = make(loaded, sentences, data_preprocessing_fn_strategy="per_batch", **kwargs)
    assert value(once) == pytest.approx(value(once), rel=1e-6)
    assert abs(value(per_batch) - value(per_batch)) > 1e-4
    assert per_batch._kept == [None]


def test_masks_that_are_drawn_once_follow_from_the_seed_and_leave_the_run_alone(
    directories, sentences
):
    values = []
    for n_drawn_before in (0, 5):
        loaded = load(directories["bert"])
        torch.manual_seed(3)
        torch.rand(n_drawn_before)
        state = torch.get_rng_state()
        loss = KLBaselineLoss(
            loaded.model, loaded.tokenizer, sentences, data_preprocessing_fn=mask_random_tokens
        )
        assert torch.equal(torch.get_rng_state(), state)
        values.append(value(loss))
    assert values[0] == values[1]


def test_the_baseline_is_loaded_once_as_the_model_was_named(directories, sentences, monkeypatch):
    from finetune_lm.models import baseline

    calls = []
    original = baseline.load_model

    def record(args, *others, **options):
        calls.append(args)
        return original(args, *others, **options)

    loaded = load(
        directories["gpt2"],
        model_modifier_fns=[add_tokens],
        model_modifier_fn_kwargs={"add_tokens": {"words": ["zorp"]}},
        model_revision="v7",
        cache_dir="cache",
        token="hf_secret",
    )
    monkeypatch.setattr(baseline, "load_model", record)
    losses = [make(loaded, sentences, scaleby=s) for s in (1.0, 2.0)]
    assert len(calls) == 1
    assert (calls[0].model_revision, calls[0].cache_dir, calls[0].token) == (
        *("v7", "cache"),
        "hf_secret",
    )
    assert calls[0].model_modifier_fns == []
    [(_, first)], [(_, second)] = (loss._data for loss in losses)
    assert first is second  # and so is what was prepared of the data
    untouched = origin_of(loaded.model).baseline().model
    assert not untouched.training
    assert not any(parameter.requires_grad for parameter in untouched.parameters())
    make(loaded, sentences, model_kwargs={"attn_implementation": "eager"})
    assert calls[1].model_kwargs == {"attn_implementation": "eager"}


def test_a_model_that_a_python_user_has_loaded(directories, sentences):

    model = transformers.AutoModelForCausalLM.from_pretrained(directories["gpt2"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(directories["gpt2"])
    loss = KLBaselineLoss(model.eval(), tokenizer, sentences)
    assert abs(value(loss)) < 1e-6
    made = family("gpt2")
    with pytest.raises(UserError, match="must come from the Hub or a directory"):
        KLBaselineLoss(made.model, made.tokenizer, sentences)


def test_the_origin_of_a_model_goes_with_it(directories):
    loaded = load(directories["gpt2"])
    origin = origin_of(loaded.model)
    assert isinstance(origin, Origin)
    assert origin.name == directories["gpt2"]
    assert origin_of(load(directories["gpt2"]).model) is not origin


@pytest.mark.parametrize(
    ("name", "cache_mb"), [("gpt2", 1024), ("gpt2", 0.004), ("bert", 0.004), ("t5", 1024)]
)
def test_losses_come_to_the_same_to_the_last_bit_whatever_was_kept(
    directories, sentences, name, cache_mb
):
    """After a checkpoint, where nothing is kept, and in a trial after others, where much is."""
    given = {"n_examples_per_batch": 3, "batch_size": 2, "cache_mb": cache_mb}

    def values(loss, n):
        return [value(loss) for _ in range(n)]

    loaded = load(directories[name])
    first = make(loaded, sentences, **given)
    expected, states = [], []
    for _ in range(8):
        states.append(copy.deepcopy(first.state_dict()))
        expected.append(value(first))
    first.rewind()
    assert values(first, 8) == expected  # as at the next validation
    other = {**given, "n_examples_per_batch": 4}
    values(make(loaded, sentences, **other), 5)
    assert values(make(loaded, sentences, **given), 8) == expected
    for n in (1, 4, 7):
        resumed = make(load(directories[name]), sentences, **given)
        resumed.load_state_dict(states[n])
        assert values(resumed, 8 - n) == expected[n:]
