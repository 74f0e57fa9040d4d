"""Each word's tokens together are the word: for every tokenizer class, over scripts."""

from __future__ import annotations

import random

import numpy as np
import pytest

from finetune_lm.data.label_words import LabelWords
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.data.words import word_spans
from finetune_lm.data_preprocessing import mask_words
from finetune_lm.models.vocabulary import Vocabulary
from helpers import words_of_encoding
from texts_of_classes import ALL, TEXTS, all_known, decoded, letters
from tokenizer_classes import BUILT, build


def assert_words_come_back(tokenizer, text):
    [encoding] = TextEncoder(tokenizer, 512)([text])
    nums = np.array(words_of_encoding(text, encoding))
    of_text = nums[nums >= 0]
    assert (np.diff(of_text) >= 0).all()
    for number, (begin, end) in enumerate(word_spans(text)):
        ids = [i for i, n in zip(encoding.input_ids, nums.tolist(), strict=True) if n == number]
        if tokenizer.unk_token_id in ids:
            continue  # what it stands for cannot be read off it
        assert decoded(tokenizer, ids) == letters(text[begin:end]), number


@pytest.mark.parametrize(("make", "name"), ALL, ids=[name for _, name in ALL])
def test_each_words_tokens_are_the_word(make, name):
    tokenizer = make(name)
    for text in TEXTS:
        if all_known(tokenizer, text):
            assert_words_come_back(tokenizer, text)


@pytest.mark.parametrize(
    "name",
    [
        "ByT5Tokenizer",
        "MyT5Tokenizer",
        "PerceiverTokenizer",
        "MarianTokenizer",
        "M2M100Tokenizer",
        "SiglipTokenizer",
    ],
)
def test_texts_of_many_scripts(name):
    tokenizer = build(name)
    words = ["the", "책을", "읽었다", "Well…", "Bär", "süße", "½", "é", "“so…”", "中文", "читаю"]
    if "T5" in name or "Perc" in name:
        words += ["😀", "👩\u200d👩\u200d👧", "𝔘𝔫𝔦", "שלום", "x́", "ﷺ", "हिन्दी"]
    for seed in range(20):
        choose = random.Random(seed)
        text = " ".join(choose.choice(words) for _ in range(choose.choice([1, 2, 5, 40])))
        assert all_known(tokenizer, text)
        assert_words_come_back(tokenizer, text)


WORDS = "the old cat bit a big red fish"
SPACED = {"ClvpTokenizer", "GPTNeoXJapaneseTokenizer"}
"""Those that have a token for a space, which is not at the beginning of a word."""


@pytest.mark.parametrize("name", [name for name in BUILT if name not in SPACED])
def test_word_limits_that_tokens_are_spelled_with(name):
    """A word's beginning may be marked, or its end, or that it goes on."""
    tokenizer = build(name)
    text = " ".join(word for word in WORDS.split() if _is_known(tokenizer, word))
    ids = np.array(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    vocabulary = Vocabulary(tokenizer)
    found = LabelWords.of_ids(vocabulary, [ids]).of_tokens
    number = found.word_num
    words = [found.words[number == i][0] for i in range(number.max(initial=-1) + 1)]
    assert words == text.split()
    goes_on = vocabulary.continues(ids[None], after_space=True)[0]
    assert goes_on.tolist() == [False, *(number[1:] == number[:-1]).tolist()]


def _is_known(tokenizer, word):
    ids = tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
    return decoded(tokenizer, ids) == letters(word)


@pytest.mark.parametrize("name", BUILT)
def test_mask_words_masks_words_that_are_several_tokens(name):
    tokenizer = build(name)
    if tokenizer.mask_token_id is None or not _is_known(tokenizer, "fish"):
        pytest.skip("no mask token, or no such letters")
    batch = tokenizer(["the fish bit a fish", "catfish fishes"], padding=True, return_tensors="pt")
    masked = mask_words(dict(batch), tokenizer, words_to_mask=["fish"])["input_ids"]
    n_masked = (masked == tokenizer.mask_token_id).sum(dim=1).tolist()
    assert n_masked[0] >= 2
    assert n_masked[1] == 0
