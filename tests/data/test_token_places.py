"""The characters that each token stands for: for every tokenizer class, over scripts."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from families import TOKENIZERS
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.data.words import align, word_spans
from finetune_lm.models.vocabulary import Vocabulary
from helpers import WithoutOffsets, places_of
from texts_of_classes import ALL, TEXTS, all_known, decoded, letters
from tokenizer_classes import build
from tokenizer_kinds import tokenizer_of_kind


def placed(tokenizer, text, max_length=512):
    """The ids of a text's own tokens, and what `align` says of each."""
    [encoding] = TextEncoder(tokenizer, max_length)([text])
    found = align([text], places_of(encoding), [word_spans(text)])
    of_text = found.word_num >= 0
    assert (found.start[~of_text] == -1).all()
    assert (found.end[~of_text] == -1).all()
    return np.array(encoding.input_ids)[of_text], type(found)(*(each[of_text] for each in found))


def together(found):
    """Tokens that stand for the same characters, in groups of their numbers."""
    groups: list[list[int]] = []
    end = 0
    for i, (a, b) in enumerate(zip(found.start.tolist(), found.end.tolist(), strict=True)):
        if groups and (a < end or a == b):
            groups[-1].append(i)
        else:
            groups.append([i])
        end = max(end, b)
    return groups


def assert_tokens_are_what_they_cover(tokenizer, text):
    ids, found = placed(tokenizer, text)
    assert (np.diff(found.start) >= 0).all()
    assert (found.end >= found.start).all()
    for a, b in zip(found.start.tolist(), found.end.tolist(), strict=True):
        assert text[a:b] == text[a:b].strip()
    for group in together(found):
        a, b = int(found.start[group[0]]), int(found.end[group].max())
        assert decoded(tokenizer, ids[group].tolist()) == letters(text[a:b])
    # Of each word nothing is left out.
    for number, (a, b) in enumerate(word_spans(text)):
        mine = found.word_num == number
        assert (found.start[mine].min(), found.end[mine].max()) == (a, b)


@pytest.mark.parametrize(("make", "name"), ALL, ids=[name for _, name in ALL])
def test_each_token_is_the_characters_from_its_start_to_its_end(make, name):
    tokenizer = make(name)
    n_looked_at = 0
    for text in [*TEXTS, "the  man has ", "a b"]:
        if all_known(tokenizer, text):
            assert_tokens_are_what_they_cover(tokenizer, text)
            n_looked_at += 1
    # What CLVP decodes to is never the text again.
    assert n_looked_at or name == "ClvpTokenizer"


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_decoding_finds_the_characters_that_offsets_tell(name):
    tokenizer = TOKENIZERS[name]()
    for text in ("The man has always broken the glass.", "A naïve café-owner said: “so what?” 😀 "):
        by_offsets, by_decoding = (
            placed(each, text)[1] for each in (tokenizer, WithoutOffsets(tokenizer))
        )
        for ours, theirs in zip(by_decoding, by_offsets, strict=True):
            assert ours.tolist() == theirs.tolist()


def test_each_piece_of_a_character_is_that_character():
    for make, name in ((tokenizer_of_kind, "gpt2"), (build, "ByT5Tokenizer")):
        tokenizer = make(name)
        ids, found = placed(tokenizer, "a 中b")
        [*_, last] = together(found)
        pieces = [i for i in range(len(ids)) if (found.start[i], found.end[i]) == (2, 3)]
        assert len(pieces) == 3, name
        assert (found.start[last[-1]], found.end[last[-1]]) == (3, 4)
        # One that is cut within stands for none of it, and the word is not whole.
        [cut] = TextEncoder(tokenizer, 512)(["a 中"])
        _, found = placed(tokenizer, "a 中", max_length=len(cut.input_ids) - 1)
        assert found.word_num[-1] == 1
        assert found.end[-1] == found.start[-1] == 2
        assert not found.is_word[-1]


def test_white_space_alone_is_no_character_of_a_word():
    tokenizer = TOKENIZERS["gpt2"]()
    ids, found = placed(tokenizer, "the  man \n")
    texts = [tokenizer.decode([i]) for i in ids]
    blank = [i for i, each in enumerate(texts) if not each.strip()]
    assert blank
    assert [(found.start[i], found.end[i]) for i in blank] == [(5, 5), *[(8, 8)] * (len(blank) - 1)]
    assert found.word_num[blank].tolist() == [1] * len(blank)


def test_characters_that_a_tokenizer_drops_go_to_its_neighbours():
    """BERT drops accents and control characters."""
    tokenizer = TOKENIZERS["bert"]()
    text = "\u200bthe\u0301 man\u00ad has"
    assert unicodedata.category("\u00ad") == "Cf"
    ids, found = placed(tokenizer, text)
    for number, (a, b) in enumerate(word_spans(text)):
        mine = found.word_num == number
        assert (found.start[mine].min(), found.end[mine].max()) == (a, b)
    assert not Vocabulary(tokenizer).is_unknown(ids).any()


def test_tokens_of_several_words_belong_to_the_last():
    """As a vocabulary has them whose entries reach over white space."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.Unigram([("<unk>", 0.0), ("of the", -1.0), (" cat", -1.0)], 0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    ids, found = placed(tokenizer, "of the cat")
    assert len(ids) == 2
    assert list(zip(found.start.tolist(), found.end.tolist(), strict=True)) == [(0, 6), (7, 10)]
    assert found.word_num.tolist() == [1, 2]
    assert found.straddles.tolist() == [True, False]
    assert found.is_word.tolist() == [False, True]


def test_which_tokens_are_unknown():
    bert = Vocabulary(TOKENIZERS["bert"]())
    ids = np.array(TOKENIZERS["bert"]()("The 😀 man")["input_ids"])
    assert [bool(b) for b in bert.is_unknown(ids)] == [
        i == bert._tokenizer.unk_token_id for i in ids
    ]
    assert bert.is_unknown(ids).sum() == 1
    # GPT-2 calls its end of text its unknown token too, and meets none.
    gpt2 = TOKENIZERS["gpt2"]()
    gpt2.unk_token = gpt2.eos_token
    ids = np.array([*gpt2("The 😀 man")["input_ids"], gpt2.eos_token_id])
    assert not Vocabulary(gpt2).is_unknown(ids).any()
