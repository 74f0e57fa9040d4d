"""Trying out whether a tokenizer reads a new word as it should, before it is let into a model."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from finetune_lm.errors import UserError
from finetune_lm.vocabulary import spelled

# What stands before and behind a new word.
_IN_SENTENCES = (
    ("", " is old."),
    ("the man ", " the water."),
    ("the man ", ", and then"),
    ("the man, ", "."),
    ("the man ", "'s"),
    ("the man ", ""),
)
# Here tokenizers may cut an ordinary word and its neighbour differently from a new one.
_BESIDE_MARKS = (('he said "', '".'), ("the (", ") man"), ("so-", "-so"))
_IN_LONGER_WORDS = (("re", "s"), ("", "s"), ("the un", " man"), ("the ", "ly, so"))


def check_reading(before: Any, after: Any, word: str, ids: Collection[int]) -> None:
    """See that a tokenizer reads a new word as one token, and all around it as before.

    Args:
        before: The tokenizer that does not know the word.
        after: The same that does.
        word: The word.
        ids: Its tokens, of which each place in a text has one.

    Raises:
        UserError: With a text, if not.
    """
    for text, begin in _texts(word, _IN_SENTENCES):
        old, new = _encoded(before, text), _encoded(after, text)
        span = (begin, begin + len(word))
        if not (
            _is_once(new, ids)
            and _same_text(before, after, old, new)
            and _same_around(text, span, old, new, ids)
        ):
            _refuse(after, word, text, new["input_ids"])
    for text, _ in _texts(word, _BESIDE_MARKS):
        old, new = _encoded(before, text), _encoded(after, text)
        if not (_is_once(new, ids) and _same_text(before, after, old, new)):
            _refuse(after, word, text, new["input_ids"])
    if re.fullmatch(r"\w.*\w|\w", word):
        for text, _ in _texts(word, _IN_LONGER_WORDS):
            old, new = _encoded(before, text), _encoded(after, text)
            if dict(old) != dict(new):
                _refuse(after, word, text, new["input_ids"])


def _texts(word: str, places: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """Texts with the word in them, and the character where it begins."""
    return [(before + word + behind, len(before)) for before, behind in places]


def _encoded(tokenizer: Any, text: str) -> Any:
    return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)


def _is_once(new: Any, ids: Collection[int]) -> bool:
    return sum(token in ids for token in new["input_ids"]) == 1


def _same_text(before: Any, after: Any, old: Any, new: Any) -> bool:
    """Whether decoding gives the same text; what was unknown to the tokenizer was lost in it."""
    if before.unk_token_id in old["input_ids"]:
        return True
    old_text, new_text = (
        str(tokenizer.decode(encoded["input_ids"], clean_up_tokenization_spaces=False))
        for tokenizer, encoded in ((before, old), (after, new))
    )
    # WordPiece decodes a hyphen within a word with spaces around it, but not that of a new word.
    drops_spaces = type(before.backend_tokenizer.model).__name__ == "WordPiece"
    return old_text == new_text or (
        drops_spaces and "".join(old_text.split()) == "".join(new_text.split())
    )


def _same_around(
    text: str, span: tuple[int, int], old: Any, new: Any, ids: Collection[int]
) -> bool:
    """Whether the tokens around the word are the same and at the same places, and it is at its.

    A token that was partly of the word and partly not cannot be the same; nothing is asked then.
    """
    place = next(i for i, token in enumerate(new["input_ids"]) if token in ids)
    if _without_space(text, new["offset_mapping"][place]) != span:
        return False
    n_behind = len(new["input_ids"]) - place - 1
    inside = old["offset_mapping"][place : len(old["offset_mapping"]) - n_behind]
    around = [
        [*zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)]
        for encoded in (old, new)
    ]
    if around[0][:place] == around[1][:place] and (
        not n_behind or around[0][-n_behind:] == around[1][-n_behind:]
    ):
        return bool(inside)
    begin, end = span
    spans = [_without_space(text, offsets) for offsets in old["offset_mapping"]]
    return any(first < edge < last for first, last in spans for edge in (begin, end))


def _without_space(text: str, offsets: tuple[int, int]) -> tuple[int, int]:
    """A span without the space before it."""
    first, last = offsets
    while first < last and text[first].isspace():
        first += 1
    return first, last


def _refuse(tokenizer: Any, word: str, text: str, ids: list[int]) -> None:
    shown = " ".join(spelled(tokenizer, ids))
    raise UserError(
        f"added_tokens cannot hold {word!r} for this model: its tokenizer "
        f"({type(tokenizer.backend_tokenizer.model).__name__}) would not read it as one token and "
        f"everything around it as before. {text!r} would be: {shown}"
    )
