"""`mask_words` and `mask_word_tokens`: words are found as words."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.data_preprocessing import mask_word_tokens, mask_words
from finetune_lm.errors import UserError
from masking import BATCHES, check_spans, copied, encode, label_ids, real_ids, same, tokenizer_of

BERTS = ["tiny-mlm", "bert"]
MLMS = [*BERTS, "roberta"]
T5S = ["tiny-seq2seq", "t5"]
SENTENCE = "Art and art, (art) party's start: art-y art's “art” artful"


def masked_words(name, text, words, **kwargs):
    """Which parts of a text are masked, in order, and the rest of it with _ for each token."""
    tokenizer = tokenizer_of(name)
    inputs = encode(tokenizer, [text])
    outputs = mask_words(inputs, tokenizer, words, **kwargs)
    scored = outputs["labels"][0]
    if tokenizer.mask_token_id is None:
        check_spans(inputs, outputs, tokenizer)
        found = tokenizer.decode(scored[scored != -100])
        return [part.split(">")[-1].strip() for part in found.split("<extra_id_")[1:-1]]
    runs, run = [], []
    for position, label in enumerate(scored.tolist()):
        if label != -100:
            run.append(label)
            assert outputs["input_ids"][0, position] == tokenizer.mask_token_id
        elif run:
            runs.append(tokenizer.decode(run).strip())
            run = []
    return runs


@pytest.mark.parametrize("name", [*MLMS, *T5S])
def test_words_are_found_as_words(name):
    found = masked_words(name, SENTENCE, ["art"])
    # Uncased models read "Art" as "art"; “ is unknown to some tokenizers but stands between.
    assert found == ["art"] * (6 if name in BERTS else 5)
    capitalized = masked_words(name, SENTENCE, ["art"], also_capitalized=True)
    assert [word.lower() for word in capitalized] == ["art"] * 6


@pytest.mark.parametrize("name", [*MLMS, *T5S])
@pytest.mark.parametrize("text", ["man drank", "the man drank", "(man)", "he saw man.", "man"])
def test_first_inside_last_and_beside_punctuation(name, text):
    assert masked_words(name, text, ["man"]) == ["man"]


@pytest.mark.parametrize("name", [*MLMS, *T5S])
@pytest.mark.parametrize("text", ["mankind", "the mankind drank", "woman", "humanly", "mans"])
def test_never_inside_another_word(name, text):
    assert masked_words(name, text, ["man"]) == []


@pytest.mark.parametrize("name", [*MLMS, *T5S])
def test_words_of_several_tokens_and_of_several_words(name):
    text = "the flomped man has flomped cold water"
    assert masked_words(name, text, ["flomped"]) == ["flomped", "flomped"]
    longest = masked_words(name, text, ["water", "cold water", "flomped", "flomped man"])
    assert longest == ["flomped man", "flomped cold water"] if name in MLMS else 3


@pytest.mark.parametrize("name", T5S)
def test_neighbours_have_a_sentinel_each(name):
    assert masked_words(name, "the man drank water", ["man", "drank"]) == ["man", "drank"]


def test_masks_are_one_for_each_token():
    tokenizer = tokenizer_of("tiny-mlm")
    inputs = encode(tokenizer, ["The flomped water."])
    outputs = mask_words(inputs, tokenizer, ["flomped"])
    n = len(tokenizer.tokenize("flomped"))
    assert n > 1
    assert (outputs["input_ids"] == tokenizer.mask_token_id).sum() == n
    assert (outputs["labels"] != -100).sum() == n


@pytest.mark.parametrize("name", ["tiny-mlm", "tiny-seq2seq"])
def test_a_word_that_overlaps_itself(name):
    """The one on the left, and then what is left."""
    tokenizer = tokenizer_of(name)
    inputs = encode(tokenizer, ["the the the the the man"])
    outputs = mask_words(inputs, tokenizer, ["the the"])
    if name == "tiny-mlm":
        places = (outputs["labels"][0] != -100).nonzero().squeeze(1).tolist()
        assert places == [1, 2, 3, 4]
    else:
        the = tokenizer.convert_tokens_to_ids("▁the")
        first, second, third = tokenizer.convert_tokens_to_ids(
            [f"<extra_id_{i}>" for i in range(3)]
        )
        assert label_ids(outputs, 0) == [first, the, the, second, the, the, third]
        assert real_ids(outputs, 0)[:3] == [first, second, the]


def test_overlapping_words_do_not_cancel_each_other():
    found = masked_words("tiny-mlm", "the man drank water", ["the man", "man drank water"])
    assert found == ["man drank water"]


@given(BATCHES, st.sampled_from([*MLMS, *T5S]), st.sampled_from(["man", "the", "water", "crined"]))
def test_exactly_the_words_of_a_sentence(texts, name, word):
    tokenizer = tokenizer_of(name)
    inputs = encode(tokenizer, texts)
    before = copied(inputs)
    outputs = mask_words(inputs, tokenizer, [word])
    assert same(inputs, before)
    expected = [sum(part.strip("().,") == word for part in text.split()) for text in texts]
    for row, n in enumerate(expected):
        if tokenizer.mask_token_id is None:
            special = tokenizer.get_added_vocab().values()
            sentinels = [i for i in label_ids(outputs, row) if i in special]
            assert len(sentinels) == n + 1
        else:
            labels = outputs["labels"][row]
            found = tokenizer.decode(labels[labels != -100]).replace(" ", "")
            assert found == word * n
    if tokenizer.mask_token_id is None:
        check_spans(inputs, outputs, tokenizer)


@pytest.mark.parametrize("function", [mask_words, mask_word_tokens])
@pytest.mark.parametrize("name", ["tiny-mlm", "tiny-seq2seq"])
def test_given_labels_are_kept_and_nothing_found_is_no_crash(function, name):
    tokenizer = tokenizer_of(name)
    inputs = encode(tokenizer, ["the man"])
    inputs["labels"] = inputs["input_ids"] + 3
    outputs = function(inputs, tokenizer, ["man"])
    assert torch.equal(outputs["labels"], inputs["labels"])
    del inputs["labels"]
    outputs = function(inputs, tokenizer, ["water"])
    assert torch.equal(outputs["input_ids"], inputs["input_ids"])
    first = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    assert label_ids(outputs, 0) == ([] if name == "tiny-mlm" else [first])


@pytest.mark.parametrize("name", ["tiny-mlm", "tiny-seq2seq"])
def test_single_tokens(name):
    tokenizer = tokenizer_of(name)
    inputs = encode(tokenizer, ["man saw the man, but no mankind"])
    one = mask_word_tokens(inputs, tokenizer, "man")
    assert same(one, mask_words(inputs, tokenizer, ["man"]))
    with pytest.raises(UserError) as caught:
        mask_word_tokens(inputs, tokenizer, ["man", "flomped"])
    assert "single tokens of the model but 'flomped' is" in str(caught.value)
    assert "Use mask_words" in str(caught.value)


def test_unknown_words_are_no_single_tokens():
    tokenizer = tokenizer_of("tiny-mlm")
    assert tokenizer.tokenize("☃") == [tokenizer.unk_token]
    with pytest.raises(UserError, match="'☃' is"):
        mask_word_tokens(encode(tokenizer, ["☃"]), tokenizer, ["☃"])


def test_words_added_to_a_vocabulary():
    import copy

    for name in ("roberta", "t5", "bert"):
        tokenizer = copy.deepcopy(tokenizer_of(name))
        tokenizer.add_tokens(["blorked"])
        new = tokenizer.convert_tokens_to_ids("blorked")
        inputs = encode(tokenizer, ["the man blorked.", "blorked the man"])
        outputs = mask_word_tokens(inputs, tokenizer, ["blorked"])
        assert new not in outputs["input_ids"]
        assert (outputs["labels"] == new).sum() == 2
        assert new in inputs["input_ids"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "words_to_mask must be a list of words but got"),
        (3, "words_to_mask must be a list of words but got 3"),
        (["a", 1984], "has 1984 in it. Put quotes around a number"),
        (["a", " "], "one of them is empty"),
    ],
)
def test_words_that_are_none(words, message):
    tokenizer = tokenizer_of("tiny-mlm")
    with pytest.raises(UserError, match=message):
        mask_words(encode(tokenizer, ["a"]), tokenizer, words)


def test_a_tokenizer_with_neither_masks_nor_sentinels():
    tokenizer = tokenizer_of("gpt2")
    inputs = {"input_ids": torch.tensor([tokenizer("the man")["input_ids"]])}
    with pytest.raises(UserError, match="mask token or with sentinels"):
        mask_words(inputs, tokenizer, ["man"])
