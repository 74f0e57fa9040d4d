from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from families import TASKS as FAMILY_TASKS
from families import TOKENIZERS
from finetune_lm.data.label_words import LabelWords
from finetune_lm.data.ragged_arrays import Ragged
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.data.units import FittedUnits
from finetune_lm.data.words import TokenPlaces, align, word_spans
from finetune_lm.models.vocabulary import Vocabulary
from helpers import places_of

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
    return encoding, LabelWords.of_texts([text], places_of(encoding), [FittedUnits()]).of_tokens


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("text", SENTENCES)
def test_every_word_is_there_once_and_in_order(name, text):
    encoding, words = words_of(name, text)
    nums = [n for n in words.word_num.tolist() if n >= 0]
    assert nums == sorted(nums)
    assert sorted(set(nums)) == list(range(len(text.split())))
    by_num = dict(zip(words.word_num.tolist(), words.words, strict=True))
    assert [by_num[i] for i in range(len(text.split()))] == text.split()
    # Only start and end tokens are outside of words.
    tokenizer = TOKENIZERS[name]()
    specials = {
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
    }
    for token, num in zip(encoding.input_ids, words.word_num.tolist(), strict=True):
        assert (num == -1) == (token in specials)


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("text", SENTENCES[:3])
def test_tokens_are_of_the_word_that_they_spell(name, text):
    """An independent check: a token's text, where it is not changed, is part of its word."""
    encoding, words = words_of(name, text)
    vocabulary = Vocabulary(TOKENIZERS[name]())
    for token, word in zip(encoding.input_ids, words.words, strict=True):
        piece = vocabulary.joined([[token]])[0].removeprefix("##")
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
    assert words.word_num[place] == 1
    assert not words.is_word[place]
    assert words.token_num_in_word[place] > 0


def of_texts(texts, starts, ends, cuts=None):
    cuts = np.array(cuts or [-1] * len(texts))
    places = TokenPlaces(Ragged.of(starts), Ragged.of(ends), cuts)
    return LabelWords.of_texts(texts, places, [FittedUnits()] * len(texts)).of_tokens


def test_numbers_within_words():
    words = of_texts(["ab c  def"], [[-1, 0, 1, 3, 6, 7, 8, -1]], [[-1, 1, 2, 4, 7, 8, 9, -1]])
    assert words.word_num.tolist() == [-1, 0, 0, 1, 2, 2, 2, -1]
    assert words.token_num_in_word.tolist() == [-1, 0, 1, 0, 0, 1, 2, -1]
    assert words.is_word.tolist() == [False, False, False, True, False, False, False, False]


def test_words_do_not_run_on_into_the_next_text():
    words = of_texts(["a", "b "], [[0], [0, 1]], [[1], [1, 2]])
    assert words.token_num_in_word.tolist() == [0, 0, 1]
    assert words.is_word.tolist() == [True, False, False]
    assert words.words.tolist() == ["a", "b", "b"]


def test_a_word_that_is_cut_is_not_one_token():
    whole = of_texts(["ab cd"], [[0, 3]], [[2, 5]])
    cut = of_texts(["ab cd"], [[0, 3]], [[2, 4]], [4])
    assert whole.is_word.tolist() == [True, True]
    assert cut.is_word.tolist() == [True, False]


def places_by_hand(text, tokens, cut):
    """What `align` says, character by character."""
    words = word_spans(text)
    of_token = [
        {i for i in range(a, b) if not text[i].isspace()} if a >= 0 else None for a, b in tokens
    ]
    nums = []
    for (a, _), places in zip(tokens, of_token, strict=True):
        if places is None:
            nums.append(-1)
        elif places:
            nums.append(
                max(n for n, (begin, end) in enumerate(words) for i in places if begin <= i < end)
            )
        else:
            later = [n for n, (_, end) in enumerate(words) if end > a]
            nums.append(later[0] if later else len(words) - 1)
    return nums


@given(st.text("ab ½\t😀", min_size=1).filter(str.strip), st.data())
def test_tokens_of_a_word_tile_it(text, data):
    """Any cuts of a text are tokens; what was dropped belongs to its neighbours."""
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    edges = [0, *cuts, len(text)]
    tokens = list(itertools.pairwise(edges))
    dropped = data.draw(st.sets(st.integers(0, len(text) - 1), max_size=2))
    tokens = [(a, b) for a, b in tokens if not set(range(a, b)) & dropped] or [(0, 0)]
    places = TokenPlaces(
        Ragged.of([[a for a, _ in tokens]]), Ragged.of([[b for _, b in tokens]]), np.array([-1])
    )
    spans = word_spans(text)
    found = align([text], places, [spans])
    assert (
        found.word_num.tolist() == np.maximum.accumulate(places_by_hand(text, tokens, -1)).tolist()
    )
    rows = list(zip(*(column.tolist() for column in found), strict=True))
    for number, (start, end) in enumerate(spans):
        mine = [row for row in rows if row[0] == number]
        covered = {i for row in rows for i in range(row[1], row[2]) if not text[i].isspace()}
        if mine:
            # All of the word is covered, once, unless another word's token reaches into it.
            assert set(range(max(start, mine[0][1]), end)) <= covered
            assert mine[0][3] == (mine[0][1] < start)
            assert mine[0][1] <= start
            is_whole = mine[0][1] == start and mine[-1][2] == end
            assert [row[4] for row in mine] == [is_whole and len(mine) == 1] * len(mine)
            for before, after in itertools.pairwise(mine):
                assert before[2] == after[1] or text[before[2] : after[1]].isspace()


def test_words_of_ids_that_no_text_is_given_for():
    tokenizer = TOKENIZERS["t5"]()
    ids = tokenizer("<extra_id_0>the man<extra_id_1> drank it <extra_id_2>")["input_ids"]
    words = LabelWords.of_ids(Vocabulary(tokenizer), [np.array(ids)]).of_tokens
    seen = dict.fromkeys(zip(words.word_num.tolist(), words.words, strict=True))
    assert [w for _, w in seen if w] == [
        "<extra_id_0>",
        "the",
        "man",
        "<extra_id_1>",
        "drank",
        "it",
        "<extra_id_2>",
    ]
    assert words.word_num[-1] == -1  # </s>


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_words_of_ids_of_several_sequences_are_those_of_each(name):
    tokenizer = TOKENIZERS[name]()
    texts = ["", "The women have often drunk", "glass.", "", "unbelievable water"]
    vocabulary = Vocabulary(tokenizer)
    special = tokenizer.sep_token_id if name == "bert" else tokenizer.eos_token_id
    sequences = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    # What frames a text, at its beginning, in its middle and alone.
    sequences += [[special, *sequences[1]], [*sequences[1], special, *sequences[2]], [special]]
    sequences = [np.array(ids, dtype=np.int64) for ids in sequences]
    together = LabelWords.of_ids(vocabulary, sequences)
    for number, ids in enumerate(sequences):
        alone = LabelWords.of_ids(vocabulary, [ids])
        place = np.arange(len(ids))
        for a, b in zip(
            together.at(np.full(len(ids), number), place), alone.of_tokens, strict=True
        ):
            assert a.tolist() == b.tolist()
    assert together.of_tokens.word_num.min() == -1
    assert len(LabelWords.of_ids(vocabulary, [])) == 0


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_words_of_ids_agree_with_words_of_the_text(name):
    text = "The women have often drunk the water"
    encoding, by_text = words_of(name, text)
    by_ids = LabelWords.of_ids(Vocabulary(TOKENIZERS[name]()), [np.array(encoding.input_ids)])
    by_ids = by_ids.of_tokens
    assert by_ids.word_num.tolist() == by_text.word_num.tolist()
    lower = str.lower if name == "bert" else str
    assert [w and lower(w) for w in by_text.words] == list(by_ids.words)
