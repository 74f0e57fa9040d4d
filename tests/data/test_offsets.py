"""Words found by decoding, against the offsets that fast tokenizers give."""

from __future__ import annotations

import random

import pytest
import transformers

from families import TOKENIZERS
from finetune_lm.data.offsets import spans_by_decoding
from finetune_lm.data.tokenization import TextEncoder
from helpers import WithoutOffsets, words_of_encoding

WORDS = [
    "The",
    "man",
    "has",
    "always",
    "broken",
    "the",
    "glass.",
    "naïve",
    "café-owner",
    "said:",
    "“so",
    "what?”",
    "😀",
    "👩\u200d👩\u200d👧",
    "שלום",
    "عربي",
    "é",
    "ﬁne",
    "Ünter",
    "½",
    "x́",
    "unbelievable",
    "again",
    "don't",
]


def text_of(n_words, seed=1):
    choose = random.Random(seed)
    return " ".join(choose.choice(WORDS) for _ in range(n_words))


def words_of(tokenizer, text, max_length=10**6):
    [encoding] = TextEncoder(tokenizer, max_length)([text])
    return words_of_encoding(text, encoding)


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_words", [1, 8, 60])
def test_words_are_those_of_the_offsets(name, seed, n_words):
    text = text_of(n_words, seed)
    fast = TOKENIZERS[name]()
    assert words_of(WithoutOffsets(fast), text) == words_of(fast, text)


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_words_of_a_long_text(name):
    """So long that it is not compared letter by letter, with what cannot be found in between."""
    text = text_of(3000)
    fast = TOKENIZERS[name]()
    by_offsets, by_decoding = words_of(fast, text), words_of(WithoutOffsets(fast), text)
    wrong = sum(a != b for a, b in zip(by_offsets, by_decoding, strict=True))
    assert wrong <= 0.005 * len(by_offsets)
    # Whatever goes wrong in one place is right again soon.
    assert by_decoding[-2] == by_offsets[-2] == 2999


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_an_unknown_word_as_long_as_a_book(name):
    fast = TOKENIZERS[name]()
    text = "The man " + "日本語" * 2000 + " has broken the glass"
    assert words_of(WithoutOffsets(fast), text) == words_of(fast, text)


class Counting(WithoutOffsets):
    """Counts the tokens that are decoded."""

    n_decoded = 0

    def decode(self, ids, **kwargs):
        self.n_decoded += len(ids)
        return self._tokenizer.decode(ids, **kwargs)


def test_work_grows_with_the_length_of_the_text_and_no_faster():
    tokenizer = Counting(TOKENIZERS["gpt2"]())
    text = text_of(2000)
    ids = tokenizer(text)["input_ids"]
    spans_by_decoding(tokenizer, text, ids)
    assert tokenizer.n_decoded < 8 * len(ids)
    # Nor where nothing that is decoded can be read.
    tokenizer.n_decoded = 0
    spans_by_decoding(tokenizer, "x", tokenizer("é" * 2000)["input_ids"][1::2])
    assert tokenizer.n_decoded < 30 * 2000


def test_what_is_cut_off_is_not_decoded():
    tokenizer = Counting(TOKENIZERS["gpt2"]())
    text = text_of(2000)
    [cut] = TextEncoder(tokenizer, 20)([text])
    assert tokenizer.n_decoded < 200
    [by_offsets] = TextEncoder(TOKENIZERS["gpt2"](), 20)([text])
    assert cut.input_ids == by_offsets.input_ids
    assert (cut.n_cut, cut.cut_start) == (by_offsets.n_cut, by_offsets.cut_start)
    assert words_of_encoding(text, cut) == words_of_encoding(text, by_offsets)


def test_a_tokenizer_that_has_no_fast_kind():
    """ByT5's tokens are the bytes of UTF-8, three special ids before them."""
    tokenizer = transformers.ByT5Tokenizer()
    text = "Das Café öffnet 😀"
    [encoding] = TextEncoder(tokenizer, 512)([text])
    sizes = [len(character.encode()) for character in text]
    words = words_of_encoding(text, encoding)
    expected = [
        word for place, size in enumerate(sizes) for word in [text[:place].count(" ")] * size
    ]
    # A space goes with the word behind it.
    at = 0
    for character, size in zip(text, sizes, strict=True):
        if character == " ":
            expected[at] += 1
        at += size
    assert words == [*expected, -1]
