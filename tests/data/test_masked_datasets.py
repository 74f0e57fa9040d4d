"""Preprocessing functions in data sets: rows against masking by hand, expansion, bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers

from families import Family, family
from finetune_lm import data_preprocessing as dp
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.preview import render
from finetune_lm.errors import UserError
from helpers import dataset, examples, score
from masking import BUILTIN, tokenizer_of

TEXTS = ["The man has always flomped the glass.", "The women drank.", "Water, man!"]
METADATA = [{"k": i} for i in range(3)]
BOTH = ["once", "per_batch"]
WORDS = {"words_to_mask": ["man", "flomped"]}
MLM_CASES = {
    "mask_random_tokens": {"mask_prop": 0.4},
    "expand_with_masks": {},
    "mask_word_tokens": {"word_tokens_to_mask": ["man"]},
    "mask_words": WORDS,
}
SEQ2SEQ_CASES = {
    "mask_random_spans": {"mask_prop": 0.4},
    "mask_truerandom_spans": {"mask_prop": 0.4},
    "expand_with_masks": {},
    "mask_word_tokens": {"word_tokens_to_mask": ["man"]},
    "mask_words": WORDS,
}


@pytest.fixture(scope="module")
def tiny():
    classes = {"mlm": "AutoModelForMaskedLM", "seq2seq": "AutoModelForSeq2SeqLM"}
    return {
        task: Family(
            f"tiny-{task}",
            task,
            tokenizer_of(f"tiny-{task}"),
            getattr(transformers, auto).from_pretrained(BUILTIN / f"tiny-{task}").eval(),
        )
        for task, auto in classes.items()
    }


def bits(logits, token):
    return -float(logits.double().log_softmax(-1)[token]) / math.log(2)


@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize("name", MLM_CASES)
def test_mlm_rows_against_one_masked_sentence_at_a_time(tiny, name, strategy):
    """Each row's surprisal is that of the label in a plain forward pass of its own example."""
    fam = tiny["mlm"]
    torch.manual_seed(4)
    function, kwargs = getattr(dp, name), MLM_CASES[name]
    data = dataset(
        fam, examples(TEXTS, metadata=METADATA), function=function, strategy=strategy, kwargs=kwargs
    )
    state = torch.random.get_rng_state()
    rows, _ = score(fam, data)
    torch.random.set_rng_state(state)
    [batch] = data.batches(32)
    expected = []
    for i in range(len(batch)):
        mask = batch.inputs["attention_mask"][i].bool()
        ids, labels = batch.inputs["input_ids"][i][mask], batch.inputs["labels"][i][mask]
        with torch.no_grad():
            logits = fam.model(input_ids=ids[None]).logits[0]
        original = fam.tokenizer(TEXTS[int(data.example_nums[batch.example[i]])])["input_ids"]
        for place in (labels != -100).nonzero().squeeze(1).tolist():
            assert labels[place] == original[place]
            expected.append((original[place], bits(logits[place], original[place])))
    assert rows["token_id"].tolist() == [token for token, _ in expected]
    np.testing.assert_allclose(rows["surprisal"], [cost for _, cost in expected], atol=1e-4)
    # Words are those of the text, and its text stays the label.
    for row in rows.itertuples():
        text = TEXTS[row.example_num]
        assert row.original_text == row.input_label == text
        assert row.word == text.split()[row.word_num]


def test_pseudo_log_likelihood_by_hand(tiny):
    """One token at a time, from the text itself."""
    fam = tiny["mlm"]
    for within in (False, True):
        data = dataset(
            fam,
            examples(TEXTS),
            function=dp.expand_with_masks,
            kwargs={"within_word_l2r": within},
        )
        rows, _ = score(fam, data, batch_size=4)
        found = rows.groupby("example_num")["surprisal"].apply(list)
        for number, text in enumerate(TEXTS):
            encoded = fam.tokenizer(text)
            ids, words = encoded["input_ids"], encoded.word_ids()
            expected = []
            for place in range(1, len(ids) - 1):
                masked = list(ids)
                for other in range(place, len(ids)):
                    if other == place or (within and words[other] == words[place]):
                        masked[other] = fam.tokenizer.mask_token_id
                with torch.no_grad():
                    logits = fam.model(torch.tensor([masked])).logits[0, place]
                expected.append(bits(logits, ids[place]))
            np.testing.assert_allclose(found[number], expected, atol=1e-4)


@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize("name", SEQ2SEQ_CASES)
def test_seq2seq_rows_against_one_masked_sentence_at_a_time(tiny, name, strategy):
    fam = tiny["seq2seq"]
    torch.manual_seed(4)
    function, kwargs = getattr(dp, name), SEQ2SEQ_CASES[name]
    data = dataset(fam, examples(TEXTS), function=function, strategy=strategy, kwargs=kwargs)
    state = torch.random.get_rng_state()
    rows, _ = score(fam, data)
    torch.random.set_rng_state(state)
    rows = rows[rows["sequence_type"] == "label_sequence"]
    [batch] = data.batches(32)
    expected, sentinels = [], []
    for i in range(len(batch)):
        mask = batch.inputs["attention_mask"][i].bool()
        labels = batch.inputs["labels"][i][batch.is_label[i]]
        decoder = torch.cat([torch.tensor([0]), labels[:-1]])
        with torch.no_grad():
            logits = fam.model(
                input_ids=batch.inputs["input_ids"][i][mask][None], decoder_input_ids=decoder[None]
            ).logits[0]
        expected += [bits(logits[j], int(label)) for j, label in enumerate(labels)]
        sentinels += [
            t.startswith("<extra_id") for t in fam.tokenizer.convert_ids_to_tokens(labels)
        ]
        assert batch.input_labels[i] == fam.tokenizer.decode(labels)
    np.testing.assert_allclose(rows["surprisal"], expected, atol=1e-4)
    is_sentinel = np.array(sentinels)
    assert (rows["word"][is_sentinel] == rows["token"][is_sentinel]).all()
    assert rows["token_is_word"][is_sentinel].all()
    assert not rows["word"][~is_sentinel].str.contains("extra_id").any()


def test_a_sentinel_at_a_time_by_hand(tiny):
    fam = tiny["seq2seq"]
    data = dataset(fam, examples(TEXTS), function=dp.expand_with_masks)
    rows, _ = score(fam, data, batch_size=5)
    rows = rows[rows["sequence_type"] == "label_sequence"]
    first, second = fam.tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_1>"])
    expected = []
    for text in TEXTS:
        ids = fam.tokenizer(text)["input_ids"]
        for place in range(len(ids) - 1):
            masked = [*ids[:place], first, *ids[place + 1 :]]
            with torch.no_grad():
                logits = fam.model(
                    input_ids=torch.tensor([masked]),
                    decoder_input_ids=torch.tensor([[0, first, ids[place]]]),
                ).logits[0]
            expected += [bits(logits[j], t) for j, t in enumerate([first, ids[place], second])]
    np.testing.assert_allclose(rows["surprisal"], expected, atol=1e-4)


def test_positions_left_as_they_were_or_replaced_have_rows(tiny):
    fam = tiny["mlm"]
    for kind in ("random", "original"):
        props = {"mask": 0.0, "random": 0.0, "original": 0.0, kind: 1.0}
        data = dataset(
            fam,
            examples(TEXTS),
            function=dp.mask_random_tokens,
            kwargs={"mask_prop": 1.0, "replacement_props": props},
        )
        rows, [loss] = score(fam, data)
        assert len(rows) == sum(len(fam.tokenizer(text)["input_ids"]) - 2 for text in TEXTS)
        assert loss == pytest.approx(rows["surprisal"].mean() * math.log(2), rel=1e-5)


@pytest.mark.parametrize("strategy", BOTH)
def test_expansion_keeps_everything_in_step(tiny, strategy):
    for fam in tiny.values():
        data = dataset(
            fam,
            examples(TEXTS, metadata=METADATA),
            function=dp.expand_with_masks,
            strategy=strategy,
        )
        counts = [
            len(fam.tokenizer(text)["input_ids"]) - (2 if fam.task == "mlm" else 1)
            for text in TEXTS
        ]
        batches = list(data.batches(2, bounded=True))
        assert max(map(len, batches)) <= 2
        example = np.concatenate([batch.example for batch in batches])
        nums = [int(data.example_nums[i]) for i in example]
        assert nums == [i for i, n in enumerate(counts) for _ in range(n)]
        assert [data.metadata[i]["k"] for i in example] == nums
        assert [data.texts[i] for i in example] == [TEXTS[i] for i in nums]
        assert sum(batch.is_last_part for batch in batches) == data.n_batches(2)
        rows, _ = score(fam, data)
        assert rows["example_num"].drop_duplicates().tolist() == [0, 1, 2]


def test_what_is_fed_is_bounded_only_where_that_is_asked_for(tiny):
    data = dataset(
        tiny["mlm"], examples(TEXTS), function=dp.expand_with_masks, strategy="per_batch"
    )
    assert len(next(data.batches(2))) > 2
    whole = [text for batch in data.batches(3) for text in batch.input_texts]
    parts = [text for batch in data.batches(3, bounded=True) for text in batch.input_texts]
    assert whole == parts


def test_a_thousand_sentences_are_expanded_in_pieces(monkeypatch):
    import tracemalloc

    fam = family("bert")
    sizes = []
    original = dp.expand_with_masks

    def watched(inputs, tokenizer):
        outputs = original(inputs, tokenizer)
        sizes.append(outputs["input_ids"].numel())
        return outputs

    data = dataset(fam, examples(["the man " * 10] * 1_000), function=watched, strategy="per_batch")
    tracemalloc.start()
    n = sum(len(batch) for batch in data.batches(32, bounded=True))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    length = len(fam.tokenizer("the man " * 10)["input_ids"])
    assert n == 1_000 * (length - 2)
    assert max(sizes) == 32 * (length - 2) * length
    assert peak < 20e6
    monkeypatch.setattr("finetune_lm.data.preprocessed_sequences.CHUNK_TOKENS", 2**12)
    sizes.clear()
    dataset(fam, examples(["the man " * 10] * 20), function=watched)
    assert max(sizes) <= 2**12
    assert len(sizes) > 2


@pytest.mark.parametrize(
    ("lengths", "line"),
    [([3, 3, 3], 2), ([1, 1, 1], 3), ([2, 3], 3), ([-2, 4, 3], 1), ([2, 2, 9], 3)],
)
def test_a_count_that_does_not_add_up_names_the_example(lengths, line):
    def expand(inputs, tokenizer):
        made = {key: tensor.repeat_interleave(2, dim=0)[:5] for key, tensor in inputs.items()}
        return {**made, "expanded_lengths": torch.tensor(lengths)}

    with pytest.raises(UserError, match=rf"It goes wrong at data.txt.gz, line {line}\."):
        dataset(family("bert"), examples(TEXTS), function=expand)


def test_a_function_that_names_model_is_given_it():
    fam = family("bert")
    seen = []

    def look(inputs, tokenizer, model=None):
        seen.append(model)
        return {**inputs, "labels": inputs["input_ids"].clone()}

    dataset(fam, function=look, model=fam.model)
    assert seen == [fam.model]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda i, t: None, "must return a dictionary with 'input_ids' but returned None"),
        # Its own inputs, masks among them, would be what it is to predict.
        (lambda i, t: dict(i), "must return 'labels' but returned"),
        (
            lambda i, t: {**i, "labels": i["input_ids"][:, 1:]},
            "must return a label for each input token, as a masked language model needs it",
        ),
    ],
)
def test_functions_that_go_wrong(function, message):
    with pytest.raises(UserError, match=message):
        dataset(family("bert"), function=function)


def test_label_texts_follow_the_labels_only_where_these_are_new(tiny):
    masked = dataset(tiny["mlm"], examples(TEXTS), function=dp.mask_words, kwargs=WORDS)
    assert masked.labels == TEXTS
    spans = dataset(tiny["seq2seq"], examples(TEXTS), function=dp.mask_words, kwargs=WORDS)
    assert spans.labels[0] == "<extra_id_0> man<extra_id_1> flomped<extra_id_2>"
    assert spans.texts == TEXTS
    given = dataset(
        tiny["seq2seq"], examples(TEXTS, ["a", "b", "c"]), function=dp.mask_words, kwargs=WORDS
    )
    assert given.labels == ["a", "b", "c"]
    assert {dp.mask_random_spans, dp.mask_truerandom_spans} <= dp.UPDATE_LABEL_FNS


def test_preview(tiny):
    torch.manual_seed(2)
    shown = render(
        dataset(tiny["mlm"], examples(TEXTS), function=dp.mask_words, kwargs=WORDS), 1
    ).splitlines()
    assert shown[0] == "data.txt.gz (mask_words, once)"
    tokens, marks, labels = shown[3:6]
    assert shown[2] == "line 1"
    assert tokens.split()[:5] == ["input", "[CLS]", "the", "[MASK]", "has"]
    at = tokens.index("[MASK]")
    assert marks[at:].startswith("mask")
    assert labels[at:].startswith("man ")
    assert labels.split()[:5] == ["label", "-", "-", "man", "-"]
    assert "line 2" not in shown

    shown = render(
        dataset(tiny["seq2seq"], examples(TEXTS), function=dp.mask_words, kwargs=WORDS), 3
    ).splitlines()
    assert [line for line in shown if line.startswith("line")] == ["line 1", "line 2", "line 3"]
    at = shown[3].index("<extra_id_0>")
    assert shown[4][at:].startswith("mask")
    assert shown[5][at:].startswith("<extra_id_0> ▁man")
    assert max(map(len, shown)) <= 100


def test_preview_of_an_expansion_shows_as_many_as_asked_for(tiny):
    data = dataset(
        tiny["mlm"], examples(TEXTS), function=dp.expand_with_masks, strategy="per_batch"
    )
    assert isinstance(data, Dataset)
    assert sum(line == "line 1" for line in render(data, 3).splitlines()) == 3
