"""Each measure against brute force, for every family and by every way of calling a model."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import MORE_TASKS, TASKS, family
from finetune_lm.arguments import ModelArguments
from finetune_lm.data_preprocessing import mask_random_tokens
from finetune_lm.errors import UserError
from finetune_lm.measures import BaselineKL, Candidates, Entropy, Rank
from finetune_lm.model_modifiers import add_new_tokens
from finetune_lm.models.loading import load_model
from finetune_lm.models.spelling import spelling_at_beginning, spelling_in_sentence
from finetune_lm.models.vocabulary import vocabulary_of
from helpers import dataset, examples, save_family
from measured import FEW_WAYS, WAYS, measured

NAMES_AND_WAYS = [
    *((name, way) for name in TASKS for way in WAYS),
    *((name, way) for name in MORE_TASKS for way in FEW_WAYS),
]
TEXTS = [
    "The man has always broken the glass.",
    "The man has broken it",
    "The women drank",
    "The man has always broken the box.",
]


def data_of(fam):
    if fam.task == "mlm":
        return dataset(fam, examples(TEXTS), function=mask_random_tokens)
    labels = TEXTS[::-1] if fam.task == "seq2seq" else None
    return dataset(fam, examples(TEXTS, labels), bos_policy="eos")


def predictions(fam, data, model=None):
    """For each row of the table its target and log2 p of all tokens in its place, in float64."""
    found = []
    with torch.no_grad():
        for batch in data.batches(1):
            logits = (model or fam.model)(**batch.inputs).logits.double()
            task = data.task
            reported = task.reported(batch.inputs, batch.n_start, batch.is_label)
            for row, position in reported.nonzero().tolist():
                place = position - task.label_offset
                log_p = logits[row, place].log_softmax(-1) / math.log(2)
                target = int(batch.inputs["labels"][row, position])
                found.append((target, log_p.numpy(), logits[row, place].numpy()))
    return found


def rows_of_labels(rows):
    if "sequence_type" in rows:
        generated = rows[rows["sequence_type"] == "generated_sequence"]
        assert generated.filter(regex="rank|entropy|surprisal_of|kl_").isna().all(axis=None)
        rows = rows[rows["sequence_type"] == "label_sequence"]
    return rows.reset_index(drop=True)


@pytest.mark.parametrize(("name", "way"), NAMES_AND_WAYS)
def test_entropy_rank_and_candidates(name, way):
    fam = family(name)
    data = data_of(fam)
    vocabulary = vocabulary_of(fam.tokenizer)
    words = [
        word
        for word in ("the", "man", "has", "The", "it")
        if all(
            spelling is not None and len(spelling) == 1
            for spell in (spelling_in_sentence, spelling_at_beginning)
            for spelling in [spell(word, fam.tokenizer, vocabulary)]
        )
    ][:2]
    assert words
    measures = [
        Entropy(fam.model, fam.tokenizer),
        Rank(fam.model, fam.tokenizer),
        Candidates(fam.model, fam.tokenizer, words=words, sets={"either": words}),
    ]
    rows = rows_of_labels(measured(fam, data, measures, way))
    expected = predictions(fam, data)
    assert len(rows) == len(expected) > 3
    for (_, row), (target, log_p, logits) in zip(rows.iterrows(), expected, strict=True):
        assert row["token_id"] == target
        assert row["token_entropy"] == pytest.approx(-(2.0**log_p * log_p).sum(), abs=1e-4)
        rank = 1 + (logits > logits[target]).sum()
        near = (abs(logits - logits[target]) < 1e-5).sum() - 1
        assert abs(row["rank"] - rank) <= near
        costs = []
        begins = row["word_num"] == 0 and row["token_num_in_word"] == 0
        spell = spelling_at_beginning if begins else spelling_in_sentence
        for word in words:
            [token] = spell(word, fam.tokenizer, vocabulary)
            costs.append(-log_p[token])
            assert row[f"surprisal_of_{word}"] == pytest.approx(costs[-1], abs=1e-4)
        either = -math.log2(sum(2.0**-cost for cost in costs))
        assert row["surprisal_of_either"] == pytest.approx(either, abs=1e-4)


def moved(model, by=0.05):
    """The model as if it had learned something."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(("name", "way"), NAMES_AND_WAYS)
def test_divergence_from_the_untouched_model(name, way, tmp_path):
    fam = family(name)
    loaded = load_model(ModelArguments(save_family(fam, tmp_path), model_task=fam.task))
    fam = fam._replace(model=loaded.model.eval(), tokenizer=loaded.tokenizer)
    data = data_of(fam)
    measure = BaselineKL(fam.model, fam.tokenizer)
    before = rows_of_labels(measured(fam, data, [measure], way))
    np.testing.assert_allclose(before["kl_from_baseline"], 0.0, atol=2e-6)
    untouched = copy.deepcopy(fam.model)
    moved(fam.model)
    measure = BaselineKL(fam.model, fam.tokenizer)
    rows = rows_of_labels(measured(fam, data, [measure], way))
    pairs = zip(predictions(fam, data, untouched), predictions(fam, data), strict=True)
    expected = [(2.0**p * (p - q)).sum() for (_, p, _), (_, q, _) in pairs]
    assert max(expected) > 0.05
    np.testing.assert_allclose(rows["kl_from_baseline"], expected, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_what_the_untouched_model_cannot_read_has_no_divergence(way, tmp_path):
    fam = family("gpt2")
    args = ModelArguments(
        save_family(fam, tmp_path),
        model_task="lm",
        model_modifier_fns=[add_new_tokens],
        model_modifier_fn_kwargs={"add_new_tokens": {"added_tokens": ["flomped"]}},
    )
    loaded = load_model(args)
    fam = fam._replace(model=loaded.model.eval(), tokenizer=loaded.tokenizer)
    data = dataset(fam, examples(["The man flomped the glass.", "The man has it"]))
    rows = measured(fam, data, [BaselineKL(fam.model, fam.tokenizer)], way)
    new = rows["token"].str.contains("flomped")
    assert new.sum() == 1
    behind = (rows["example_num"] == 0) & (rows.index > new.idxmax())
    assert rows["kl_from_baseline"].isna().equals(behind)
    # Its embedding is new, so what is predicted among the old tokens is as before.
    np.testing.assert_allclose(rows["kl_from_baseline"].dropna(), 0.0, atol=2e-6)


def chain_cost(fam, ids, chain):
    """What tokens cost one after the other behind a context."""
    with torch.no_grad():
        logits = fam.model(torch.tensor([[*ids, *chain]])).logits[0].double()
    log_p = logits.log_softmax(-1) / math.log(2)
    return -sum(float(log_p[len(ids) - 1 + i, token]) for i, token in enumerate(chain))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "pythia"])
def test_chained_words_cost_what_their_tokens_cost_behind_the_context(name, way, tmp_path):
    fam = family(name)
    loaded = load_model(ModelArguments(save_family(fam, tmp_path), model_task="lm"))
    fam = fam._replace(model=loaded.model.eval(), tokenizer=loaded.tokenizer)
    texts = ["The man has it", "The women drank"]
    data = dataset(fam, examples(texts))
    words = ["kettle", "the"]
    with pytest.raises(UserError, match=r"'kettle' is .* tokens"):
        Candidates(fam.model, fam.tokenizer, words=words)
    measure = Candidates(fam.model, fam.tokenizer, words=words, chained=True)
    rows = measured(fam, data, [measure], way)
    vocabulary = vocabulary_of(fam.tokenizer)
    for number in range(len(texts)):
        ids = list(data.dataset["input_ids"][number])
        of_text = rows[rows["example_num"] == number].reset_index(drop=True)
        n_start = len(ids) - len(of_text)
        for i, row in of_text.iterrows():
            spell = spelling_at_beginning if i == 0 else spelling_in_sentence
            for word in words:
                chain = spell(word, fam.tokenizer, vocabulary)
                cost = chain_cost(fam, ids[: n_start + i], chain)
                assert row[f"surprisal_of_{word}"] == pytest.approx(cost, abs=1e-4)


def test_chained_is_for_causal_models():
    fam = family("bert")
    measure = Candidates(fam.model, fam.tokenizer, words=["kettle"], chained=True)
    assert "causal" in measure.task_problem(data_of(fam).task)


class LogitOfTarget:
    """A user's measure."""

    columns = ("logit", "places")

    def __init__(self, model, tokenizer, factor=1.0):
        self.factor = factor

    def __call__(self, logits, targets):
        rows = torch.arange(len(targets))
        found = logits[rows, targets] * self.factor
        logits.zero_()  # what it does to them is its own affair
        return {"logit": found, "places": torch.full((len(targets),), logits.shape[1])}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_a_measure_of_ones_own(name, way):
    fam = family(name)
    data = data_of(fam)
    measures = [LogitOfTarget(fam.model, fam.tokenizer, 2.0), Rank(fam.model, fam.tokenizer)]
    rows = rows_of_labels(measured(fam, data, measures, way))
    expected = predictions(fam, data)
    logits = [2 * logits[target] for target, _, logits in expected]
    np.testing.assert_allclose(rows["logit"], logits, atol=1e-4)
    assert set(rows["places"]) == {len(expected[0][1])}
    assert (rows["rank"] >= 1).all()


@pytest.mark.parametrize("measures", [["WordBoundary", "Entropy", "Rank"], ["Rank"]])
@pytest.mark.parametrize("way", WAYS)
def test_measuring_changes_no_surprisal_and_no_gradient(measures, way):
    from finetune_lm import measures as package

    found = []
    for names in ([], measures):
        fam = family("gpt2")
        made = [getattr(package, name)(fam.model, fam.tokenizer) for name in names]
        rows = measured(fam, data_of(fam), made, way)
        gradients = [p.grad for p in fam.model.parameters() if p.grad is not None]
        found.append((rows["surprisal"].to_numpy(), gradients))
    # Where beginnings are shared, the ends of texts go in only for measures that look behind them:
    # products of matrices of other shapes, which differ in their last digits.
    rounding = 1e-5 if way == "together" and "WordBoundary" in measures else 0.0
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=0, atol=rounding)
    assert len(found[0][1]) == len(found[1][1])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


LOGITS = st.floats(-30, 30, width=32) | st.just(-math.inf) | st.sampled_from([0.0, 1.0])


@given(st.data())
def test_any_logits(data):
    """Ties, and tokens that are ruled out, of which 0 log 0 is 0."""
    n, size = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 6))
    rows = data.draw(
        st.lists(st.lists(LOGITS, min_size=size, max_size=size), min_size=n, max_size=n)
    )
    rows = [[0.5, *row[1:]] for row in rows]  # not all is ruled out
    targets = data.draw(st.lists(st.integers(0, size - 1), min_size=n, max_size=n))
    logits = torch.tensor(rows)
    before = logits.clone()
    ranks = Rank(None, None)(logits, torch.tensor(targets))["rank"]
    entropies = Entropy(None, None)(logits, torch.tensor(targets))["token_entropy"]
    assert logits.equal(before)
    for row, target, rank, entropy in zip(rows, targets, ranks, entropies, strict=True):
        assert rank == 1 + sum(value > row[target] for value in row)
        weights = [math.exp(value - max(row)) for value in row]
        p = [weight / sum(weights) for weight in weights]
        assert entropy == pytest.approx(-sum(q * math.log2(q) for q in p if q), abs=1e-5)
