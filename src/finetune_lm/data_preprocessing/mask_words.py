"""Mask given words, however many tokens they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import MLM, SEQ2SEQ
from finetune_lm.data_preprocessing._masking import mask_or_corrupt
from finetune_lm.data_preprocessing._settings import for_tasks
from finetune_lm.data_preprocessing._words import find, with_capitalized
from finetune_lm.models.spelling import checked_words, spellings
from finetune_lm.models.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from torch import Tensor


def _check(
    words_to_mask: Sequence[str], also_capitalized: bool = False, tokenizer: Any = None
) -> None:
    checked_words(words_to_mask, "words_to_mask")


@for_tasks(MLM, SEQ2SEQ, check=_check, needs_masks=True)
def mask_words(
    inputs: dict[str, Tensor],
    tokenizer: Any,
    words_to_mask: Sequence[str],
    also_capitalized: bool = False,
) -> dict[str, Tensor]:
    """Mask every occurrence of some words.

    A word is found wherever it stands as a word: first in the text, inside it, beside punctuation
    (a hyphen or an apostrophe counts as such), but never inside another word. Upper and lower case
    are as the tokenizer has them. Of words that overlap, the one with more tokens is masked; where
    a word overlaps itself, the left one is.

    For a masked language model each token of a word becomes a mask token, and where no labels are
    given they are the original tokens at the masks and -100 elsewhere. For a span-denoising model
    each word becomes one sentinel, neighbouring words one each, and where no labels are given they
    are made as by `mask_random_spans`.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and perhaps ``labels``, each (n, length).
        tokenizer: A tokenizer with a mask token, or one with sentinels.
        words_to_mask: The words. One with a space in it is looked for as a whole.
        also_capitalized: Whether to look for them with a capital letter first as well.

    Returns:
        ``input_ids`` and ``attention_mask``, (n, new length), and ``labels``, (n, label length).

    Raises:
        UserError: If there are no words, or the tokenizer has neither mask token nor sentinels.

    Example:
        >>> inputs = tokenizer(["The man drank water."], return_tensors="pt")  # doctest: +SKIP
        >>> masked = mask_words(inputs, tokenizer, ["water", "wine"])  # doctest: +SKIP
        >>> tokenizer.decode(masked["input_ids"][0])  # doctest: +SKIP
        '[CLS] the man drank [MASK]. [SEP]'
    """
    words = with_capitalized(checked_words(words_to_mask, "words_to_mask"), also_capitalized)
    vocabulary = vocabulary_of(tokenizer)
    patterns = spellings(words, tokenizer, vocabulary)
    chosen, begins = find(dict(inputs), patterns, vocabulary)
    return mask_or_corrupt(dict(inputs), tokenizer, vocabulary, chosen, begins, "mask_words")
