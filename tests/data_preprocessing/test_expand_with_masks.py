from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.data_preprocessing import expand_with_masks
from finetune_lm.errors import UserError
from finetune_lm.models.vocabulary import vocabulary_of
from masking import (
    BATCHES,
    check_spans,
    copied,
    encode,
    label_ids,
    n_ordinary,
    real_ids,
    same,
    tokenizer_of,
)

MLMS = ["tiny-mlm", "bert", "roberta"]
T5S = ["tiny-seq2seq", "t5"]


def counts_of(outputs):
    lengths = outputs["expanded_lengths"].tolist()
    counts = [n for n in lengths if n != -1]
    assert lengths == counts + [-1] * (len(lengths) - len(counts))
    return counts


def repeated(inputs, outputs):
    counts = torch.tensor(counts_of(outputs))
    return {key: tensor.repeat_interleave(counts, dim=0) for key, tensor in inputs.items()}


@given(BATCHES, st.sampled_from([*MLMS, *T5S]), st.booleans())
def test_one_example_for_each_token(texts, name, within):
    tokenizer = tokenizer_of(name)
    inputs = encode(tokenizer, texts)
    before = copied(inputs)
    outputs = expand_with_masks(inputs, tokenizer, within_word_l2r=within)
    assert same(inputs, before)
    assert counts_of(outputs) == [n_ordinary(inputs, tokenizer, i) for i in range(len(texts))]
    vocabulary = vocabulary_of(tokenizer)
    originals = repeated(inputs, outputs)
    position = []
    for row in range(len(texts)):
        position += [
            p
            for p, i in enumerate(inputs["input_ids"][row].tolist())
            if inputs["attention_mask"][row, p] and i not in vocabulary.special_ids
        ]
    for row, place in enumerate(position):
        target = int(originals["input_ids"][row, place])
        if name in MLMS:
            expected = torch.full_like(outputs["labels"][row], -100)
            expected[place] = target
            assert torch.equal(outputs["labels"][row], expected)
            changed = outputs["input_ids"][row] != originals["input_ids"][row]
            assert changed[place]
            assert outputs["input_ids"][row, place] == tokenizer.mask_token_id
            assert within or changed.sum() == 1
        else:
            first, second = vocabulary.sentinel_ids[:2].tolist()
            assert label_ids(outputs, row) in ([first, target, second], [first, target])
            assert within or label_ids(outputs, row)[-1] == second
            assert real_ids(outputs, row)[place] == first
    if name in T5S and not within:
        check_spans(originals, outputs, tokenizer)


@given(BATCHES, st.sampled_from(MLMS))
def test_within_words_masks_a_superset(texts, name):
    tokenizer = tokenizer_of(name)
    inputs = encode(tokenizer, texts)
    plain = expand_with_masks(inputs, tokenizer)
    within = expand_with_masks(inputs, tokenizer, within_word_l2r=True)
    mask = tokenizer.mask_token_id
    assert torch.equal(plain["labels"], within["labels"])
    masked, more = plain["input_ids"] == mask, within["input_ids"] == mask
    assert (more | ~masked).all()
    # Only later tokens, and no gap among them.
    assert ((more.long().diff(dim=1) == 1).sum(dim=1) == 1).all()
    assert (more.long().argmax(dim=1) == masked.long().argmax(dim=1)).all()


@pytest.mark.parametrize("name", [*MLMS, "tiny-seq2seq"])
def test_within_words_is_the_plain_form_for_last_tokens(name):
    tokenizer = tokenizer_of(name)
    inputs = encode(tokenizer, ["The man flomped (unbelievable) water."])
    ids = inputs["input_ids"]
    continues = vocabulary_of(tokenizer).continues(ids.numpy(), after_space=True)[0]
    special = vocabulary_of(tokenizer).is_special(ids.numpy())[0]
    places = [p for p in range(ids.shape[1]) if not special[p]]
    is_last = [p + 1 == ids.shape[1] or not continues[p + 1] for p in places]
    assert 0 < sum(is_last) < len(is_last)
    plain = expand_with_masks(inputs, tokenizer)
    within = expand_with_masks(inputs, tokenizer, within_word_l2r=True)
    for row, last in enumerate(is_last):
        assert (real_ids(plain, row) == real_ids(within, row)) == last
        if name == "tiny-seq2seq":
            assert (label_ids(plain, row) == label_ids(within, row)) == last
            assert label_ids(plain, row)[:2] == label_ids(within, row)[:2]


def test_within_words_by_hand():
    tokenizer = tokenizer_of("tiny-mlm")
    inputs = encode(tokenizer, ["the mankind."])
    assert tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]) == [
        *("[CLS]", "the", "man", "##k", "##ind", ".", "[SEP]"),
    ]
    made = expand_with_masks(inputs, tokenizer, within_word_l2r=True)["input_ids"]
    assert [tokenizer.convert_ids_to_tokens(row)[1:-1] for row in made] == [
        ["[MASK]", "man", "##k", "##ind", "."],
        ["the", "[MASK]", "[MASK]", "[MASK]", "."],
        ["the", "man", "[MASK]", "[MASK]", "."],
        ["the", "man", "##k", "[MASK]", "."],
        ["the", "man", "##k", "##ind", "[MASK]"],
    ]


@pytest.mark.parametrize("name", ["tiny-mlm", "tiny-seq2seq"])
def test_given_labels_are_kept_for_each(name):
    tokenizer = tokenizer_of(name)
    inputs = encode(tokenizer, ["the man", "water"])
    inputs["labels"] = inputs["input_ids"] + 5
    for within in (False, True):
        outputs = expand_with_masks(inputs, tokenizer, within_word_l2r=within)
        assert counts_of(outputs) == [2, 1]
        expected = inputs["labels"].repeat_interleave(torch.tensor([2, 1]), dim=0)
        assert torch.equal(outputs["labels"], expected)


def test_nothing_to_mask():
    """A text of special tokens only is not lost, but nothing is predicted in it."""
    tokenizer = tokenizer_of("tiny-mlm")
    inputs = encode(tokenizer, ["[MASK]", "the man"])
    for within in (False, True):
        outputs = expand_with_masks(inputs, tokenizer, within_word_l2r=within)
        assert counts_of(outputs) == [1, 2]
        assert (outputs["labels"][0] == -100).all()
        assert torch.equal(outputs["input_ids"][0], inputs["input_ids"][0])


def test_a_value_that_cannot_be():
    tokenizer = tokenizer_of("tiny-mlm")
    with pytest.raises(UserError, match="within_word_l2r must be True or False but got 'yes'"):
        expand_with_masks(encode(tokenizer, ["a"]), tokenizer, within_word_l2r="yes")
