"""The rows of a model's word embeddings that belong to some words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune_lm.errors import UserError
from finetune_lm.model_modifiers._parameters import Marked, no_such_parameter
from finetune_lm.models.spelling import checked_words, spelling_in_sentence
from finetune_lm.models.vocabulary import embeddings_of, vocabulary_of

if TYPE_CHECKING:
    from torch.nn import Parameter


def check_word_arguments(words: Any, words_name: str, word_embeddings_name: Any) -> None:
    """See that words are words and that a name is a name.

    Raises:
        UserError: If not.
    """
    checked_words(words, words_name)
    if word_embeddings_name is not None and not isinstance(word_embeddings_name, str):
        raise UserError(
            "word_embeddings_name must be the name of a parameter but got "
            f"{word_embeddings_name!r}."
        )


def word_rows(
    model: Any,
    tokenizer: Any,
    words: str | Sequence[str],
    words_name: str,
    word_embeddings_name: str | None,
) -> Marked:
    """The rows of the word embeddings that are for some words.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        words: The words.
        words_name: The argument that gives them, for messages.
        word_embeddings_name: The parameter that the rows are of; by default the model's own input
            embeddings.

    Raises:
        UserError: If a word is several tokens or unknown, or there are no such embeddings.
    """
    import torch

    check_word_arguments(words, words_name, word_embeddings_name)
    ids = token_ids(checked_words(words, words_name), tokenizer, words_name)
    embeddings = _embeddings(model, word_embeddings_name)
    if max(ids) >= len(embeddings):
        raise UserError(
            f"word_embeddings_name must name a parameter with a row for each token, but it has "
            f"{len(embeddings)} rows and token {max(ids)} is among the {words_name}."
        )
    mask = torch.zeros([len(embeddings)] + [1] * (embeddings.ndim - 1), dtype=torch.bool)
    mask[torch.tensor(ids)] = True
    return {embeddings: mask}


def token_ids(words: Sequence[str], tokenizer: Any, words_name: str) -> list[int]:
    """The token that each word is inside a sentence.

    Args:
        words: The words.
        tokenizer: The tokenizer.
        words_name: The argument that gives them, for messages.

    Raises:
        UserError: With a message for each word that is several tokens or unknown.
    """
    vocabulary = vocabulary_of(tokenizer)
    ids: list[int] = []
    problems: list[str] = []
    for word in words:
        spelling = spelling_in_sentence(word, tokenizer, vocabulary)
        must = f"{words_name} must hold words that are single tokens inside a sentence, but"
        tokens = tokenizer.convert_ids_to_tokens(list(spelling or ()))
        shown = " ".join(map(repr, tokens))
        if spelling is None:
            problems.append(f"{must} {word!r} has no tokens of its own.")
        elif len(spelling) > 1:
            problems.append(
                f"{must} {word!r} falls into {len(spelling)}: {shown}. "
                f"model_modifiers.add_new_tokens makes a word a token."
            )
        elif spelling[0] == tokenizer.unk_token_id and word != tokenizer.unk_token:
            problems.append(f"{must} {word!r} is unknown to the tokenizer: it is read as {shown}.")
        else:
            ids.append(int(spelling[0]))
    if problems:
        raise UserError(*problems)
    return ids


def _embeddings(model: Any, name: str | None) -> Parameter:
    if name is not None:
        named = dict(model.named_parameters(remove_duplicate=False))
        if name not in named:
            raise UserError(f"word_embeddings_name: {no_such_parameter(name, list(named))}")
        parameter: Parameter = named[name]
    else:
        try:
            parameter = embeddings_of(model)
        except (AttributeError, NotImplementedError):
            raise UserError(
                f"word_embeddings_name must be given, because {type(model).__name__} does not say "
                f"where its word embeddings are."
            ) from None
    if not parameter.ndim:
        raise UserError(f"word_embeddings_name must name a parameter with rows, but {name} is one.")
    return parameter
