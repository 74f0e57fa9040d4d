"""Texts of many scripts, and what a tokenizer of any class leaves of them."""

from __future__ import annotations

import unicodedata

from tokenizer_classes import BUILT, build
from tokenizer_kinds import KINDS, tokenizer_of_kind

TEXTS = [
    "the man has always",
    "책을 읽었다 .",
    "Well… the tea",
    "Я читаю книгу",
    "der Bär aß süße Früchte",
    "ﬁne ½ tea… ﬁ … ½½ é",
    "“the” tea… “so…” ñ",
    "中文 책 the a中b",
]
ALL = [*((build, name) for name in BUILT), *((tokenizer_of_kind, name) for name in KINDS)]
ALL = [case for case in ALL if case[1] != "CanineTokenizer"]  # which has no names for letters


def letters(text):
    """What tokenizers leave of a text, whatever they do to case, accents, width and space."""
    kept = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in kept if not (c.isspace() or unicodedata.combining(c)))


def decoded(tokenizer, ids):
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return letters(text.replace("##", "").replace("@@", ""))


def all_known(tokenizer, text):
    """Whether a vocabulary has all of a text and changes no more than `letters` does."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return tokenizer.unk_token_id not in ids and decoded(tokenizer, ids) == letters(text)
