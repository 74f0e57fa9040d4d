"""Functions that change what goes into a model, for users to pick from and add to.

A preprocessing function takes a dictionary of tensors (``input_ids`` and ``attention_mask``, each
(n, length) and padded on the right, and ``labels`` if the data file gave some) and the tokenizer
that made it, and perhaps keyword arguments of its own; one that names ``model`` is given the model.
It returns such a dictionary and leaves its argument as it was. It is named on the command line, as
in ``--data_preprocessing_fn.train data_preprocessing.mask_random_tokens``. What is random in it
should come from torch's global generator, which follows from the run's seed.

A function that makes several examples of one also returns ``expanded_lengths``: how many each
became, in order, padded with -1 to the new number of examples. One whose labels no longer read as
the labels' text belongs in `UPDATE_LABEL_FNS`. One that is not for every kind of model says so with
`for_tasks`.
"""

from collections.abc import Callable
from typing import Any

from finetune_lm.data_preprocessing._settings import for_tasks
from finetune_lm.data_preprocessing.expand_with_masks import expand_with_masks
from finetune_lm.data_preprocessing.identity import identity
from finetune_lm.data_preprocessing.mask_random_spans import mask_random_spans
from finetune_lm.data_preprocessing.mask_random_tokens import mask_random_tokens
from finetune_lm.data_preprocessing.mask_truerandom_spans import mask_truerandom_spans
from finetune_lm.data_preprocessing.mask_word_tokens import mask_word_tokens
from finetune_lm.data_preprocessing.mask_words import mask_words
from finetune_lm.data_preprocessing.remove_non_mask_tokens_from_labels import (
    remove_non_mask_tokens_from_labels,
)

UPDATE_LABEL_FNS: set[Callable[..., Any]] = {
    expand_with_masks,
    mask_random_spans,
    mask_truerandom_spans,
    mask_word_tokens,
    mask_words,
}
"""Functions after which the text of the labels is read off the labels anew.

Where labels still are tokens of their text, each at its place, as a masked language model's are,
the text stays what it was.
"""

__all__ = [
    "UPDATE_LABEL_FNS",
    "expand_with_masks",
    "for_tasks",
    "identity",
    "mask_random_spans",
    "mask_random_tokens",
    "mask_truerandom_spans",
    "mask_word_tokens",
    "mask_words",
    "remove_non_mask_tokens_from_labels",
]
