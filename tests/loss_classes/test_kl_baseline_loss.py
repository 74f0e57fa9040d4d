"""The KL term against brute force: one sentence at a time, plain models, no cache."""

from __future__ import annotations

import copy
import inspect
from types import SimpleNamespace

import datasets
import pytest
import torch
import transformers

from families import family
from finetune_lm import ModelArguments, UserError, messages
from finetune_lm.data_preprocessing import mask_random_tokens, mask_words
from finetune_lm.loss_classes import KLBaselineLoss
from finetune_lm.loss_classes._kl_data import BaselineData
from finetune_lm.loss_classes._kl_settings import KLSettings
from finetune_lm.models.baseline import Origin, origin_of
from finetune_lm.models.loading import load_model
from helpers import dataset, examples, save_family, write_lines

SENTENCES = [
    "The man has always broken the glass.",
    "The women drank.",
    "A naïve café-owner  said so?",
    "The story was told again and again.",
    "She opened the box and they drank a glass of cold water.",
    "The children don't see the old teacher.",
]
OUTPUTS = SimpleNamespace(loss=None, logits=None)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Models without dropout."""
    made = {}
    for name in ("gpt2", "llama", "bert", "t5", "bart"):
        fam = family(name)
        for key, value in fam.model.config.to_dict().items():
            if "drop" in key and isinstance(value, float):
                setattr(fam.model.config, key, 0.0)
        made[name] = save_family(fam, tmp_path_factory.mktemp(name))
    return made


@pytest.fixture
def sentences(tmp_path):
    return write_lines(tmp_path / "fillers.txt.gz", SENTENCES)


def load(directory, moved=True, **kwargs):
    """A model as a run loads it, with other weights than its baseline."""
    loaded = load_model(ModelArguments(directory, **kwargs))
    if moved:
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in loaded.model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return loaded


def make(loaded, dataset, **kwargs):
    torch.manual_seed(3)
    return KLBaselineLoss(loaded.model, loaded.tokenizer, dataset=dataset, **kwargs)


def brute_force(directory, loaded, examples, n_shared=None):
    """KL(baseline || model), example by example in float64, of the positions that are given.

    Args:
        examples: For each example the inputs and the (logit position, ...) that count.
    """
    before = load(directory, moved=False).model.double()
    now = loaded.model
    means = []
    for inputs, positions in examples:
        with torch.no_grad():
            p = before(**inputs).logits[0, positions]
            q = now(**inputs).logits[0, positions].double()
        p, q = p[:, :n_shared].log_softmax(-1), q[:, :n_shared].log_softmax(-1)
        means.append(sum(float(a.exp() @ (a - b)) for a, b in zip(p, q, strict=True)) / len(p))
    return means


def lm_examples(tokenizer, texts, start=True):
    """All tokens of a text are predicted, the first one by the start token."""
    examples = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        if start and ids[0] != tokenizer.bos_token_id:
            ids = [tokenizer.bos_token_id, *ids]
        examples.append(({"input_ids": torch.tensor([ids])}, list(range(len(ids) - 1))))
    return examples


def value(loss):
    with torch.no_grad():
        return float(loss(OUTPUTS, None))


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


def drawn(monkeypatch):
    """The examples of each call."""
    calls = []
    batches = BaselineData.batches

    def record(self, example, batch_size):
        calls.append(example.tolist())
        return batches(self, example, batch_size)

    monkeypatch.setattr(BaselineData, "batches", record)
    return calls


def test_examples_are_drawn_without_replacement_from_the_runs_seed(
    directories, sentences, monkeypatch
):
    loaded = load(directories["gpt2"])
    calls = drawn(monkeypatch)
    first, again = (make(loaded, sentences, n_examples_per_batch=4) for _ in range(2))
    before = torch.get_rng_state()
    for loss in (first, first, first, again, again, again):
        value(loss)
    assert torch.equal(torch.get_rng_state(), before)  # the run's own draws are not disturbed
    assert all(len(set(call)) == len(call) == 4 for call in calls)
    assert calls[:3] == calls[3:]
    assert len({tuple(sorted(call)) for call in calls}) > 1
    torch.manual_seed(4)
    value(KLBaselineLoss(loaded.model, loaded.tokenizer, sentences, n_examples_per_batch=4))
    assert calls[-1] != calls[0]


def test_draws_go_on_from_a_checkpoint(directories, sentences, monkeypatch):
    loaded = load(directories["gpt2"])
    calls = drawn(monkeypatch)
    loss = make(loaded, sentences, n_examples_per_batch=3)
    value(loss)
    state = loss.state_dict()
    value(loss)
    resumed = make(loaded, sentences, n_examples_per_batch=3)
    resumed.load_state_dict(state)
    value(resumed)
    assert calls[2] == calls[1] != calls[0]


def test_how_many_are_drawn_of_each(directories, tmp_path, monkeypatch):
    loaded = load(directories["gpt2"])
    paths = [write_lines(tmp_path / f"{name}.txt.gz", SENTENCES) for name in "abc"]
    calls = drawn(monkeypatch)
    value(make(loaded, paths, n_examples_per_batch=[2, None, 100]))
    assert list(map(len, calls)) == [2, 6, 6]
    value(make(loaded, paths, max_samples_per_dataset=[3, None, 100]))
    assert list(map(len, calls[3:])) == [3, 6, 6]
    assert set(calls[3]) == {0, 1, 2}


def test_longer_examples_are_left_out(directories, sentences, monkeypatch):
    loaded = load(directories["gpt2"])
    lengths = [len(loaded.tokenizer(text)["input_ids"]) + 1 for text in SENTENCES]
    limit = sorted(lengths)[2]
    calls = drawn(monkeypatch)
    loss = make(loaded, sentences, max_sample_length=limit, scaleby=1.0)
    short = [text for text, n in zip(SENTENCES, lengths, strict=True) if n <= limit]
    expected = brute_force(directories["gpt2"], loaded, lm_examples(loaded.tokenizer, short))
    assert value(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert len(calls[0]) == len(short) == 3
    with pytest.raises(UserError, match="max_sample_length must leave at least one example"):
        make(loaded, sentences, max_sample_length=1)


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


def add_tokens(model, tokenizer, words):
    tokenizer.add_tokens(words)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)


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
    import transformers

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


def test_data_sets_of_the_datasets_library_with_their_splits(directories, tmp_path, monkeypatch):
    loaded = load(directories["gpt2"])
    splits = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"text": SENTENCES[:2]}),
        held_out=datasets.Dataset.from_dict({"text": SENTENCES[2:]}),
    )
    splits.save_to_disk(tmp_path / "both")
    splits["train"].save_to_disk(tmp_path / "one")
    calls = drawn(monkeypatch)
    paths = [str(tmp_path / "both"), str(tmp_path / "both"), str(tmp_path / "one")]
    value(make(loaded, paths, split_name=["train", "held_out", "train"]))
    assert list(map(len, calls)) == [2, 4, 2]
    with pytest.raises(UserError, match=r"split 'dev'.*cannot be loaded"):
        make(loaded, paths[0], split_name="dev")
    datasets.Dataset.from_dict({"sentence": SENTENCES}).save_to_disk(tmp_path / "other")
    with pytest.raises(UserError, match="must have a column 'text' but has"):
        make(loaded, str(tmp_path / "other"))


MASKING = {"data_preprocessing_fn": mask_random_tokens}
BAD = [
    ({"dataset": "nowhere.txt.gz"}, "there is no file nowhere.txt.gz."),
    ({"dataset": []}, r"dataset must be one or more files or names but got \[\]."),
    ({"scaleby": [1.0, 2.0]}, r"scaleby must have one value, or one for each dataset \(1\)"),
    ({"n_examples_per_batch": 0}, "an integer of at least 1, or None for all but got 0."),
    ({"n_examples_per_batch": 2.5}, "n_examples_per_batch must be an integer"),
    ({"batch_size": -1}, "batch_size must be an integer of at least 1 but got -1."),
    ({"scaleby": -1}, "scaleby must be a number of at least 0 but got -1."),
    ({"scaleby": "much"}, "scaleby must be a number of at least 0 but got 'much'."),
    ({"scaleby": float("nan")}, "scaleby must be a number of at least 0 but got nan."),
    ({"reduction": "median"}, "must be none, mean, batchmean or sum but got 'median'."),
    ({"return_all": "yes"}, "return_all must be True or False but got 'yes'."),
    ({"data_preprocessing_fn_strategy": "twice"}, "must be once or per_batch but got 'twice'."),
    ({"data_preprocessing_fn_kwargs": {"p": 1}}, "_kwargs.p is not an argument of identity"),
    ({**MASKING, "data_preprocessing_fn_kwargs": {"mask_prop": 7}}, "from 0 to 1 but got 7."),
    ({"scale_by": 1.0}, "scale_by is not an argument of KLBaselineLoss.*scaleby"),
    ({"model_kwargs": 3}, "model_kwargs must be a dictionary but got 3."),
]


@pytest.mark.parametrize(("kwargs", "message"), BAD)
def test_what_is_given_is_checked_without_a_model(sentences, kwargs, message):
    with pytest.raises(UserError, match=message):
        KLBaselineLoss.check(**{"dataset": sentences, **kwargs})


def test_a_function_for_another_kind_of_model_is_refused(directories, sentences):
    loaded = load(directories["gpt2"])
    with pytest.raises(UserError, match="mask_random_tokens is for masked language models"):
        make(loaded, sentences, data_preprocessing_fn=mask_random_tokens)


def test_a_data_set_must_be_given():
    with pytest.raises(UserError, match="dataset must be given"):
        KLBaselineLoss.check()


def test_what_is_checked_early_has_the_defaults_of_the_loss():
    def defaults(function, *but):
        parameters = inspect.signature(function).parameters
        return {name: p.default for name, p in parameters.items() if name not in but}

    assert defaults(KLSettings) == defaults(KLBaselineLoss, "model", "tokenizer")


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
