"""Trying out whether a tokenizer reads a new word as it should, before it is let into a model."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from finetune_lm.errors import UserError
from finetune_lm.models.vocabulary import spelled

# What stands before and behind a new word. Twice each, in other words, since those that are new
# themselves are no neighbours to compare with.
_IN_SENTENCES = (
    ("", " is old."),
    ("", " was here."),
    ("the man ", " the water."),
    ("a child ", " any bread."),
    ("the man ", ", and then"),
    ("a child ", ", or so"),
    ("the man, ", "."),
    ("a child, ", "."),
    ("the man ", "'s"),
    ("the man ", ""),
    ("a child ", ""),
)
# Here tokenizers may cut an ordinary word and its neighbour differently from a new one.
_BESIDE_MARKS = (
    ('he said "', '".'),
    ('she wrote "', '".'),
    ("the (", ") man"),
    ("a (", ") child"),
    ("so-", "-so"),
    ("like-", "-like"),
)
_IN_LONGER_WORDS = (
    ("re", "s"),
    ("", "s"),
    ("the un", " man"),
    ("a un", " child"),
    ("un", "ly, so"),
)


def check_reading(
    before: Any, after: Any, word: str, ids: Collection[int], new_words: Collection[str]
) -> None:
    """See that a tokenizer reads a new word as one token, and all around it as before.

    Args:
        before: The tokenizer that does not know the word.
        after: The same that does.
        word: The word.
        ids: Its tokens, of which each place in a text has one.
        new_words: All words that only the second knows.

    Raises:
        UserError: With a text, if not.
    """
    for places, is_exact in ((_IN_SENTENCES, True), (_BESIDE_MARKS, False)):
        for text, begin in _texts(word, places, new_words):
            old, new = _encoded(before, text), _encoded(after, text)
            span = (begin, begin + len(word))
            place = _place(text, span, new, ids)
            if (
                place is None
                or not _same_text(before, after, old, new)
                or (is_exact and not _same_around(text, span, old, new, place))
            ):
                _refuse(after, word, text, new["input_ids"])
    if re.fullmatch(r"\w.*\w|\w", word):
        for text, _ in _texts(word, _IN_LONGER_WORDS, new_words):
            old, new = _encoded(before, text), _encoded(after, text)
            if dict(old) != dict(new):
                _refuse(after, word, text, new["input_ids"])


def _texts(
    word: str, places: Sequence[tuple[str, str]], new_words: Collection[str]
) -> list[tuple[str, int]]:
    """Texts with the word in them and no other new word, and the character where it begins."""
    new = {new_word.casefold() for new_word in new_words}
    return [
        (before + word + behind, len(before))
        for before, behind in places
        if new.isdisjoint(_words(f"{before} {behind}"))
        and (new - {word.casefold()}).isdisjoint(_words(before + word + behind))
    ]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _encoded(tokenizer: Any, text: str) -> Any:
    return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)


def _place(text: str, span: tuple[int, int], new: Any, ids: Collection[int]) -> int | None:
    """Which token the word is; None if it is not one, and one of these."""
    begin, end = span
    spans = [_without_space(text, offsets) for offsets in new["offset_mapping"]]
    places = [i for i, (first, last) in enumerate(spans) if first < end and begin < last]
    if len(places) == 1 and spans[places[0]] == span and new["input_ids"][places[0]] in ids:
        return places[0]
    return None


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


def _same_around(text: str, span: tuple[int, int], old: Any, new: Any, place: int) -> bool:
    """Whether the tokens around the word are the same, and at the same places.

    A token that was partly of the word and partly not cannot be the same; nothing is asked then.
    """
    n_behind = len(new["input_ids"]) - place - 1
    before, after = (
        [*zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)]
        for encoded in (old, new)
    )
    if (
        len(before) > place + n_behind
        and before[:place] == after[:place]
        and before[len(before) - n_behind :] == after[place + 1 :]
    ):
        return True
    spans = [_without_space(text, offsets) for offsets in old["offset_mapping"]]
    return any(first < edge < last for first, last in spans for edge in span)


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
