"""Functions that change what goes into a model, for users to pick from and add to.

A preprocessing function takes a dictionary of tensors (``input_ids`` and ``attention_mask``, each
(n, length) and padded on the right, and ``labels`` if the data file gave some) and the tokenizer
that made it, and perhaps keyword arguments of its own. It returns such a dictionary and leaves its
argument as it was. It is named on the command line, as in
``--data_preprocessing_fn.train data_preprocessing.identity``.

A function that makes several examples of one also returns ``expanded_lengths``: how many each
became, in order, padded with -1 to the new number of examples. One whose labels no longer read as
the labels' text belongs in `UPDATE_LABEL_FNS`.
"""

from collections.abc import Callable
from typing import Any

from finetune_lm.data_preprocessing.identity import identity
from finetune_lm.data_preprocessing.remove_non_mask_tokens_from_labels import (
    remove_non_mask_tokens_from_labels,
)

UPDATE_LABEL_FNS: set[Callable[..., Any]] = set()
"""Functions after which the text of the labels is read off the labels anew."""

__all__ = ["UPDATE_LABEL_FNS", "identity", "remove_non_mask_tokens_from_labels"]
