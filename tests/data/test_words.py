from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from families import TASKS as FAMILY_TASKS
from families import TOKENIZERS
from finetune_lm.data.label_words import LabelWords
from finetune_lm.data.ragged_arrays import Ragged
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.data.words import align, word_spans
from finetune_lm.models.vocabulary import Vocabulary

SENTENCES = [
    "The man has always broken the glass.",
    "The man's dog isn't  here;   it ran (away).",
    "Naïve cafés — “so what?” — Straße ½ price…",
    "emoji 😀 and 👩‍👩‍👧 families",
    " leading and trailing blanks  ",
    "tabs\tand\u00a0no-break spaces",
    "unbelievable-story-telling antidisestablishmentarianism",
    "中文 words and русский текст",
    "combining e\u0301 accents",
    "a",
    "?",
]


def words_of(name, text):
    """Each word with the texts of its tokens, for a family's tokenizer."""
    tokenizer = TOKENIZERS[name]()
    [encoding] = TextEncoder(tokenizer, 512, add_start=FAMILY_TASKS[name][0] != "seq2seq")([text])
    words = LabelWords.of_texts([text], Ragged.of([encoding.char_start]), [encoding.cut_start])
    return encoding, words


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("text", SENTENCES)
def test_every_word_is_there_once_and_in_order(name, text):
    encoding, words = words_of(name, text)
    nums = [n for n in words.word_num.values.tolist() if n >= 0]
    assert nums == sorted(nums)
    assert sorted(set(nums)) == list(range(len(text.split())))
    by_num = dict(zip(words.word_num.values.tolist(), words.words, strict=True))
    assert [by_num[i] for i in range(len(text.split()))] == text.split()
    # Only start and end tokens are outside of words.
    tokenizer = TOKENIZERS[name]()
    specials = {
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
    }
    for token, num in zip(encoding.input_ids, words.word_num.values.tolist(), strict=True):
        assert (num == -1) == (token in specials)


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("text", SENTENCES[:3])
def test_tokens_are_of_the_word_that_they_spell(name, text):
    """An independent check: a token's text, where it is not changed, is part of its word."""
    encoding, words = words_of(name, text)
    vocabulary = Vocabulary(TOKENIZERS[name]())
    for token, word in zip(encoding.input_ids, words.words, strict=True):
        piece = vocabulary.join([token]).removeprefix("##")
        if word is not None and piece.isascii() and "<" not in piece and "[" not in piece:
            plain = word if name != "bert" else word.lower()
            assert piece in plain or not word.isascii()


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("bert", "The un[MASK]able story", "un[MASK]able"),
        ("roberta", "The un<mask>able", "un<mask>able"),
    ],
)
def test_a_mask_inside_a_word(name, text, word):
    encoding, words = words_of(name, text)
    mask = TOKENIZERS[name]().mask_token_id
    place = encoding.input_ids.index(mask)
    assert words.words[place] == word
    assert words.word_num.values[place] == 1
    assert not words.is_word[place]
    assert words.token_num_in_word.values[place] > 0


def test_numbers_within_words():
    words = LabelWords.of_texts(["ab c  def"], Ragged.of([[-1, 0, 1, 3, 6, 7, 8, -1]]), [-1])
    assert words.word_num.values.tolist() == [-1, 0, 0, 1, 2, 2, 2, -1]
    assert words.token_num_in_word.values.tolist() == [-1, 0, 1, 0, 0, 1, 2, -1]
    assert words.is_word.tolist() == [False, False, False, True, False, False, False, False]


def test_words_do_not_run_on_into_the_next_text():
    words = LabelWords.of_texts(["a", "b"], Ragged.of([[0], [0, 1]]), [-1, -1])
    assert words.token_num_in_word.values.tolist() == [0, 0, 1]
    assert words.is_word.tolist() == [True, False, False]
    assert words.words.tolist() == ["a", "b", "b"]


def test_a_word_that_is_cut_is_not_one_token():
    whole = LabelWords.of_texts(["ab cd"], Ragged.of([[0, 3]]), [-1])
    cut = LabelWords.of_texts(["ab cd"], Ragged.of([[0, 3]]), [4])
    assert whole.is_word.tolist() == [True, True]
    assert cut.is_word.tolist() == [True, False]


@given(st.text("ab ½\t😀", min_size=1).filter(str.strip), st.data())
def test_alignment_of_any_text(text, data):
    starts = data.draw(st.lists(st.integers(0, len(text)), min_size=1).map(sorted))
    nums = align(text, starts).tolist()
    spans = word_spans(text)
    for start, num in zip(starts, nums, strict=True):
        begin, end = spans[num]
        # In the word, in the space before it, or behind the last word.
        assert start < end or num == len(spans) - 1
        assert num == 0 or start >= spans[num - 1][1]
        assert begin >= 0


def test_words_of_ids_that_no_text_is_given_for():
    tokenizer = TOKENIZERS["t5"]()
    ids = tokenizer("<extra_id_0>the man<extra_id_1> drank it <extra_id_2>")["input_ids"]
    words = LabelWords.of_ids(Vocabulary(tokenizer), [np.array(ids)])
    seen = dict.fromkeys(zip(words.word_num.values.tolist(), words.words, strict=True))
    assert [w for _, w in seen if w] == [
        "<extra_id_0>",
        "the",
        "man",
        "<extra_id_1>",
        "drank",
        "it",
        "<extra_id_2>",
    ]
    assert words.word_num.values[-1] == -1  # </s>


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_words_of_ids_agree_with_words_of_the_text(name):
    text = "The women have often drunk the water"
    encoding, by_text = words_of(name, text)
    by_ids = LabelWords.of_ids(Vocabulary(TOKENIZERS[name]()), [np.array(encoding.input_ids)])
    assert by_ids.word_num.values.tolist() == by_text.word_num.values.tolist()
    lower = str.lower if name == "bert" else str
    assert [w and lower(w) for w in by_text.words] == list(by_ids.words)
