"""What the rows say, against the model's own loss and against plain forward passes."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import MORE_TOKENIZERS, TOKENIZERS, family
from finetune_lm.data_preprocessing import expand_with_masks, remove_non_mask_tokens_from_labels
from finetune_lm.models.tasks import TASKS
from finetune_lm.scoring.surprisal import score_tokens
from helpers import ACTIVE, dataset, examples, row_maker, rows_of, score

LMS = ["gpt2", "llama", "qwen"]
MLMS = ["bert", "roberta"]
SEQ2SEQS = ["t5", "bart"]


def data_of(fam, **kwargs):
    if fam.task == "lm":
        return dataset(fam, **kwargs)
    if fam.task == "seq2seq":
        return dataset(fam, examples(ACTIVE, ["the man", "the women drank it", "so?"]), **kwargs)
    mask = fam.tokenizer.mask_token
    texts = [f"The man has always broken the {mask}.", f"The {mask} drank {mask}."]
    labels = ["The man has always broken the glass.", "The man drank man."]
    parallel = [
        (text, label)
        for text, label in zip(texts, labels, strict=True)
        if len(fam.tokenizer(text)["input_ids"]) == len(fam.tokenizer(label)["input_ids"])
    ]
    assert parallel
    texts, labels = map(list, zip(*parallel, strict=True))
    return dataset(
        fam, examples(texts, labels), function=remove_non_mask_tokens_from_labels, **kwargs
    )


def label_rows(rows):
    return rows[rows["sequence_type"] == "label_sequence"] if "sequence_type" in rows else rows


EVERY_MODEL = [*TOKENIZERS, *MORE_TOKENIZERS]


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_loss_times_labels_is_the_sum_of_surprisals(name):
    fam = family(name)
    data = data_of(fam)
    rows, [loss] = score(fam, data)
    rows = label_rows(rows)
    n_labels = sum(
        int(data.task.counted(batch.inputs["labels"]).sum()) for batch in data.batches(32)
    )
    assert n_labels == rows["surprisal"].notna().sum()
    assert loss * n_labels == pytest.approx(rows["surprisal"].sum() * math.log(2), rel=1e-5)


@pytest.mark.parametrize("name", EVERY_MODEL)
@pytest.mark.parametrize("padding", [None, 40])
def test_same_sentence_same_number(name, padding):
    """Whatever the batch size, the order and the padding."""
    fam = family(name)
    data = data_of(fam)
    alone, _ = score(fam, data, batch_size=1)
    together, _ = score(
        fam, data_of(fam, pad_to_length=padding), batch_size=3, order=np.arange(len(data))[::-1]
    )
    key = ["example_num", *(["sequence_type"] if "sequence_type" in alone else [])]
    alone = alone.sort_values(key, kind="stable", ignore_index=True)
    together = together.sort_values(key, kind="stable", ignore_index=True)
    same = ["token_id", "word", "word_num", "token_num_in_word", "predicted_token_id", "input_text"]
    for column in same:
        assert alone[column].equals(together[column]), column
    for column in ("surprisal", "predicted_token_surprisal"):
        np.testing.assert_allclose(alone[column], together[column], atol=1e-4)


@pytest.mark.parametrize("name", LMS)
def test_lm_rows_are_the_tokens_of_the_text(name):
    fam = family(name)
    rows, _ = score(fam, dataset(fam))
    for i, text in enumerate(ACTIVE):
        of_text = rows[rows["example_num"] == i]
        ids = [
            t
            for t in fam.tokenizer(text)["input_ids"]
            if t != fam.tokenizer.bos_token_id or name == "qwen"
        ]
        assert of_text["token_id"].tolist() == ids
        assert of_text["word"].drop_duplicates().tolist() == text.split()
        assert set(of_text["original_text"]) == {text}


def test_a_first_token_that_nothing_predicts_is_missing_not_zero():
    fam = family("qwen")
    rows, _ = score(fam, dataset(fam))
    first = rows.groupby("example_num").head(1)
    assert first["surprisal"].isna().all()
    assert first["predicted_token"].isna().all()
    assert first["token"].notna().all()
    assert rows["surprisal"].isna().sum() == len(ACTIVE)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_lm_surprisals_against_one_plain_forward_pass_a_sentence(name):
    fam = family(name)
    rows, _ = score(fam, dataset(fam))
    for i, text in enumerate(ACTIVE):
        ids = fam.tokenizer(text, return_tensors="pt")["input_ids"]
        if ids[0, 0] != fam.tokenizer.bos_token_id:
            ids = torch.cat([torch.tensor([[fam.tokenizer.bos_token_id]]), ids], dim=1)
        with torch.no_grad():
            log_probabilities = fam.model(ids).logits.double().log_softmax(-1)[0]
        expected = [
            -log_probabilities[t - 1, ids[0, t]].item() / math.log(2)
            for t in range(1, ids.shape[1])
        ]
        found = rows[rows["example_num"] == i]["surprisal"]
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", LMS)
def test_an_appended_end_counts_and_has_a_row_of_no_word(name):
    fam = family(name)
    data = dataset(fam, append_eos=True)
    rows, [loss] = score(fam, data)
    last = rows.groupby("example_num").tail(1)
    assert (last["token_id"] == fam.tokenizer.eos_token_id).all()
    assert last["word"].isna().all()
    assert last["word_num"].isna().all()
    assert not last["token_is_word"].any()
    n = rows["surprisal"].notna().sum()
    assert loss * n == pytest.approx(rows["surprisal"].sum() * math.log(2), rel=1e-5)


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_targets_are_the_tokens_of_the_text(name):
    """Not end tokens or sentinels, nor what the model would say itself."""
    fam = family(name)
    rows, _ = score(fam, data_of(fam))
    if "sequence_type" in rows:
        assert not rows[rows["sequence_type"] == "generated_sequence"]["is_target"].any()
    rows = label_rows(rows)
    if fam.task == "mlm":
        assert rows["is_target"].all()
        return
    special = {*fam.tokenizer.all_special_ids} - {fam.tokenizer.unk_token_id}
    for number, of_text in rows.groupby("example_num"):
        ids = fam.tokenizer(data_of(fam).labels[number], add_special_tokens=False)["input_ids"]
        assert of_text[of_text["is_target"]]["token_id"].tolist() == ids
        assert set(of_text[~of_text["is_target"]]["token_id"]) <= special


@pytest.mark.parametrize("name", LMS)
def test_an_appended_end_is_no_target(name):
    fam = family(name)
    rows, _ = score(fam, dataset(fam, append_eos=True))
    assert not rows.groupby("example_num").tail(1)["is_target"].any()
    assert rows["is_target"].sum() == len(rows) - len(ACTIVE)


@pytest.mark.parametrize("within_word_l2r", [False, True])
@pytest.mark.parametrize("name", ["bert", "t5"])
def test_targets_of_expand_with_masks_are_each_token_once(name, within_word_l2r):
    """What they cost is the pseudo-log-likelihood, token by token from plain forward passes."""
    fam = family(name)
    data = dataset(fam, function=expand_with_masks, kwargs={"within_word_l2r": within_word_l2r})
    rows, _ = score(fam, data)
    for number, text in enumerate(ACTIVE):
        ids = fam.tokenizer(text, add_special_tokens=False)["input_ids"]
        targets = rows[(rows["example_num"] == number) & rows["is_target"]]
        assert targets["token_id"].tolist() == ids
        if not within_word_l2r:
            expected = [masked_surprisal(fam, text, place) for place in range(len(ids))]
            np.testing.assert_allclose(targets["surprisal"], expected, atol=1e-3)


def masked_surprisal(fam, text, place):
    """What a token of a text costs where it alone is hidden."""
    tokenizer = fam.tokenizer
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = list(tokenizer(text)["input_ids"])
    place += ids.index(plain[0])
    target = ids[place]
    if fam.task == "mlm":
        ids[place] = tokenizer.mask_token_id
        more, at = {}, place
    else:
        first, last = tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_1>"])
        ids[place] = first
        more, at = {"labels": torch.tensor([[first, target, last]])}, 1
    with torch.no_grad():
        logits = fam.model(input_ids=torch.tensor([ids]), **more).logits[0, at].double()
    return -float(logits.log_softmax(-1)[target]) / math.log(2)


@pytest.mark.parametrize("name", MLMS)
def test_mlm_has_one_row_for_each_mask(name):
    fam = family(name)
    data = data_of(fam)
    rows, _ = score(fam, data)
    n_masks = sum(text.count(fam.tokenizer.mask_token) for text in data.texts)
    assert len(rows) == n_masks
    for _, row in rows.iterrows():
        label_ids = fam.tokenizer(data.labels[row["example_num"]])["input_ids"]
        input_ids = fam.tokenizer(row["original_text"])["input_ids"]
        places = [i for i, t in enumerate(input_ids) if t == fam.tokenizer.mask_token_id]
        assert row["token_id"] in [label_ids[i] for i in places]
        assert row["word"] in data.labels[row["example_num"]].split()


@pytest.mark.parametrize("name", MLMS)
def test_mlm_masks_have_rows_also_when_every_label_is_kept(name):
    fam = family(name)
    with_ignored = data_of(fam)
    every_label = dataset(fam, examples(with_ignored.texts, with_ignored.labels))
    expected, _ = score(fam, with_ignored)
    found, _ = score(fam, every_label)
    assert found["token_id"].tolist() == expected["token_id"].tolist()
    np.testing.assert_allclose(found["surprisal"], expected["surprisal"], atol=1e-5)


def test_mlm_reports_random_and_original_replacements():
    """Masking that leaves a token as it is, or puts another there, is reported like a mask."""
    fam = family("bert")

    def mask(inputs, tokenizer):
        labels = torch.full_like(inputs["input_ids"], -100)
        input_ids = inputs["input_ids"].clone()
        labels[:, 1:4] = input_ids[:, 1:4]
        input_ids[:, 1] = tokenizer.mask_token_id
        input_ids[:, 2] = 40
        return {**inputs, "input_ids": input_ids, "labels": labels}

    data = dataset(fam, function=mask, strategy="per_batch")
    rows, [loss] = score(fam, data)
    assert len(rows) == 3 * len(ACTIVE)
    assert loss * len(rows) == pytest.approx(rows["surprisal"].sum() * math.log(2), rel=1e-5)
    assert rows["input_text"].str.contains("MASK").all()
    assert rows.groupby("example_num")["word"].first().tolist() == ["The", "The", "A"]


@pytest.mark.parametrize("name", SEQ2SEQS)
def test_seq2seq_label_rows_and_greedy_rows(name):
    fam = family(name)
    data = data_of(fam)
    rows, _ = score(fam, data)
    assert set(rows["sequence_type"]) == {"label_sequence", "generated_sequence"}
    for i, labels in enumerate(data.labels):
        of_example = rows[rows["example_num"] == i]
        half = len(of_example) // 2
        assert (
            of_example["sequence_type"].tolist()
            == ["label_sequence"] * half + ["generated_sequence"] * half
        )
        gold = of_example[:half]
        greedy = of_example[half:]
        assert gold["token_id"].tolist() == fam.tokenizer(labels)["input_ids"]
        assert [w for w in gold["word"].drop_duplicates() if isinstance(w, str)] == labels.split()
        assert greedy["token_id"].tolist() == gold["predicted_token_id"].tolist()
        np.testing.assert_allclose(greedy["surprisal"], gold["predicted_token_surprisal"])
        assert (gold["surprisal"].to_numpy() >= greedy["surprisal"].to_numpy() - 1e-5).all()


@pytest.mark.parametrize("name", SEQ2SEQS)
def test_seq2seq_surprisals_against_decoding_step_by_step(name):
    fam = family(name)
    data = data_of(fam)
    rows = label_rows(score(fam, data)[0])
    start = fam.model.config.decoder_start_token_id
    for i, (text, labels) in enumerate(zip(data.texts, data.labels, strict=True)):
        ids = fam.tokenizer(text, return_tensors="pt")["input_ids"]
        target = fam.tokenizer(labels)["input_ids"]
        expected = []
        for t, token in enumerate(target):
            so_far = torch.tensor([[start, *target[:t]]])
            with torch.no_grad():
                logits = fam.model(input_ids=ids, decoder_input_ids=so_far).logits[0, -1].double()
            expected.append(-logits.log_softmax(-1)[token].item() / math.log(2))
        found = rows[rows["example_num"] == i]["surprisal"]
        np.testing.assert_allclose(found, expected, atol=1e-4)


class UniformModel(torch.nn.Module):
    """Finds every token equally likely."""

    def forward(self, input_ids, attention_mask, labels):
        return SimpleNamespace(logits=torch.zeros(*labels.shape, 8192), loss=torch.tensor(0.0))


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_a_uniform_model_finds_every_token_as_surprising(name):
    fam = family(name)._replace(model=UniformModel())
    rows, _ = score(fam, data_of(fam))
    np.testing.assert_allclose(rows["surprisal"].dropna(), 13.0, atol=1e-5)
    assert set(rows["predicted_token_id"].dropna()) == {0}


def test_truncated_text_has_rows_for_what_the_model_saw(capsys):
    fam = family("gpt2")
    data = dataset(fam, max_length=5)
    rows, _ = score(fam, data)
    assert (rows.groupby("example_num").size() <= 4).all()
    whole, _ = score(fam, dataset(fam))
    for i in range(len(ACTIVE)):
        cut, all_rows = (frame[frame["example_num"] == i] for frame in (rows, whole))
        assert cut["token_id"].tolist() == all_rows["token_id"].tolist()[: len(cut)]
        assert cut["token_is_word"].tolist() == all_rows["token_is_word"].tolist()[: len(cut)]
        np.testing.assert_allclose(cut["surprisal"], all_rows["surprisal"][: len(cut)], atol=1e-4)
    n_cut = len(whole) - len(rows)
    said = capsys.readouterr().err
    assert "warning: data: 2 of 3 texts are too long" in said
    assert f"{n_cut} of their tokens were cut off" in said


def test_metadata_and_item():
    fam = family("gpt2")
    metadata = [
        {"item": "a", "k": 1.5, "l": [1]},
        {"item": "b", "k": None},
        {"item": "a", "l": "x"},
    ]
    rows, _ = score(fam, dataset(fam, examples(ACTIVE, metadata=metadata)))
    first = rows.groupby("example_num").first()
    assert first["item"].tolist() == ["a", "b", "a"]
    assert first["k"].tolist()[0] == 1.5
    assert rows[rows["example_num"] != 0]["k"].isna().all()
    assert first["l"].tolist()[::2] == ["[1]", "x"]


def test_item_is_the_example_number_without_metadata():
    fam = family("gpt2")
    rows, _ = score(fam, dataset(fam))
    assert (rows["item"] == rows["example_num"]).all()


def test_a_user_function_that_changes_the_tokens_is_realigned():
    """Labels that are no longer the text's tokens get words by what they spell."""
    fam = family("gpt2")

    def drop_second_token(inputs, tokenizer):
        keep = [0, *range(2, inputs["input_ids"].shape[1])]
        cut = {key: tensor[:, keep] for key, tensor in inputs.items()}
        return {**cut, "labels": cut["input_ids"].clone()}

    data = dataset(fam, function=drop_second_token)
    assert not data.aligned.any()
    rows, _ = score(fam, data)
    of_first = rows[rows["example_num"] == 0]
    assert of_first["word"].drop_duplicates().tolist() == [
        "man",
        "has",
        "always",
        "broken",
        "the",
        "glass.",
    ]
    assert of_first["word_num"].drop_duplicates().tolist() == list(range(6))


@settings(max_examples=25)
@given(st.sampled_from(LMS), st.integers(1, 4), st.permutations(range(3)))
def test_any_batching_gives_the_same_rows(name, batch_size, order):
    fam = family(name)
    data = dataset(fam)
    expected, _ = score(fam, data, batch_size=1)
    found, _ = score(fam, data, batch_size, np.array(order))
    found = found.sort_values("example_num", kind="stable", ignore_index=True)
    assert found["token_id"].tolist() == expected["token_id"].tolist()
    np.testing.assert_allclose(found["surprisal"], expected["surprisal"], atol=1e-4)


def test_losses_are_given_by_column():
    fam = family("gpt2")
    data = dataset(fam)
    make = row_maker(fam, data, losses=("loss", "A", "B"))
    batch = next(data.batches(2))
    with torch.no_grad():
        logits = fam.model(**batch.inputs).logits
    losses = {"loss": 2.5, "A": 1.5}
    rows = rows_of(make, batch, partial(score_tokens, logits), epoch=3, number=1, losses=losses)
    frame = rows.to_pandas()
    assert set(frame["loss"]) == {2.5}
    assert set(frame["A"]) == {1.5}
    assert frame["B"].isna().all()
    assert set(frame["epoch"]) == {3}
    assert set(frame["seed"]) == {7}
    assert TASKS["lm"].name in set(frame["task"])


def change_a_label(inputs, tokenizer):
    """The second text gets a label that it does not have; the others are left alone."""
    labels = inputs["input_ids"].clone()
    second = inputs["input_ids"][:, 2] == tokenizer(ACTIVE[1])["input_ids"][1]
    labels[second, 3] = 5
    return {**inputs, "labels": labels}


def test_words_do_not_depend_on_what_else_is_in_the_batch():
    fam = family("gpt2")
    kwargs = {"function": change_a_label, "strategy": "per_batch"}
    assert [b.aligned.tolist() for b in dataset(fam, **kwargs).batches(3)] == [[True, False, True]]
    alone, _ = score(fam, dataset(fam, **kwargs), batch_size=1)
    together, _ = score(fam, dataset(fam, **kwargs), batch_size=3)
    for column in ("word", "word_num", "token_num_in_word", "token_is_word"):
        assert alone[column].equals(together[column]), column
    untouched, _ = score(fam, dataset(fam))
    for i in (0, 2):
        changed, plain = (f[f["example_num"] == i]["word"].tolist() for f in (together, untouched))
        assert changed == plain


@pytest.mark.parametrize("same_shape", [False, True])
def test_ignored_labels_between_others_of_a_seq2seq_model(same_shape):
    fam = family("t5")

    def ignore_one(inputs, tokenizer):
        labels = inputs["labels"].clone()
        labels[:, 1] = -100
        if same_shape:
            inputs = {"input_ids": labels.clamp(min=3), "attention_mask": torch.ones_like(labels)}
        return {**inputs, "labels": labels}

    data = dataset(fam, examples(["the man"], ["the man drank it"]), function=ignore_one)
    rows = label_rows(score(fam, data)[0])
    ids = fam.tokenizer("the man drank it")["input_ids"]
    assert rows["token_id"].tolist() == [ids[0], *ids[2:]]
    assert rows["surprisal"].notna().all()


def test_a_lm_batch_in_which_nothing_can_be_predicted():
    """A single token with no start token before it: a loss of nothing, not NaN."""
    from finetune_lm.loss_classes import OutputsDefaultLoss

    fam = family("gpt2")
    data = dataset(fam, examples(["The"]), bos_policy="none")
    batch = next(data.batches(1))
    with torch.no_grad():
        outputs = fam.model(**batch.inputs)
    assert outputs.loss.isnan()
    assert OutputsDefaultLoss(None, None)(outputs, batch.inputs["labels"]) == 0.0
