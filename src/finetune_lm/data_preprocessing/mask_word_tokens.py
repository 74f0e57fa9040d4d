"""Mask given words that are single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import MLM, SEQ2SEQ
from finetune_lm.data_preprocessing._masking import mask_or_corrupt
from finetune_lm.data_preprocessing._settings import for_tasks
from finetune_lm.data_preprocessing._words import find, with_capitalized
from finetune_lm.errors import UserError
from finetune_lm.models.spelling import checked_words, spellings
from finetune_lm.models.vocabulary import spelled, vocabulary_of

if TYPE_CHECKING:
    from torch import Tensor


def _check(
    word_tokens_to_mask: Sequence[str], also_capitalized: bool = False, tokenizer: Any = None
) -> None:
    words = checked_words(word_tokens_to_mask, "word_tokens_to_mask")
    if tokenizer is None:
        return
    vocabulary = vocabulary_of(tokenizer)
    problems = []
    for word in words:
        ways = spellings([word], tokenizer, vocabulary)
        known = [ids for ids in ways if tokenizer.unk_token_id not in ids]
        if not any(len(ids) == 1 for ids in known):
            shown = " ".join(spelled(tokenizer, ways[-1])) if ways else "nothing"
            problems.append(
                f"word_tokens_to_mask must hold words that are single tokens of the model but "
                f"{word!r} is {shown}. Use mask_words for words of several tokens."
            )
    if problems:
        raise UserError(*problems)


@for_tasks(MLM, SEQ2SEQ, check=_check, needs_masks=True)
def mask_word_tokens(
    inputs: dict[str, Tensor],
    tokenizer: Any,
    word_tokens_to_mask: Sequence[str],
    also_capitalized: bool = False,
) -> dict[str, Tensor]:
    """Mask every occurrence of some words, each of which must be a single token.

    Words are found as by `mask_words`. A word must be one token of the vocabulary, other than the
    unknown token, somewhere in a text. Where a tokenizer spells it with several somewhere else
    (byte-level ones may, at the very start of a text) it is masked there as well.

    Masks and labels are made as by `mask_words`.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and perhaps ``labels``, each (n, length).
        tokenizer: A tokenizer with a mask token, or one with sentinels.
        word_tokens_to_mask: The words.
        also_capitalized: Whether to look for them with a capital letter first as well. With a
            capital letter they need not be single tokens.

    Returns:
        ``input_ids`` and ``attention_mask``, (n, new length), and ``labels``, (n, label length).

    Raises:
        UserError: If there are no words, one is several tokens or unknown, or the tokenizer has
            neither a mask token nor sentinels.

    Example:
        >>> inputs = tokenizer(["The man drank water."], return_tensors="pt")  # doctest: +SKIP
        >>> masked = mask_word_tokens(inputs, tokenizer, ["water"])  # doctest: +SKIP
        >>> tokenizer.decode(masked["input_ids"][0])  # doctest: +SKIP
        '[CLS] the man drank [MASK]. [SEP]'
    """
    _check(word_tokens_to_mask, also_capitalized, tokenizer)
    words = checked_words(word_tokens_to_mask, "word_tokens_to_mask")
    vocabulary = vocabulary_of(tokenizer)
    patterns = spellings(with_capitalized(words, also_capitalized), tokenizer, vocabulary)
    chosen, begins = find(dict(inputs), patterns, vocabulary)
    return mask_or_corrupt(dict(inputs), tokenizer, vocabulary, chosen, begins, "mask_word_tokens")
