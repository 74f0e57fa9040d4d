"""Which tokens spell a word, wherever in a text it stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from finetune_lm.errors import UserError
from finetune_lm.models.vocabulary import Vocabulary

Spelling = tuple[int, ...]

# What may stand around a word. Tokenizers spell a word differently at the start of a text, behind a
# space and behind an opening mark, and some spell it differently before a mark.
_BEFORE = ("", "a ", "(", "a (", '"', 'a "', "-", "a “")
_BEHIND = ("", " a", ".", ",", ")", "'s")
_CONTEXTS = tuple((before, behind) for before in _BEFORE for behind in _BEHIND)


def spellings(words: Iterable[str], tokenizer: Any, vocabulary: Vocabulary) -> list[Spelling]:
    """All sequences of tokens that spell some words, the longest first.

    Args:
        words: The words, as they stand in a text; a word may be several with spaces between them.
        tokenizer: The tokenizer.
        vocabulary: Its entries.
    """
    found: dict[Spelling, None] = {}
    for word in words:
        if word not in vocabulary.spellings:
            vocabulary.spellings[word] = _spellings(word, tokenizer, vocabulary)
        found |= dict.fromkeys(vocabulary.spellings[word])
    return sorted(found, key=len, reverse=True)


def spelling_in_sentence(word: str, tokenizer: Any, vocabulary: Vocabulary) -> Spelling | None:
    """The tokens that spell a word inside a sentence, between two others.

    Where a tokenizer has a token of its own for a word behind a space, as byte-level ones and
    SentencePiece have, that is the one.

    Args:
        word: The word.
        tokenizer: The tokenizer.
        vocabulary: Its entries.

    Returns:
        The ids of its tokens; None if a token is partly the word and partly what is around it.
    """
    # Without offsets it cannot be told where a word ends.
    context = ("a ", " a" if tokenizer.is_fast else "")
    return next(iter(_spellings(word, tokenizer, vocabulary, [context])), None)


def spelling_at_beginning(word: str, tokenizer: Any, vocabulary: Vocabulary) -> Spelling | None:
    """The tokens that spell a word at the beginning of a text, before another one.

    The arguments and the result are those of `spelling_in_sentence`.
    """
    context = ("", " a" if tokenizer.is_fast else "")
    return next(iter(_spellings(word, tokenizer, vocabulary, [context])), None)


def _spellings(
    word: str,
    tokenizer: Any,
    vocabulary: Vocabulary,
    contexts: Sequence[tuple[str, str]] = _CONTEXTS,
) -> list[Spelling]:
    texts = [before + word + behind for before, behind in contexts]
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=bool(tokenizer.is_fast),
        verbose=False,
    )
    found: dict[Spelling, None] = {}
    for i, (before, behind) in enumerate(contexts):
        ids = list(encoded["input_ids"][i])
        if tokenizer.is_fast:
            begin, end = len(before), len(before) + len(word)
            spans = encoded["offset_mapping"][i]
            inside = [_within(texts[i], span, begin, end) for span in spans]
            if None in inside:  # a token that is partly the word and partly what is around it
                continue
            spelling = [token for token, is_in in zip(ids, inside, strict=True) if is_in]
        else:
            # A space goes with the word behind it.
            around = tokenizer(before.rstrip(), add_special_tokens=False)["input_ids"]
            if behind or ids[: len(around)] != list(around):
                continue
            spelling = ids[len(around) :]
        spelling = _without_space(spelling, tokenizer, vocabulary)
        if spelling:
            found[tuple(spelling)] = None
    return list(found)


def _within(text: str, span: tuple[int, int], begin: int, end: int) -> bool | None:
    """Whether a token is of the word from ``begin`` to ``end``; None if it is only partly.

    The space before a word belongs to it, as tokenizers have it.
    """
    first, last = span
    while first < last and text[first].isspace():
        first += 1
    if first == last:  # nothing but space: of the word if that follows at once
        return last == begin or (last == 0 and begin == 0)
    if last <= begin or first >= end:
        return False
    return True if begin <= first and last <= end else None


def _without_space(spelling: list[int], tokenizer: Any, vocabulary: Vocabulary) -> list[int]:
    """A token that was added to a vocabulary leaves the space before it to a token of its own."""
    if len(spelling) > 1 and spelling[1] in tokenizer.get_added_vocab().values():
        blank = not str(vocabulary.texts(np.array(spelling[:1]))[0]).strip()
        return spelling[1:] if blank else spelling
    return spelling


def checked_words(words: Any, name: str) -> list[str]:
    """Words to look for as a list without doubles; one word may come without a list around it.

    Raises:
        UserError: If they are no words, or there is none.
    """
    listed = [words] if isinstance(words, str) else words
    if not isinstance(listed, Sequence) or not listed:
        raise UserError(f"{name} must be a list of words but got {words!r}.")
    for word in listed:
        if not isinstance(word, str):
            raise UserError(
                f"{name} must be a list of words but has {word!r} in it. "
                f"Put quotes around a number that is meant as a word: '\"{word}\"'."
            )
        if not word.strip():
            raise UserError(f"{name} must be a list of words but one of them is empty.")
    return list(dict.fromkeys(word.strip() for word in listed))
