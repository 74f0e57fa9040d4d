"""Train the word embeddings of some words and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune_lm.model_modifiers._freezing import FreezingCallback
from finetune_lm.model_modifiers._word_rows import check_word_arguments, word_rows
from finetune_lm.models.adapters import adapter_of


class UnfreezeWordTokensCallback(FreezingCallback):
    """Train only the word embeddings of some words: all else stays as it is, to the last bit.

    A word means the token that it is inside a sentence: where a tokenizer has another one for the
    beginning of a text, that one is frozen. Where input and output embeddings are tied, they are
    the same rows, and trained as both; where they are not, the output embeddings are frozen.

    An adapter (`add_adapter`) is none of the model's own weights, and learns beside the words.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        words_to_unfreeze: The words, one or several. Each must be a single token.
        word_embeddings_name: The parameter whose rows are the word embeddings; by default the
            model's own input embeddings.

    Raises:
        UserError: If a word is several tokens or unknown, or there is no such parameter.

    Example:
        >>> callback = UnfreezeWordTokensCallback(
        ...     model, tokenizer, words_to_unfreeze="crined"
        ... )  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        words_to_unfreeze: str | Sequence[str],
        word_embeddings_name: str | None = None,
    ) -> None:
        super().__init__(model, tokenizer)
        unfrozen = word_rows(
            model, tokenizer, words_to_unfreeze, "words_to_unfreeze", word_embeddings_name
        )
        if (adapter := adapter_of(model)) is not None:
            import torch

            learns = (weight for weight in adapter.weights() if weight.requires_grad)
            unfrozen |= {
                weight: torch.ones([1] * weight.ndim, dtype=torch.bool) for weight in learns
            }
        self.freeze_all_but(unfrozen)

    @staticmethod
    def check(words_to_unfreeze: Any, word_embeddings_name: Any = None) -> None:
        """See that words are words.

        Raises:
            UserError: If not.
        """
        check_word_arguments(words_to_unfreeze, "words_to_unfreeze", word_embeddings_name)
