"""Characters that nobody sees are of the word that they stand in; they do not cut it."""

from __future__ import annotations

import sys
import unicodedata

import numpy as np
import pytest

from finetune_lm.data_preprocessing import expand_with_masks, mask_words
from finetune_lm.models.vocabulary import Vocabulary
from masking import encode
from tokenizer_classes import BUILT, build
from tokenizer_kinds import KINDS, tokenizer_of_kind

INVISIBLE = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) == "Cf"]
KNOWN = ["\u200c", "\u200d", "\u00ad", "\u2060", "\ufeff"]
ALL = [*((build, name) for name in BUILT), *((tokenizer_of_kind, name) for name in KINDS)]
ALL = [case for case in ALL if case[1] != "CanineTokenizer"]


def tokens(tokenizer, character):
    """What a word made longer becomes; None where the tokenizer does not know the character.

    Some make a space of it, which is between two words for them.
    """
    ids = tokenizer(f"man{character}kind", add_special_tokens=False, verbose=False)["input_ids"]
    if None in ids or tokenizer.unk_token_id in ids:
        return None
    decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()
    return None if "<unk>" in decoded or any(c.isspace() for c in decoded) else ids


def test_there_are_many():
    assert len(INVISIBLE) > 150
    assert set(KNOWN) < set(INVISIBLE)


@pytest.mark.parametrize(("make", "name"), ALL, ids=[name for _, name in ALL])
def test_a_word_made_longer_is_one_word(make, name):
    tokenizer = make(name)
    vocabulary = Vocabulary(tokenizer)
    plain = tokens(tokenizer, "")
    if plain is None or not vocabulary.continues(np.array([plain]), after_space=True)[0, 1:].all():
        pytest.skip("it does not know the letters, or marks the end of a word, not its beginning")
    for character in INVISIBLE if name in ("gpt2", "llama", "roberta", "ByT5Tokenizer") else KNOWN:
        ids = tokens(tokenizer, character)
        if ids is not None:
            continues = vocabulary.continues(np.array([ids]), after_space=True)[0]
            # A space may be a token of its own, before the word.
            assert continues[1:].all(), hex(ord(character))


@pytest.mark.parametrize("character", KNOWN)
@pytest.mark.parametrize("name", ["roberta", "bert", "tiny-mlm"])
def test_masking_does_not_cut_it(name, character):
    tokenizer = tokenizer_of_kind(name)
    for text in (f"the man{character}kind drank", f"the kind{character}man drank"):
        inputs = encode(tokenizer, [text])
        if tokenizer.unk_token_id in inputs["input_ids"]:
            continue
        found = mask_words(inputs, tokenizer, ["man"])
        assert (found["labels"] == -100).all()
        assert (found["input_ids"] == inputs["input_ids"]).all()
        # With a token of a word the later ones of the word are hidden, up to its end.
        rows = expand_with_masks(inputs, tokenizer, within_word_l2r=True)["input_ids"]
        n_word = len(tokenizer(f" man{character}kind", add_special_tokens=False)["input_ids"])
        n_hidden = (rows == tokenizer.mask_token_id).sum(dim=1)
        assert n_hidden.max() >= n_word
