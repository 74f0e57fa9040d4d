"""Where in its text each token begins, found out by decoding."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np


def starts_by_decoding(tokenizer: Any, text: str, ids: Sequence[int]) -> list[int]:
    """Where each token begins in its text, for tokenizers that do not say so.

    The tokens decoded one after another give a second text, which says where each token begins in
    it; its characters are matched to those of the original (without regard to case, accents and
    spaces, which some tokenizers change). What stays unmatched, such as an unknown token, stands
    for the first character that is not yet accounted for. Slower than the offsets of a fast
    tokenizer, and as good where decoding gives the text back.

    Args:
        tokenizer: The tokenizer that made the ids.
        text: The text.
        ids: Its token ids, without start and end tokens: (n,).

    Returns:
        Characters of the text, never falling: (n,).
    """
    decoded_ends = [len(_decode(tokenizer, ids[: i + 1])) for i in range(len(ids))]
    decoded = _decode(tokenizer, ids)
    token_starts = [0, *decoded_ends[:-1]]

    original_letters, original_places = _letters(text)
    decoded_letters, decoded_places = _letters(decoded)
    place_in_text = np.full(len(decoded) + 1, -1, dtype=np.int64)
    matcher = difflib.SequenceMatcher(None, decoded_letters, original_letters, autojunk=False)
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            decoded_place = decoded_places[block.a + offset]
            place_in_text[decoded_place] = original_places[block.b + offset]

    starts = []
    after = 0  # the first character that no token so far has covered
    for begin, end in zip(token_starts, decoded_ends, strict=True):
        matched = [int(place) for place in place_in_text[begin : max(end, begin)] if place >= 0]
        starts.append(max(after, matched[0]) if matched else after)
        after = max(after, matched[-1] + 1) if matched else after
    return starts


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _letters(text: str) -> tuple[list[str], list[int]]:
    """Characters reduced to what tokenizers leave of them, and the place of each in the text."""
    letters, places = [], []
    for place, character in enumerate(text):
        for letter in unicodedata.normalize("NFKD", character).casefold():
            if not letter.isspace() and not unicodedata.combining(letter):
                letters.append(letter)
                places.append(place)
    return letters, places
