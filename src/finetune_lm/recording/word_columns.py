"""The columns of tables of words, and what each takes of the tokens of a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune_lm.recording.columns import REGION, SEED

SUM = "sum"
FIRST = "first"
"""What is taken of a word's tokens: their sum, or the value of the first."""

SURPRISAL = "surprisal"
PLL = "pll"
"""Which pseudo-log-likelihood the word of a masked model has."""

OVER_WORD: Mapping[str, str] = {
    SURPRISAL: SUM,
    "surprisal_corrected": SUM,
    "baseline_surprisal": SUM,
    "token_entropy": FIRST,
    "rank": FIRST,
    "kl_from_baseline": FIRST,
}
"""What is taken of the columns of this package's own measures."""
CANDIDATES = "surprisal_of_"
"""How the columns of `measures.Candidates` begin. Of them the first is taken."""

_BESIDE = (SURPRISAL, "surprisal_corrected")
_BEHIND_FRONT = ("original_text", "input_text", "input_label", "word_num")
WORD_COLUMNS = ("word_num", "word", "char_start", "char_end", "n_tokens")


def over_word(name: str) -> str | None:
    """What is taken of a column, by its name; None for nothing."""
    return FIRST if name.startswith(CANDIDATES) else OVER_WORD.get(name)


def taken_of(
    token_columns: Sequence[str], given: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """Which columns of a table of tokens are taken over a word, and how.

    Args:
        token_columns: The columns of the table of tokens, in order.
        given: What is taken of columns that are not this package's own.
    """
    found = {name: (given or {}).get(name, over_word(name)) for name in token_columns}
    return {name: how for name, how in found.items() if how is not None}


def carried(token_columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns that a word has as its tokens have them: before its own, and behind them."""
    ends = (token_columns.index(name) for name in _BEHIND_FRONT if name in token_columns)
    front = list(token_columns[: min(ends)])
    behind = token_columns.index(SEED) if SEED in token_columns else len(token_columns)
    return front, list(token_columns[behind:])


def word_columns(
    token_columns: Sequence[str], taken: Mapping[str, str], *, with_pll: bool
) -> list[str]:
    """All columns of a table of words, in order.

    Args:
        token_columns: The columns of the table of tokens that it is made from, in order.
        taken: What is taken of them over a word.
        with_pll: Whether it says which pseudo-log-likelihood a word has.
    """
    front, behind = carried(token_columns)
    beside = [name for name in _BESIDE if name in taken]
    others = [name for name in taken if name not in _BESIDE]
    region = [REGION] if REGION in token_columns else []
    pll = [PLL] if with_pll else []
    return [*front, *WORD_COLUMNS, *beside, *region, *others, *pll, *behind]
