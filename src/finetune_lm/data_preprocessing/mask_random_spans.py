"""Mask spans of tokens at random, as T5 was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_lm.constants import SEQ2SEQ
from finetune_lm.data_preprocessing._masking import needs_sentinels
from finetune_lm.data_preprocessing._selection import maskable
from finetune_lm.data_preprocessing._settings import (
    MASK_PROP,
    MEAN_NOISE_SPAN_LENGTH,
    check_mask_prop,
    check_span_length,
    for_tasks,
)
from finetune_lm.data_preprocessing._spans import corrupt, first_of_run, noise_mask
from finetune_lm.models.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from torch import Tensor


def _check(
    mask_prop: float = MASK_PROP,
    mean_noise_span_length: float = MEAN_NOISE_SPAN_LENGTH,
    tokenizer: Any = None,
) -> None:
    check_mask_prop(mask_prop)
    check_span_length(mean_noise_span_length)
    if tokenizer is not None:
        needs_sentinels(vocabulary_of(tokenizer), "mask_random_spans")


@for_tasks(SEQ2SEQ, check=_check, needs_masks=True)
def mask_random_spans(
    inputs: dict[str, Tensor],
    tokenizer: Any,
    mask_prop: float = MASK_PROP,
    mean_noise_span_length: float = MEAN_NOISE_SPAN_LENGTH,
) -> dict[str, Tensor]:
    """Put a sentinel in place of each of some random spans of tokens.

    Of the n tokens of an example that are its text's own (no special tokens, no padding),
    ``n_noise = min(max(round(mask_prop * n), 1), n - 1)`` are in spans, and there are
    ``max(round(n_noise / mean_noise_span_length), 1)`` spans, a half rounded to the even neighbour
    in both. There are fewer where there is no room for so many: each span has at least one token
    and one before it that stays, and the last sentinel is kept for the end of the labels. The first
    token is never in a span, and no two spans touch. A special token within a text cuts a span in
    two.

    Where no labels are given they are, for each span, its sentinel and its tokens, and behind the
    last one more sentinel, with -100 as padding. They end there, without an end token. An example
    of a single token stays as it is, and its labels are one sentinel.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and perhaps ``labels``, each (n, length).
        tokenizer: A tokenizer with the sentinels ``<extra_id_0>``, ``<extra_id_1>``, ...
        mask_prop: The share of tokens in spans.
        mean_noise_span_length: How long spans are on average, in tokens.

    Returns:
        ``input_ids`` and ``attention_mask``, (n, new length), and ``labels``, (n, label length).

    Raises:
        UserError: If the tokenizer has no sentinels, a value is out of range, or a text has
            sentinels in it already.

    Example:
        >>> inputs = tokenizer(["The man drank the water."], return_tensors="pt")  # doctest: +SKIP
        >>> masked = mask_random_spans(inputs, tokenizer)  # doctest: +SKIP
        >>> tokenizer.batch_decode(masked["labels"])  # doctest: +SKIP
        ['<extra_id_0> water<extra_id_1>']
    """
    _check(mask_prop, mean_noise_span_length, tokenizer)
    vocabulary = vocabulary_of(tokenizer)
    most_spans = len(vocabulary.sentinel_ids) - 1
    allowed = maskable(dict(inputs), vocabulary)
    noise = noise_mask(allowed, mask_prop, mean_noise_span_length, most_spans)
    return corrupt(dict(inputs), tokenizer, vocabulary, noise, first_of_run(noise))
