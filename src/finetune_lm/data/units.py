"""The words and regions that data give for their texts: read, checked, and fitted to a text."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune_lm.data.json_lines import check_text
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.data.words import AlignedTokens, Span
from finetune_lm.errors import UserError

WORDS = "words"
REGIONS = "regions"
UNIT_KEYS = (WORDS, REGIONS)
"""Metadata that are about the text and have no column of their own."""
PREFIX = "prefix"
TARGET = "target"
"""The rest of a line that has a prefix, and the name of its region."""
NO_REGION = -1

_SPACE = re.compile(r"\s*")
_SHOWN = 20


class Region(NamedTuple):
    """A part of a text with a name: the characters from ``start`` to the one before ``end``."""

    name: str
    start: int
    end: int


class FittedUnits(NamedTuple):
    """What is given for a text, in its characters.

    Attributes:
        words: Where its words begin and end; None where they are what white space separates.
        regions: Its regions.
    """

    words: list[Span] | None = None
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class Units:
    """What is given for one text.

    Attributes:
        words: Its words, in order, which hold all that is not white space; None where they are what
            white space separates.
        regions: Its regions, in order, none of which overlap.
        where: Where that stands, for messages.
    """

    words: tuple[str, ...] | None = None
    regions: tuple[Region, ...] = ()
    where: str = ""

    def fitted(self, text: str) -> FittedUnits:
        """What is given, in the characters of a text.

        Raises:
            UserError: If it does not fit it.
        """
        for name, start, end in self.regions:
            if end > len(text):
                raise UserError(
                    f"{self.where}: region {_shown(name)} must lie in the text, which has "
                    f"{len(text)} characters, but is from {start} to {end}."
                )
        return FittedUnits(self._word_spans(text), self.regions)

    def _word_spans(self, text: str) -> list[Span] | None:
        if self.words is None:
            return None
        spans: list[Span] = []
        at = _behind_space(text, 0)
        for number, word in enumerate(self.words, start=1):
            if not text.startswith(word, at):
                goes_on = f"goes on with {_shown(text[at:])}" if at < len(text) else "is at its end"
                raise UserError(
                    f"{self.where}: 'words' must follow one another in the text, but word {number} "
                    f"is {_shown(word)} where the text {goes_on} (character {at})."
                )
            spans.append((at, at + len(word)))
            at = _behind_space(text, at + len(word))
        if at < len(text):
            raise UserError(
                f"{self.where}: 'words' must cover the text, but {_shown(text[at:])} is left "
                f"after the last of them (character {at})."
            )
        return spans


def read_units(values: Mapping[str, Any], where: str) -> Units:
    """What an object gives under the keys ``words`` and ``regions``.

    Args:
        values: The object.
        where: Its place, for messages.

    Raises:
        UserError: If that is not words or regions.

    Example:
        >>> read_units({"regions": [["verb", 4, 7]]}, "x.json, line 1").regions
        (Region(name='verb', start=4, end=7),)
    """
    words, regions = values.get(WORDS), values.get(REGIONS)
    return Units(
        None if words is None else _words(words, where),
        () if regions is None else _regions(regions, where),
        where,
    )


def _words(words: Any, where: str) -> tuple[str, ...]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(
            f"{where}: 'words' must be a list of strings, the words of the text in order, but got "
            f"{json.dumps(words)[:80]}. If it is something else, give it another name."
        )
    for word in words:
        if word != word.strip() or not word:
            raise UserError(
                f"{where}: 'words' must be words with no white space around them, but one is "
                f"{word!r}."
            )
    return tuple(words)


def _regions(regions: Any, where: str) -> tuple[Region, ...]:
    if not isinstance(regions, list):
        raise UserError(
            f"{where}: 'regions' must be a list of [name, start, end] but got "
            f"{json.dumps(regions)[:80]}. If it is something else, give it another name."
        )
    read = []
    for region in regions:
        is_region = isinstance(region, list) and [_kind(part) for part in region] == [str, int, int]
        if not is_region or not region[0].strip() or not 0 <= region[1] < region[2]:
            raise UserError(
                f"{where}: a region must be [name, start, end], with characters from 0 and its end "
                f"behind its start, but got {json.dumps(region)[:80]}."
            )
        read.append(Region(*region))
    read.sort(key=lambda region: region.start)
    for before, after in itertools.pairwise(read):
        if after.start < before.end:
            raise UserError(
                f"{where}: regions must not overlap, but {_shown(before.name)} is from "
                f"{before.start} to {before.end} and {_shown(after.name)} from {after.start} to "
                f"{after.end}."
            )
    return tuple(read)


def _kind(value: Any) -> type:
    return type(value)  # True is no number


def given_in_line(example: Mapping[str, Any], where: str) -> tuple[str | None, dict[str, Any]]:
    """What a line of a data file gives beside ``text`` and ``labels``.

    Args:
        example: The line's object.
        where: Its place, for messages.

    Returns:
        The text, where it is that of a prefix and a target, and what is given of ``words`` and
        ``regions``. The region ``target`` begins with the target's first character that is not
        white space.

    Raises:
        UserError: If there is a prefix without a target, or with a text.
    """
    units = {key: example[key] for key in UNIT_KEYS if example.get(key) is not None}
    if PREFIX not in example or TARGET not in example:
        for key, other in ((PREFIX, TARGET), (TARGET, PREFIX)):
            if key in example and "text" not in example:
                raise UserError(
                    f"{where}: must have {other!r} beside {key!r}, or 'text', but has neither."
                )
        return None, units
    for key in ("text", "labels"):
        if key in example:
            raise UserError(
                f"{where}: must have either {key!r} or 'prefix' and 'target' but has all of them."
            )
    prefix, target = example[PREFIX], check_text(example[TARGET], f"{where}: 'target'")
    text = check_text(prefix + target if isinstance(prefix, str) else prefix, f"{where}: 'prefix'")
    region = [TARGET, _behind_space(text, len(prefix)), len(text)]
    regions = units.get(REGIONS, [])
    units[REGIONS] = [*regions, region] if isinstance(regions, list) else regions
    return text, units


def units_of(
    metadata: Sequence[Mapping[str, Any]], path: str, texts: Sequence[str]
) -> list[FittedUnits]:
    """The words and regions that are given for some texts.

    Args:
        metadata: What is given of each text.
        path: The file where that stands, for messages.
        texts: The texts.

    Raises:
        UserError: If they do not fit their text, naming the file and the line.
    """
    return [
        read_units(values, f"{path}, line {number}").fitted(text)
        for number, (values, text) in enumerate(zip(metadata, texts, strict=True), start=1)
    ]


def region_names(metadata: Iterable[Mapping[str, Any]]) -> set[str]:
    """The names of the regions that are given for some texts, which were checked before."""
    return {
        region.name
        for values in metadata
        if values.get(REGIONS)
        for region in _regions(values[REGIONS], "")
    }


def check_units(
    metadata: Sequence[Mapping[str, Any]],
    path: str,
    texts: Sequence[str],
    labels: Sequence[str] | None,
) -> None:
    """See that the words and regions of each line fit its text, or that of its labels.

    Which of the two they are of depends on the model.

    Raises:
        UserError: If they fit neither, naming the file and the line.
    """
    for number, values in enumerate(metadata):
        units = read_units(values, f"{path}, line {number + 1}")
        try:
            units.fitted(texts[number])
        except UserError:
            if labels is None:
                raise
            units.fitted(labels[number])


def regions_of_tokens(
    texts: Sequence[str],
    regions: Sequence[Sequence[Region]],
    aligned: AlignedTokens,
    n_tokens: IntArray,
) -> tuple[list[str], IntArray, npt.NDArray[np.bool_]]:
    """The region of each token of some texts.

    A token that is part of several regions belongs to the last of them. One that stands for no
    character is where the next one is, or the last one of the text.

    Args:
        texts: The texts.
        regions: The regions of each.
        aligned: What their tokens stand for, one text after another: (n,) each.
        n_tokens: How many there are of each text: (texts,).

    Returns:
        The names of the regions; for each token the number of its region's name, `NO_REGION` where
        it is in none: (n,); and whether a part of it is in another region or in none: (n,).
    """
    flat = [region for each in regions for region in each]
    names = list(dict.fromkeys(region.name for region in flat))
    n = len(aligned.start)
    if not flat:
        return names, np.full(n, NO_REGION), np.zeros(n, dtype=bool)
    begins = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    offset = np.repeat(begins[:-1], n_tokens)
    of_region = np.repeat(begins[:-1], [len(each) for each in regions])
    # From here on a place is one in all texts together.
    region_start = np.array([region.start for region in flat]) + of_region
    region_end = np.array([region.end for region in flat]) + of_region
    last = np.repeat(begins[1:], n_tokens) - 1
    start = np.minimum(aligned.start + offset, last)
    end = np.maximum(aligned.end + offset, start + 1)
    found = np.searchsorted(region_start, end, side="left") - 1
    inside = (aligned.start >= 0) & (found >= 0) & (region_end[found] > start)
    straddles = inside & (aligned.end > aligned.start)
    straddles &= (start < region_start[found]) | (end > region_end[found])
    number = np.array([names.index(region.name) for region in flat])
    return names, np.where(inside, number[found], NO_REGION), straddles


def _behind_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
