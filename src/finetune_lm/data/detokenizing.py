"""The regions of a sentence put together, tokenized or as one writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def joined(
    parts: Sequence[tuple[str, str]], *, detokenize: bool = False
) -> tuple[str, list[list[Any]]]:
    """Put the regions of a sentence together.

    Args:
        parts: Name and content of each region.
        detokenize: Whether to join them as one writes instead of by one space each.

    Returns:
        The text, and for each region that is not empty its name and where it begins and ends in the
        text, in characters.

    Example:
        >>> joined([("1", "She left"), ("2", ""), ("3", ", he said")])
        ('She left , he said', [['1', 0, 8], ['3', 9, 18]])
        >>> joined([("1", "She left"), ("3", ", he said")], detokenize=True)
        ('She left, he said', [['1', 0, 8], ['3', 8, 17]])
    """
    text = ""
    spans: list[list[Any]] = []
    for name, content in parts:
        content = " ".join(content.split())
        if content:
            begin = len(text) + 1 if text else 0
            text = f"{text} {content}" if text else content
            spans.append([name, begin, len(text)])
    if not detokenize:
        return text, spans
    dropped = _needless_spaces(text)
    # How many spaces fall away before each place.
    before = [0]
    for place in range(len(text)):
        before.append(before[-1] + (place in dropped))
    written = "".join(c for place, c in enumerate(text) if place not in dropped)
    return written, [[name, b - before[b], e - before[e]] for name, b, e in spans]


_CLOSES = re.compile(r" (?=[,.;:?!%)\]}’”…]|n't\b|'(?:s|re|ve|ll|d|m)\b|'(?:\s|$))", re.IGNORECASE)
_OPENS = re.compile(r"(?<=[(\[{“‘$]) ")
_QUOTE = re.compile(r'"')


def _needless_spaces(text: str) -> set[int]:
    """Where spaces stand in a tokenized text that nobody writes."""
    found = {match.start() for match in _CLOSES.finditer(text)}
    found |= {match.start() for match in _OPENS.finditer(text)}
    # Straight quotes open and close in turn.
    for number, match in enumerate(_QUOTE.finditer(text)):
        place = match.end() if number % 2 == 0 else match.start() - 1
        if 0 <= place < len(text) and text[place] == " ":
            found.add(place)
    return found
