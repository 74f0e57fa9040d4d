"""Mask single tokens at random for span-denoising models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_lm.constants import SEQ2SEQ
from finetune_lm.data_preprocessing._masking import needs_sentinels
from finetune_lm.data_preprocessing._selection import choose, maskable, n_to_mask
from finetune_lm.data_preprocessing._settings import MASK_PROP, check_mask_prop, for_tasks
from finetune_lm.data_preprocessing._spans import corrupt, first_of_run
from finetune_lm.models.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from torch import Tensor


def _check(mask_prop: float = MASK_PROP, tokenizer: Any = None) -> None:
    check_mask_prop(mask_prop)
    if tokenizer is not None:
        needs_sentinels(vocabulary_of(tokenizer), "mask_truerandom_spans")


@for_tasks(SEQ2SEQ, check=_check, needs_masks=True)
def mask_truerandom_spans(
    inputs: dict[str, Tensor], tokenizer: Any, mask_prop: float = MASK_PROP
) -> dict[str, Tensor]:
    """Choose tokens at random, each by itself, and put sentinels in their place.

    Of the n tokens of an example that are its text's own, exactly ``max(round(mask_prop * n), 1)``
    are chosen, a half rounded to the even neighbour; the first token may be among them. Chosen
    tokens that happen to be neighbours share one sentinel, so spans never touch. Where that takes
    more sentinels than there are, with one left for the end of the labels, the last ones chosen
    stay as they are. Labels are made as by `mask_random_spans`.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and perhaps ``labels``, each (n, length).
        tokenizer: A tokenizer with the sentinels ``<extra_id_0>``, ``<extra_id_1>``, ...
        mask_prop: The share of tokens to choose.

    Returns:
        ``input_ids`` and ``attention_mask``, (n, new length), and ``labels``, (n, label length).

    Raises:
        UserError: If the tokenizer has no sentinels, the value is out of range, or a text has
            sentinels in it already.

    Example:
        >>> inputs = tokenizer(["The man drank the water."], return_tensors="pt")  # doctest: +SKIP
        >>> masked = mask_truerandom_spans(inputs, tokenizer, 0.5)  # doctest: +SKIP
        >>> tokenizer.batch_decode(masked["labels"])  # doctest: +SKIP
        ['<extra_id_0> The man<extra_id_1> the<extra_id_2>']
    """
    _check(mask_prop, tokenizer)
    vocabulary = vocabulary_of(tokenizer)
    allowed = maskable(dict(inputs), vocabulary)
    chosen = choose(allowed, n_to_mask(allowed.sum(dim=1), mask_prop))
    return corrupt(dict(inputs), tokenizer, vocabulary, chosen, first_of_run(chosen))
