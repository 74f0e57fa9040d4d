"""Where in its text each token begins, found out by decoding."""

from __future__ import annotations

import bisect
import difflib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.models.vocabulary import GOES_ON

_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"

# A character is at most four tokens of a byte-level tokenizer, or a few more where it is several
# code points; what takes longer to become readable never will.
_LONGEST_CHARACTER = 16

# How many pairs of letters difflib may compare: its time grows with more than their number.
_COMPARED = 250_000
# Letters in a row that are the same in both texts are taken for the same place.
_ANCHOR = 12
# How far to look on for a nearer one.
_LOOKED_AT = 256


def spans_by_decoding(tokenizer: Any, text: str, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Where each token is in its text, for tokenizers that do not say so.

    The tokens decoded one after another give a second text, which says where each token begins in
    it; its characters are matched to those of the original (without regard to case, accents and
    spaces, which some tokenizers change). What stays unmatched, such as an unknown token, stands
    for the first character that is not yet accounted for. Slower than the offsets of a fast
    tokenizer, and as good where decoding gives the text back. Takes time in proportion to the
    length of the text.

    Args:
        tokenizer: The tokenizer that made the ids.
        text: The text.
        ids: Its token ids, without start and end tokens, or the first of them: (n,).

    Returns:
        The character at which each begins, never falling, and the one behind it. What stays
        unmatched ends where the next token begins. Each piece of a character that is several tokens
        is all of it.
    """
    pieces, are_cut = map(list, zip(*_pieces(tokenizer, ids), strict=True)) if ids else ([], [])
    unknown = tokenizer.unk_token_id
    if unknown in ids and str(tokenizer.unk_token) not in text:
        # Its name is no part of the text and must not be looked for in it.
        pieces = [
            piece[: len(piece) - len(piece.lstrip())] + _UNDECODABLE if i == unknown else piece
            for piece, i in zip(pieces, ids, strict=True)
        ]
    decoded = "".join(pieces)
    ends = np.cumsum([0, *map(len, pieces)]).tolist()

    original_letters, original_places = _letters(text)
    decoded_letters, decoded_places = _letters(decoded)
    place_in_text = np.full(len(decoded) + 1, -1, dtype=np.int64)
    for of_decoded, of_original, length in _common_runs(decoded_letters, original_letters):
        for offset in range(length):
            decoded_place = decoded_places[of_decoded + offset]
            place_in_text[decoded_place] = original_places[of_original + offset]

    spans: list[tuple[int, int]] = []
    are_lost: list[bool] = []  # which tokens that are more than space were not found in the text
    last = 0  # where the last token begins
    after = 0  # the first character that no token so far has covered
    is_unknown = False  # whether the last token that was more than space was not found in the text
    next_found = _next_found(place_in_text, len(text))
    for piece, begin, end in zip(pieces, ends[:-1], ends[1:], strict=True):
        matched = [int(place) for place in place_in_text[begin:end] if place >= 0]
        if not matched and piece[:1].isspace():
            space = _next_space(text, after, is_unknown)
            # Some words are several unknown tokens: they do not reach into what was found.
            reaches = bool(piece.strip()) and not text[space : next_found[end]].strip()
            after = after if reaches else space
        # A character may be several tokens: three dots, where there was one sign for them.
        last = max(last, matched[0] if matched else after)
        after = max(after, matched[-1] + 1) if matched else after
        spans.append((last, after if matched else last))
        if any(not (c.isspace() or unicodedata.combining(c)) for c in piece):
            is_unknown = not matched
        are_lost.append(not matched and bool(piece.strip()))
    for i in reversed(range(len(spans))):
        start, next_start = spans[i][0], spans[i + 1][0] if i + 1 < len(spans) else len(text)
        if are_cut[i] and i + 1 < len(spans):
            spans[i] = start if pieces[i] else next_start, next_start + 1
        elif are_lost[i]:
            spans[i] = start, max(start, next_start)
    return spans


def _next_found(place_in_text: IntArray, end: int) -> list[int]:
    """For each decoded character the next place in the text that was found, or the text's end."""
    places = np.where(place_in_text >= 0, place_in_text, end)
    next_found: list[int] = np.minimum.accumulate(places[::-1])[::-1].tolist()
    return next_found


def _next_space(text: str, after: int, is_unknown: bool) -> int:
    """Where the space is that a token stands for: behind the marks of the last letter.

    Behind an unknown token that stands for a word it is that word's end.
    """
    if is_unknown:
        after += len(text[after:]) - len(text[after:].lstrip())
    while after < len(text) and not text[after].isspace():
        if not is_unknown and not unicodedata.combining(text[after]):
            break
        after += 1
    return after


def _pieces(tokenizer: Any, ids: Sequence[int]) -> Iterator[tuple[str, bool]]:
    """What each token adds to the decoded text, and whether it ends within a character.

    Each is decoded together with the one before it, because the first of a sequence may be decoded
    in another way. A token that only begins a character adds nothing; the one that completes it
    adds the character.
    """
    context, done = 0, 0  # where decoding begins, and up to where all of it is readable
    before = ""
    for n in range(1, len(ids) + 1):
        now = _decode(tokenizer, ids[context:n])
        # Some tokenizers leave the beginning of a character out instead of marking it.
        is_whole = not now.endswith(_UNDECODABLE) and len(now) > len(before)
        is_whole |= n - done >= _LONGEST_CHARACTER
        if not is_whole:
            now = now.rstrip(_UNDECODABLE)
        # What says that the word goes on is gone as soon as it does.
        now = now.removesuffix(GOES_ON)
        yield now[len(before) :], not is_whole
        before = now if len(now) > len(before) else before
        if is_whole:
            context, done = done, n
            before = _decode(tokenizer, ids[context:done]).removesuffix(GOES_ON)


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


def _common_runs(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Letters that two texts have in common, in order: where in each, and how many."""
    at_a, at_b = 0, 0
    places: dict[tuple[str, ...], list[int]] | None = None
    while True:
        length = _same(a, b, at_a, at_b)
        if length:
            yield at_a, at_b, length
        at_a, at_b = at_a + length, at_b + length
        if at_a == len(a) or at_b == len(b):
            return
        rest_is_short = (len(a) - at_a) * (len(b) - at_b) <= _COMPARED
        if not rest_is_short and places is None:
            places = _anchors(b)
        to_a, to_b = len(a), len(b)
        if not rest_is_short:
            # Without one the rest is compared as far as it can be what is left of the first text.
            near = min(len(b), at_b + 4 * (len(a) - at_a) + _LOOKED_AT)
            to_a, to_b = _next_anchor(a, places or {}, at_a, at_b) or (len(a), near)
        if (to_a - at_a) * (to_b - at_b) <= _COMPARED:
            matcher = difflib.SequenceMatcher(None, a[at_a:to_a], b[at_b:to_b], autojunk=False)
            for run in matcher.get_matching_blocks():
                if run.size:
                    yield at_a + run.a, at_b + run.b, run.size
        at_a, at_b = to_a, to_b


def _same(a: Sequence[str], b: Sequence[str], at_a: int, at_b: int) -> int:
    """How many letters are the same from here on."""
    most = min(len(a) - at_a, len(b) - at_b)
    return next((i for i in range(most) if a[at_a + i] != b[at_b + i]), most)


def _anchors(letters: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """Where each short sequence of letters is, in order."""
    places = defaultdict(list)
    for place in range(len(letters) - _ANCHOR + 1):
        places[tuple(letters[place : place + _ANCHOR])].append(place)
    return places


def _next_anchor(
    a: Sequence[str], places: dict[tuple[str, ...], list[int]], at_a: int, at_b: int
) -> tuple[int, int] | None:
    """The next sequence of letters of ``a`` that is there in ``b`` as well, and where.

    Of those that begin within a few letters, the one for which the least is passed over.
    """
    best, least = None, 0
    for begin in range(at_a, len(a) - _ANCHOR + 1):
        passed = begin - at_a
        if best is not None and (passed >= least or passed > _LOOKED_AT):
            break
        found = places.get(tuple(a[begin : begin + _ANCHOR]))
        if found is None:
            continue
        number = bisect.bisect_left(found, at_b)
        if number < len(found) and (best is None or passed + found[number] - at_b < least):
            best, least = (begin, found[number]), passed + found[number] - at_b
    return best
