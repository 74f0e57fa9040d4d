"""The text of a token in the tables, as in the middle of a text, for every tokenizer class."""

from __future__ import annotations

import numpy as np
import pytest

from finetune_lm.models.vocabulary import Vocabulary
from tokenizer_classes import BUILT, build
from tokenizer_kinds import KINDS, tokenizer_of_kind

ALL = [*((build, name) for name in BUILT), *((tokenizer_of_kind, name) for name in KINDS)]
ALL = [case for case in ALL if case[1] != "CanineTokenizer"]
TEXT = "the man has always broken the glass"


@pytest.mark.parametrize(("make", "name"), ALL, ids=[name for _, name in ALL])
def test_the_space_of_a_token_is_kept(make, name):
    """The entries of a vocabulary mark it: by ▁ in SentencePiece, by Ġ in byte-level BPE."""
    tokenizer = make(name)
    ids = np.array(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    entries = tokenizer.convert_ids_to_tokens(ids.tolist())
    texts = Vocabulary(tokenizer).texts(ids).tolist()
    if name == "MyT5Tokenizer":  # the entries are hexadecimal
        entries = [bytes.fromhex(entry).decode() for entry in entries]
    for entry, text in zip(entries, texts, strict=True):
        plain = entry.replace("▁", " ").replace("Ġ", " ")
        # A mark at the end of an entry is no space before it.
        assert text.removesuffix("</w>").rstrip() == plain.removesuffix("</w>").rstrip()
    if tokenizer.unk_token_id not in ids and any(
        mark in entry for entry in entries for mark in "▁Ġ"
    ):
        assert "".join(texts).lstrip() == TEXT


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "llama-legacy", "gemma", "t5", "tiny-lm", "tiny-seq2seq"]
)
def test_texts_of_tokens_put_together_are_the_text(name):
    tokenizer = tokenizer_of_kind(name)
    ids = np.array(tokenizer("see the man", add_special_tokens=False)["input_ids"])
    assert "".join(Vocabulary(tokenizer).texts(ids)).endswith("see the man")


@pytest.mark.parametrize("name", ["bert", "tiny-mlm"])
def test_there_are_no_spaces_in_some_vocabularies(name):
    tokenizer = tokenizer_of_kind(name)
    ids = np.array(tokenizer("see the man", add_special_tokens=False)["input_ids"])
    assert "".join(Vocabulary(tokenizer).texts(ids)).replace("##", "") == "seetheman"


@pytest.mark.parametrize(("make", "name"), ALL, ids=[name for _, name in ALL])
def test_entries_are_decoded_together_as_one_by_one(make, name):
    tokenizer = make(name)
    every = [[i] for i in sorted(set(tokenizer.get_vocab().values()))]
    expected = []
    for row in every:
        try:
            expected += tokenizer.batch_decode([row], clean_up_tokenization_spaces=False)
        except KeyError:  # what not even its own class can decode
            expected.append("")
    assert Vocabulary(tokenizer)._decode(every) == expected
