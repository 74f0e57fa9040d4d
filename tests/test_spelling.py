"""How a word is spelled inside a sentence."""

from __future__ import annotations

import copy

import pytest

from families import TOKENIZERS
from finetune_lm.models.spelling import spelling_in_sentence, spellings
from finetune_lm.models.vocabulary import Vocabulary
from helpers import WithoutOffsets

# "crined" is in no vocabulary, "water" in all of them behind a space.
IN_SENTENCE = {
    "gpt2": (["Ġwater"], ["Ġc", "r", "i", "n", "ed"]),
    "llama": (["▁water"], ["▁c", "r", "i", "n", "ed"]),
    "qwen": (["Ġwater"], ["Ġc", "r", "i", "n", "ed"]),
    "bert": (["water"], None),  # its pieces differ from training to training
    "roberta": (["Ġwater"], ["Ġc", "r", "i", "n", "ed"]),
    "t5": (["▁water"], ["▁c", "r", "i", "n", "e", "d"]),
    "bart": (["Ġwater"], ["Ġc", "r", "i", "n", "ed"]),
}


def pieces(word, tokenizer):
    spelling = spelling_in_sentence(word, tokenizer, Vocabulary(tokenizer))
    return tokenizer.convert_ids_to_tokens(list(spelling))


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("wrap", [lambda tokenizer: tokenizer, WithoutOffsets])
def test_words_between_words(name, wrap):
    tokenizer = wrap(TOKENIZERS[name]())
    one, several = IN_SENTENCE[name]
    assert pieces("water", tokenizer) == one
    assert pieces("crined", tokenizer) == (several or tokenizer.tokenize("crined"))
    assert len(pieces("crined", tokenizer)) > 1


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("wrap", [lambda tokenizer: tokenizer, WithoutOffsets])
def test_a_token_that_was_added_is_the_word(name, wrap):
    tokenizer = copy.deepcopy(TOKENIZERS[name]())
    tokenizer.add_tokens(["crined"])
    assert pieces("crined", wrap(tokenizer)) == ["crined"]


def test_uncased_tokenizers_have_no_other_word():
    assert pieces("Water", TOKENIZERS["bert"]()) == ["water"]
    assert pieces("Water", TOKENIZERS["gpt2"]()) != ["Ġwater"]


def test_it_is_one_of_the_spellings_that_are_looked_for_in_texts():
    tokenizer = TOKENIZERS["gpt2"]()
    vocabulary = Vocabulary(tokenizer)
    found = spellings(["man"], tokenizer, vocabulary)
    assert [tokenizer.convert_ids_to_tokens(list(s)) for s in found] == [["man"], ["Ġman"]]
    assert spelling_in_sentence("man", tokenizer, vocabulary) == found[1]


def test_a_tokenizer_without_offsets_finds_words_behind_spaces_too():
    tokenizer = WithoutOffsets(TOKENIZERS["roberta"]())
    found = spellings(["man"], tokenizer, Vocabulary(tokenizer))
    assert [tokenizer.convert_ids_to_tokens(list(s)) for s in found] == [["man"], ["Ġman"]]
