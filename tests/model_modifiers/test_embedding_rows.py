"""What the embeddings of new tokens start with, against numbers worked out from the weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers

from families import CONFIGS, family
from finetune_lm.model_modifiers import add_new_tokens
from finetune_lm.model_modifiers._embedding_rows import set_to_draws_around_mean
from finetune_lm.model_modifiers.add_new_tokens import SCALE
from new_tokens import (
    BUILTIN,
    TIED,
    UNTIED,
    entries,
    in_sentence,
    is_bert,
    model_and_tokenizer,
    tables,
)

TEXTS = ["The man crined it.", "crined is it.", "He said (crined), dax."]


@pytest.mark.parametrize("name", [*TIED, *UNTIED, *BUILTIN])
def test_mean(name):
    model, tokenizer = model_and_tokenizer(name)
    before, tables_before = copy.deepcopy(tokenizer), tables(model)
    add_new_tokens(model, tokenizer, ["crined", "dax"])
    after = tables(model)
    assert after.keys() == tables_before.keys()
    n = len(before)
    new = entries(tokenizer, before)
    assert new == list(range(n, n + (2 if is_bert(before) else 4)))
    for table_name, old in tables_before.items():
        now = after[table_name]
        assert np.array_equal(now[:n], old[:n])
        expected = np.array([[sum(column) / n for column in old[:n].T.tolist()]] * len(new))
        np.testing.assert_allclose(now[new], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*TIED, *UNTIED])
def test_what_is_tied_stays_tied_and_the_rest_apart(name):
    model, tokenizer = model_and_tokenizer(name)
    add_new_tokens(model, tokenizer, "crined")
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    assert (inputs.weight is outputs.weight) == (name in TIED)
    n = len(tokenizer)
    assert inputs.weight.shape[0] == outputs.weight.shape[0] == model.config.vocab_size == n
    assert inputs.num_embeddings == outputs.out_features == n
    ids = tokenizer(TEXTS, padding=False)["input_ids"]
    with torch.no_grad():
        for each in ids:
            outputs = model(input_ids=torch.tensor([each]), labels=torch.tensor([each]))
            assert outputs.logits.shape[-1] == n
            assert outputs.loss.isfinite()


@pytest.mark.parametrize("name", ["gpt2", "qwen", "bert", "bart", "tiny-seq2seq"])
def test_random(name):
    """Draws have the mean and the spread of the rows, in each dimension by itself."""
    model, tokenizer = model_and_tokenizer(name)
    with torch.no_grad():  # dimensions that differ
        weight = model.get_input_embeddings().weight
        weight.mul_(torch.linspace(0.1, 3, weight.shape[1])).add_(torch.arange(weight.shape[1]))
    before, old = copy.deepcopy(tokenizer), tables(model)
    words = [f"zq{first}{second}" for first in "abcdefghij" for second in "abcdefghij"]
    torch.manual_seed(11)
    add_new_tokens(model, tokenizer, words, init="random")
    per_word = 1 if is_bert(tokenizer) else 2
    new = entries(tokenizer, before)
    assert len(new) == per_word * len(words)
    for table_name, now in tables(model).items():
        known = old[table_name][: len(before)]
        if per_word == 2:  # both entries of a word start the same
            assert np.array_equal(now[new][::2], now[new][1::2])
        drawn = (now[new][::per_word] - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-12)
        # Of 100 draws the mean lies within 4 standard errors, the spread within 35 per cent.
        assert np.abs(drawn.mean(axis=0)).max() < 0.45
        if known.std(axis=0).max() > 0:
            assert np.abs(drawn.std(axis=0) - 1).max() < 0.35
            assert len(np.unique(drawn[:, 0])) == len(words)
        if drawn.shape[1] > 1:  # each dimension is drawn by itself
            assert np.abs(np.corrcoef(drawn.T)[0, 1:]).max() < 0.5


def standard_errors(found, mean, cov):
    """How many standard errors the mean and the covariance of draws are off, at most."""
    n = len(found)
    of_mean = np.sqrt(np.diag(cov) / n)
    off_mean = np.abs(found.mean(axis=0) - mean) / of_mean
    # Of a normal distribution whose mean is known, estimates of a covariance c_ij have the
    # variance (c_ii c_jj + c_ij^2) / n.
    distances = found - mean
    of_cov = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
    off_cov = np.abs(distances.T @ distances / n - cov) / of_cov
    return off_mean.max(), off_cov.max()


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "bart", "flan-t5-untied"])
def test_mean_cov(name):
    model, tokenizer = model_and_tokenizer(name)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in {m.weight for m in embeddings(model)}:
            # Columns that go together, which a draw for each column by itself would miss.
            size = weight.shape[1]
            weight.copy_(weight @ (0.3 * torch.randn(size, size, generator=generator) + 1))
    before, old = copy.deepcopy(tokenizer), tables(model)
    words = [f"zq{first}{second}" for first in "abcdefgh" for second in "abcdefgh"]
    torch.manual_seed(11)
    add_new_tokens(model, tokenizer, words, init="mean_cov", scale=0.1)
    per_word = 1 if is_bert(tokenizer) else 2
    new = entries(tokenizer, before)
    assert len(new) == per_word * len(words)
    for table_name, now in tables(model).items():
        known = old[table_name][: len(before)]
        assert np.array_equal(now[: len(before)], known)
        if per_word == 2:  # both entries of a word start the same
            assert np.array_equal(now[new][::2], now[new][1::2])
        drawn = now[new][::per_word]
        cov = np.cov(known, rowvar=False, bias=True).reshape(known.shape[1], -1)
        if not cov.any():  # a bias of zeros
            assert np.array_equal(drawn, np.broadcast_to(known[0], drawn.shape))
            continue
        off_mean, off_cov = standard_errors(drawn, known.mean(axis=0), 0.1 * cov)
        assert off_mean < 5
        assert off_cov < 5
        if known.shape[1] > 1:
            only_diagonal = np.diag(np.diag(cov))
            assert standard_errors(drawn, known.mean(axis=0), 0.1 * only_diagonal)[1] > 6


def embeddings(model):
    return [e for e in (model.get_input_embeddings(), model.get_output_embeddings()) if e]


@pytest.mark.parametrize("n_known", [40, 5000])
@pytest.mark.parametrize("scale", [SCALE, 3.0])
def test_mean_cov_of_many_draws(scale, n_known):
    """So many that a third too much would show; the rows are fewer or more than go into a block."""
    generator = torch.Generator().manual_seed(2)
    n_new, size = 2000, 6
    rows = torch.randn(n_known + n_new, size, generator=generator, dtype=torch.float64)
    table = torch.nn.Embedding.from_pretrained(rows @ rows[:size] + 3)
    model = torch.nn.Module()
    model.get_input_embeddings = lambda: table
    model.get_output_embeddings = lambda: None
    known = table.weight.numpy()[:n_known].copy()
    torch.manual_seed(1)
    set_to_draws_around_mean(
        model, [[n_known + i] for i in range(n_new)], range(n_known), scale=scale
    )
    drawn, mean = table.weight.numpy()[n_known:], known.mean(axis=0)
    cov = scale * np.cov(known, rowvar=False, bias=True)
    off_mean, off_cov = standard_errors(drawn, mean, cov)
    assert off_mean < 4
    assert off_cov < 4
    assert standard_errors(drawn, mean, 1.3 * cov)[1] > 4


@pytest.mark.parametrize("init", ["random", "mean_cov"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_draws_follow_the_seed(name, init):
    rows = []
    for seed in (3, 3, 4):
        model, tokenizer = model_and_tokenizer(name)
        torch.manual_seed(seed)
        add_new_tokens(model, tokenizer, ["crined", "dax"], init=init)
        rows.append(model.get_input_embeddings().weight[-4:].detach().clone())
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0][:2], rows[0][2:])


@pytest.mark.parametrize("name", [*TIED, *UNTIED, *BUILTIN])
def test_subwords(name):
    model, tokenizer = model_and_tokenizer(name)
    before, old = copy.deepcopy(tokenizer), tables(model)
    was = in_sentence(before, "crined")
    assert len(was) > 1
    add_new_tokens(model, tokenizer, ["crined"], init="subwords")
    [now] = in_sentence(tokenizer, "crined")
    for table_name, table in tables(model).items():
        expected = sum(old[table_name][i] for i in was) / len(was)
        np.testing.assert_allclose(table[now], expected, rtol=0, atol=1e-6)
    if is_bert(tokenizer):
        return
    # Without a space before it, the word was other tokens.
    [_, bare] = tokenizer("(crined", add_special_tokens=False)["input_ids"][-2:]
    alone = before("crined" if name not in SPACED_START else "(crined", add_special_tokens=False)
    pieces = alone["input_ids"] if name not in SPACED_START else alone["input_ids"][
        len(before("(", add_special_tokens=False)["input_ids"]) :
    ]  # fmt: skip
    for table_name, table in tables(model).items():
        expected = sum(old[table_name][i] for i in pieces) / len(pieces)
        np.testing.assert_allclose(table[bare], expected, rtol=0, atol=1e-6)


SPACED_START = ["llama", "t5", "flan-t5", "flan-t5-untied", "tiny-seq2seq"]


@pytest.mark.parametrize("name", BUILTIN)
def test_copy(name):
    model, tokenizer = model_and_tokenizer(name)
    old = tables(model)
    [source] = in_sentence(tokenizer, "drank")
    add_new_tokens(model, tokenizer, ["crined"], init="copy:drank")
    [now] = in_sentence(tokenizer, "crined")
    for table_name, table in tables(model).items():
        assert np.array_equal(table[now], old[table_name][source])
        assert np.array_equal(table[source], old[table_name][source])
    # So it costs the same as the other, wherever it stands.
    logits = []
    for verb in ("crined", "drank"):
        inputs = tokenizer([f"The man {verb} the water."], return_tensors="pt")
        with torch.no_grad():
            logits.append(model(**inputs, labels=inputs["input_ids"]).logits)
    torch.testing.assert_close(*logits)
    torch.testing.assert_close(logits[0][..., now], logits[0][..., source])


def test_copy_of_a_word_with_two_entries_copies_both():
    model, tokenizer = model_and_tokenizer("gpt2")
    vocab = tokenizer.get_vocab()
    assert {"a", "Ġa", "Ġsaid"} <= set(vocab)
    assert len(tokenizer.tokenize("said")) > 1
    add_new_tokens(model, tokenizer, ["crined"], init="copy:a")
    add_new_tokens(model, tokenizer, ["dax"], init="copy:said")
    weight, now = model.get_input_embeddings().weight, tokenizer.get_vocab()
    assert torch.equal(weight[now["Ġcrined"]], weight[vocab["Ġa"]])
    assert torch.equal(weight[now["crined"]], weight[vocab["a"]])
    assert torch.equal(weight[now["Ġdax"]], weight[vocab["Ġsaid"]])
    # "said" is several tokens without a space before it, so there is only one row to copy.
    assert torch.equal(weight[now["dax"]], weight[vocab["Ġsaid"]])


def test_spare_rows_are_used_and_initialised_and_do_not_count():
    """T5 has 32,128 rows for 32,100 tokens."""
    config = CONFIGS["t5"](len(family("t5").tokenizer) + 28)
    model = transformers.T5ForConditionalGeneration(config)
    tokenizer = copy.deepcopy(family("t5").tokenizer)
    n = len(tokenizer)
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        weight[n:] = 1e6
    old = weight.detach().clone()
    add_new_tokens(model, tokenizer, ["crined"])
    assert model.get_input_embeddings().weight is weight
    assert weight.shape[0] == model.config.vocab_size == n + 28
    expected = old[:n].double().mean(dim=0).float()
    assert torch.equal(weight[n], expected)
    assert torch.equal(weight[n + 1], expected)
    assert torch.equal(weight[n + 2 :], old[n + 2 :])
    # Two more rows than there are: now it has to grow.
    add_new_tokens(model, tokenizer, [f"zq{letter}" for letter in "abcdefghijklmn"])
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == n + 30


def test_tokens_that_the_model_had_no_rows_for_are_not_left_to_chance():
    model, tokenizer = model_and_tokenizer("gpt2")
    n = len(tokenizer)
    mean = model.get_input_embeddings().weight[:n].double().mean(dim=0).float()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    add_new_tokens(model, tokenizer, "crined", init="copy:the")
    weight = model.get_input_embeddings().weight
    assert weight.shape[0] == n + 3
    assert torch.equal(weight[n], mean)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype):
    model, tokenizer = model_and_tokenizer("gpt2")
    model.to(dtype)
    n = len(tokenizer)
    expected = model.get_input_embeddings().weight[:n].double().mean(dim=0).to(dtype)
    add_new_tokens(model, tokenizer, "crined")
    weight = model.get_input_embeddings().weight
    assert weight.dtype == dtype
    assert torch.equal(weight[n], expected)


def test_many_rows_are_averaged_in_blocks():
    from finetune_lm.model_modifiers import _embedding_rows

    table = torch.randn(10_000, 3) + 5
    mean, spread = _embedding_rows._moments(table, range(1, 9_999))
    inside = table[1:9_999].double().numpy()
    np.testing.assert_allclose(mean.numpy(), inside.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(spread.numpy(), inside.std(axis=0), atol=1e-12)
