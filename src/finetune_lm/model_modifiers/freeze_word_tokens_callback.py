"""Freeze the word embeddings of some words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune_lm.model_modifiers._freezing import FreezingCallback
from finetune_lm.model_modifiers._word_rows import check_word_arguments, word_rows


class FreezeWordTokensCallback(FreezingCallback):
    """Train everything but the word embeddings of some words.

    A word means the token that it is inside a sentence: where a tokenizer has another one for the
    beginning of a text, that one is not meant. Where input and output embeddings are tied, they
    are the same rows, and frozen as both.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        words_to_freeze: The words, one or several. Each must be a single token.
        word_embeddings_name: The parameter whose rows are the word embeddings; by default the
            model's own input embeddings.

    Raises:
        UserError: If a word is several tokens or unknown, or there is no such parameter.

    Example:
        >>> callback = FreezeWordTokensCallback(
        ...     model, tokenizer, words_to_freeze=["water", "juice"]
        ... )  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        words_to_freeze: str | Sequence[str],
        word_embeddings_name: str | None = None,
    ) -> None:
        super().__init__(model, tokenizer)
        self.freeze(
            word_rows(model, tokenizer, words_to_freeze, "words_to_freeze", word_embeddings_name)
        )

    @staticmethod
    def check(words_to_freeze: Any, word_embeddings_name: Any = None) -> None:
        """See that words are words.

        Raises:
            UserError: If not.
        """
        check_word_arguments(words_to_freeze, "words_to_freeze", word_embeddings_name)
