"""What the name of a checkpoint says of how far its training was."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_NUMBER = r"(\d+(?:\.\d+)?)([KMBT]?)(?![A-Za-z0-9])"
_STEP = re.compile(rf"(?:^|[^a-z])(?:step|checkpoint|ckpt|iter)s?[-_ ]?{_NUMBER}", re.IGNORECASE)
_TOKENS = re.compile(
    rf"(?:(?:^|[^a-z])tokens?(?:[-_ ]?seen)?[-_ ]?|^chck[-_]?){_NUMBER}", re.IGNORECASE
)
_TOKENS_AFTER = re.compile(r"(?:^|[^a-z0-9.])(\d+(?:\.\d+)?)([KMBT])[-_ ]?tokens?", re.IGNORECASE)
_STAGE = re.compile(r"stage[-_ ]?(\d+)", re.IGNORECASE)
_SIZES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Progress:
    """How far the training of a checkpoint was, as its name says.

    Attributes:
        step: How many updates.
        tokens_seen: How many tokens; in names of BabyLM (``chck_10M``), words.
    """

    step: int | None = None
    tokens_seen: int | None = None

    @classmethod
    def of(cls, name: str) -> Self:
        """What a name says.

        Example:
            >>> Progress.of("step1000")
            Progress(step=1000, tokens_seen=None)
            >>> Progress.of("stage1-step1000-tokens5B")
            Progress(step=1000, tokens_seen=5000000000)
            >>> Progress.of("chck_10M")
            Progress(step=None, tokens_seen=10000000)
            >>> Progress.of("500")
            Progress(step=500, tokens_seen=None)
        """
        step = _STEP.search(name) or re.fullmatch(r"(\d+)()", name)
        tokens = _TOKENS.search(name) or _TOKENS_AFTER.search(name)
        return cls(_value(step), _value(tokens))


def in_order(names: list[str]) -> list[str]:
    """Names in the order of training: by stage, then by tokens or steps, then by their numbers.

    Tokens or steps count where all names say them.

    Example:
        >>> in_order(["step1000", "step2", "step10"])
        ['step2', 'step10', 'step1000']
    """
    said = {name: Progress.of(name) for name in names}
    has_tokens = all(each.tokens_seen is not None for each in said.values())
    has_steps = all(each.step is not None for each in said.values())

    def key(name: str) -> tuple[int, int, int, list[tuple[bool, int, str]]]:
        stage = _STAGE.search(name)
        tokens, step = said[name].tokens_seen, said[name].step
        return (
            int(stage[1]) if stage else 0,
            tokens if has_tokens and tokens is not None else 0,
            step if has_steps and step is not None else 0,
            _natural(name),
        )

    return sorted(names, key=key)


def _value(found: re.Match[str] | None) -> int | None:
    if found is None:
        return None
    whole, _, fraction = found[1].partition(".")
    size = _SIZES[found[2].upper()]
    return int(whole) * size + (int(fraction) * size // 10 ** len(fraction) if fraction else 0)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Numbers in a name by their size, and the rest by its letters."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
