"""The KL term against brute force: one sentence at a time, plain models, no cache."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from families import family
from finetune_lm import messages
from finetune_lm.data_preprocessing import mask_words
from helpers import dataset, examples, save_family, write_lines
from kl_terms import OUTPUTS, SENTENCES, add_tokens, brute_force, lm_examples, load, make, value

pytest_plugins = ["kl_terms"]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_causal_model_against_brute_force(directories, sentences, name):
    """The prediction of the first word is in, the one behind the last token is out."""
    loaded = load(directories[name])
    loss = make(loaded, sentences, n_examples_per_batch=None)
    expected = brute_force(directories[name], loaded, lm_examples(loaded.tokenizer, SENTENCES))
    assert value(loss) == pytest.approx(2.5 * sum(expected) / len(expected), rel=1e-5)
    assert value(loss) > 0.01


def test_a_masked_model_against_brute_force(directories, sentences):
    """Only masks count, and only the examples that have one."""
    loaded = load(directories["bert"])
    loss = make(
        loaded,
        sentences,
        scaleby=1.0,
        n_examples_per_batch=None,
        data_preprocessing_fn=mask_words,
        data_preprocessing_fn_kwargs={"words_to_mask": ["glass", "drank"]},
    )
    tokenizer, examples = loaded.tokenizer, []
    for text in SENTENCES:
        masked = text
        for word in ("glass", "drank"):
            masked = masked.replace(word, " ".join(["[MASK]"] * len(tokenizer.tokenize(word))))
        ids = tokenizer(masked)["input_ids"]
        places = [i for i, token in enumerate(ids) if token == tokenizer.mask_token_id]
        if places:
            examples.append(({"input_ids": torch.tensor([ids])}, places))
    assert 0 < len(examples) < len(SENTENCES)
    expected = brute_force(directories["bert"], loaded, examples)
    assert value(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-5)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_seq2seq_model_against_brute_force(directories, tmp_path, name):
    loaded = load(directories[name])
    lines = [{"text": text, "labels": text[: len(text) // 2]} for text in SENTENCES]
    path = write_lines(tmp_path / "pairs.json.gz", lines)
    loss = make(loaded, path, scaleby=1.0, n_examples_per_batch=None)
    examples = []
    for line in lines:
        labels = torch.tensor([loaded.tokenizer(line["labels"])["input_ids"]])
        inputs = {"input_ids": torch.tensor([loaded.tokenizer(line["text"])["input_ids"]])}
        examples.append(({**inputs, "labels": labels}, list(range(labels.shape[1]))))
    expected = brute_force(directories[name], loaded, examples)
    assert value(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_the_gradient_is_that_of_brute_force(directories, sentences):
    loaded = load(directories["gpt2"])
    loss = make(loaded, sentences, n_examples_per_batch=None)
    parameters = list(loaded.model.parameters())
    found = torch.autograd.grad(loss(OUTPUTS, None), parameters)
    before = load(directories["gpt2"], moved=False).model.double()
    total = torch.tensor(0.0, dtype=torch.float64)
    now = copy.deepcopy(loaded.model).double()
    for inputs, positions in lm_examples(loaded.tokenizer, SENTENCES):
        with torch.no_grad():
            p = before(**inputs).logits[0, positions].log_softmax(-1)
        q = now(**inputs).logits[0, positions].log_softmax(-1)
        total = total + (p.exp() * (p - q)).sum() / len(positions) / len(SENTENCES)
    exact = torch.autograd.grad(2.5 * total, list(now.parameters()))
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_it_is_0_at_the_start_without_dropout(directories, sentences, name):
    loaded = load(directories[name], moved=False)
    loss = make(loaded, sentences, n_examples_per_batch=None)
    loaded.model.train()
    assert abs(value(loss)) < 1e-6


def test_dropout_makes_it_positive_unless_it_is_turned_off(tmp_path, sentences):
    directory = save_family(family("gpt2"), tmp_path / "model")
    loaded = load(directory, moved=False)
    loaded.model.train()
    assert value(make(loaded, sentences, n_examples_per_batch=None)) > 1e-3
    without = make(loaded, sentences, n_examples_per_batch=None, dropout=False)
    assert abs(value(without)) < 1e-6
    assert loaded.model.training


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_neither_value_nor_gradient_depends_on_the_batch_size(directories, sentences, batch_size):
    loaded = load(directories["gpt2"])
    whole = make(loaded, sentences, n_examples_per_batch=5)
    parts = make(loaded, sentences, n_examples_per_batch=5, batch_size=batch_size)
    parameters = list(loaded.model.parameters())
    values = [loss(OUTPUTS, None) for loss in (whole, parts)]
    assert values[1].item() == pytest.approx(values[0].item(), rel=1e-5)
    gradients = [torch.autograd.grad(value, parameters) for value in values]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_several_data_sets_each_have_their_weight_and_are_averaged(directories, tmp_path):
    loaded = load(directories["gpt2"])
    paths = [
        write_lines(tmp_path / "a.txt.gz", SENTENCES[:2]),
        write_lines(tmp_path / "b.txt.gz", SENTENCES[2:]),
    ]
    means = [
        sum(values) / len(values)
        for values in (
            brute_force(directories["gpt2"], loaded, lm_examples(loaded.tokenizer, texts))
            for texts in (SENTENCES[:2], SENTENCES[2:])
        )
    ]
    everything = {"n_examples_per_batch": None}
    one = make(loaded, paths, scaleby=3.0, **everything)
    assert value(one) == pytest.approx(3.0 * sum(means) / 2, rel=1e-5)
    each = make(loaded, paths, scaleby=[1.0, 10.0], **everything)
    assert value(each) == pytest.approx((means[0] + 10.0 * means[1]) / 2, rel=1e-5)
    gradient = torch.autograd.grad(each(OUTPUTS, None), loaded.model.transformer.wte.weight)[0]
    weights = zip(paths, (0.5, 5.0), strict=True)
    apart = [make(loaded, path, scaleby=scaleby, **everything) for path, scaleby in weights]
    total = sum(loss(OUTPUTS, None) for loss in apart)
    expected = torch.autograd.grad(total, loaded.model.transformer.wte.weight)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "torch_reduction"),
    [
        ({}, "batchmean"),
        ({"reduction": "batchmean"}, "batchmean"),
        ({"reduction": "sum"}, "sum"),
        ({"reduction": "mean"}, "mean"),
        ({"size_average": False}, "sum"),
        ({"size_average": True}, "mean"),
        ({"reduce": False}, "batchmean"),
    ],
)
@pytest.mark.filterwarnings("ignore:reduction")
def test_reductions_are_those_of_torch_for_each_example(
    directories, sentences, kwargs, torch_reduction
):
    loaded = load(directories["gpt2"])
    loss = make(loaded, sentences, scaleby=1.0, n_examples_per_batch=None, **kwargs)
    before = load(directories["gpt2"], moved=False).model
    reduce = torch.nn.KLDivLoss(reduction=torch_reduction, log_target=True)
    expected = []
    with torch.no_grad():
        for inputs, positions in lm_examples(loaded.tokenizer, SENTENCES):
            q = loaded.model(**inputs).logits[0, positions].log_softmax(-1)
            p = before(**inputs).logits[0, positions].log_softmax(-1)
            expected.append(float(reduce(q, p)))
    assert value(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_return_all_gives_each_examples_divergence(directories, sentences):
    loaded = load(directories["gpt2"])
    loss = make(loaded, sentences, n_examples_per_batch=None, return_all=True, batch_size=4)
    values = loss(OUTPUTS, None)
    expected = brute_force(directories["gpt2"], loaded, lm_examples(loaded.tokenizer, SENTENCES))
    assert sorted(values.tolist()) == pytest.approx(sorted(2.5 * v for v in expected), rel=1e-4)
    assert loss.return_all
    values.mean().backward()


def test_tokens_that_were_added_to_the_model_are_left_out(directories, tmp_path):
    """The sentences are those of the baseline, in which the new word is several tokens."""
    texts = [*SENTENCES, "The man has always zorped the glass."]
    path = write_lines(tmp_path / "new.txt.gz", texts)
    loaded = load(
        directories["gpt2"],
        model_modifier_fns=[add_tokens],
        model_modifier_fn_kwargs={"add_tokens": {"words": [" zorped", " blick"]}},
    )
    before = load(directories["gpt2"], moved=False)
    n_shared = len(before.tokenizer)
    assert len(loaded.tokenizer) == n_shared + 2 == loaded.model.config.vocab_size
    loss = make(loaded, path, n_examples_per_batch=None)
    examples = lm_examples(before.tokenizer, texts)
    expected = brute_force(directories["gpt2"], loaded, examples, n_shared)
    assert value(loss) == pytest.approx(2.5 * sum(expected) / len(expected), rel=1e-5)


def test_tokens_that_were_added_where_the_baseline_had_rows_to_spare_are_left_out(tmp_path):
    fam = family("t5")
    n = len(fam.tokenizer)
    fam.model.resize_token_embeddings(n + 8, mean_resizing=False)
    fam.model.config.dropout_rate = 0.0
    directory = save_family(fam, tmp_path / "model")
    path = write_lines(tmp_path / "s.txt.gz", SENTENCES)
    loaded = load(
        directory,
        model_modifier_fns=[add_tokens],
        model_modifier_fn_kwargs={"add_tokens": {"words": ["zorped"]}},
    )
    assert loaded.model.get_input_embeddings().num_embeddings == n + 8
    loss = make(loaded, path, n_examples_per_batch=None, scaleby=1.0)
    before = load(directory, moved=False)
    expected = []
    others = [i for i in range(n + 8) if i != n]
    with torch.no_grad():
        for text in SENTENCES:
            ids = torch.tensor([before.tokenizer(text)["input_ids"]])
            p, q = (
                m.model(input_ids=ids, labels=ids).logits[0][:, others].log_softmax(-1)
                for m in (before, loaded)
            )
            expected.append(float((p.exp() * (p - q)).sum(-1).mean()))
    assert value(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_examples_without_anything_to_predict_do_not_make_it_nan(directories, tmp_path):
    loaded = load(directories["bert"])
    path = write_lines(tmp_path / "s.txt.gz", SENTENCES)
    kwargs = {"n_examples_per_batch": None, "data_preprocessing_fn": mask_words}
    none = make(loaded, path, data_preprocessing_fn_kwargs={"words_to_mask": ["said"]}, **kwargs)
    assert value(none) > 0
    nothing = make(loaded, path, data_preprocessing_fn_kwargs={"words_to_mask": ["cold"]},
                   max_samples_per_dataset=2, **kwargs)  # fmt: skip
    result = nothing(OUTPUTS, None)
    assert result.item() == 0
    result.backward()
    assert value(make(loaded, path, data_preprocessing_fn_kwargs={"words_to_mask": ["cold"]},
                      max_samples_per_dataset=2, return_all=True, **kwargs)) == 0  # fmt: skip


@pytest.mark.parametrize("return_all", [False, True])
def test_examples_that_are_too_many_go_through_in_halves(
    directories, sentences, return_all, monkeypatch, capsys
):
    """In validation, where no step depends on it."""
    monkeypatch.setattr(messages, "_said", set())
    loaded = load(directories["gpt2"])
    kwargs = {"n_examples_per_batch": None, "return_all": return_all}
    with torch.no_grad():
        expected = make(loaded, sentences, **kwargs)(OUTPUTS, None)
        loss = make(loaded, sentences, **kwargs)
        forward, most = loaded.model.forward, 30

        def limited(*args, **given):
            if given["input_ids"].numel() > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return forward(*args, **given)

        loaded.model.forward = limited
        torch.testing.assert_close(loss(OUTPUTS, None), expected)
    assert "halves" in capsys.readouterr().err
    with pytest.raises(torch.OutOfMemoryError):
        make(loaded, sentences, **kwargs)(OUTPUTS, None)


@pytest.mark.parametrize("kind", ["M2M100", "Blenderbot"])
def test_a_decoder_is_fed_as_the_model_itself_feeds_it(kind):
    """Also by models that do not offer to do so."""
    fam = family("bart")
    config = getattr(transformers, f"{kind}Config")(
        **{key: getattr(fam.model.config, key) for key in (
            "vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_ffn_dim",
            "decoder_ffn_dim", "encoder_attention_heads", "decoder_attention_heads",
            "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
            "decoder_start_token_id")},
    )  # fmt: skip
    model = transformers.AutoModelForSeq2SeqLM.from_config(config).eval()
    data = dataset(fam, examples(SENTENCES, SENTENCES[::-1]))
    [batch] = data.batches(8)
    assert (batch.inputs["labels"] == -100).any()
    without = data.task.without_labels(model, batch.inputs)
    with torch.no_grad():
        found, expected = model(**without).logits, model(**batch.inputs).logits
    torch.testing.assert_close(found, expected)
