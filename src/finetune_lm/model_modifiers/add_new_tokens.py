"""Add words to a model's vocabulary."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.errors import UserError
from finetune_lm.messages import say
from finetune_lm.model_modifiers._embedding_rows import (
    make_room,
    n_rows,
    set_to_draws,
    set_to_draws_around_mean,
    set_to_mean,
)
from finetune_lm.model_modifiers._new_words import pieces, teach
from finetune_lm.model_modifiers._probes import check_reading
from finetune_lm.model_modifiers._spelling import CONTINUATION, META_SPACE, Spelling
from finetune_lm.models.vocabulary import spelled

MEAN, MEAN_COV, RANDOM, SUBWORDS, COPY = "mean", "mean_cov", "random", "subwords", "copy:"
_NAMES = (MEAN, MEAN_COV, RANDOM, SUBWORDS)
_CHOICES = f"{', '.join(_NAMES)} or {COPY}WORD"

SCALE = 1e-5
"""How much of the covariance of all embeddings new words have, unless told otherwise."""

_SENTENCE = "a "
"""What stands before a word in the middle of a sentence."""


def add_new_tokens(
    model: Any,
    tokenizer: Any,
    added_tokens: str | Sequence[str],
    init: str = MEAN,
    scale: float = SCALE,
) -> None:
    """Make words single tokens of a model.

    A new word is one token wherever it stands as a word: first in a text, inside it, beside
    punctuation (a hyphen or an apostrophe counts as such), but never inside a longer word. All
    other tokens are what they were, at the places where they were, and decoding gives the text back
    as it did. Upper and lower case are as the tokenizer has them.

    As the tokenizer's own words do, a word has two entries where tokens contain the space before
    them (GPT-2, Llama, T5, RoBERTa, BART, ALBERT), one with the space and one without. Elsewhere
    (BERT, ELECTRA) it has one. A word that is one token inside a sentence already is left alone.

    Each row that is new, of the input embeddings, of the output embeddings where these are others,
    and of the output's bias, starts as ``init`` says, from the rows of the same table:

    - ``mean``: the mean of the rows of all tokens that the tokenizer had. Rows that no token had,
      such as T5's last 28, do not count. Several words then start the same.
    - ``mean_cov``: drawn from a normal distribution with that mean and ``scale`` times the
      covariance of these rows (Hewitt 2021), by torch's generator, which follows the run's seed.
      Words differ, but each is as near to the mean as ``scale`` says. Both entries of a word start
      the same.
    - ``random``: drawn from a normal distribution with their mean and standard deviation in each
      dimension, by the same generator. Both entries of a word start the same.
    - ``subwords``: the mean of the tokens that the word was before, for each entry.
    - ``copy:WORD``: what WORD has, for each entry. WORD must be one token inside a sentence.

    Args:
        model: A transformers model. It is enlarged only if it has no rows left for the new ids.
        tokenizer: Its tokenizer, a fast one.
        added_tokens: The words, or one word, as they stand in a text.
        init: ``mean``, ``mean_cov``, ``random``, ``subwords`` or ``copy:WORD``.
        scale: What ``mean_cov`` multiplies the covariance by.

    Raises:
        UserError: If one is no word, ``init`` is none of these or does not fit the word, ``scale``
            is not above 0, the tokenizer cannot be taught the word without changing what is around
            it, or the model cannot be enlarged.

    Example:
        >>> add_new_tokens(model, tokenizer, ["crined", "dax"])  # doctest: +SKIP
        >>> ids = tokenizer("The man crined.")["input_ids"]  # doctest: +SKIP
        >>> [tokenizer.decode(token) for token in ids]  # doctest: +SKIP
        ['The', ' man', ' crined', '.']
    """
    _check(added_tokens, init, scale)
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"add_new_tokens needs a fast tokenizer, but {type(tokenizer).__name__} is written in "
            f"Python: it would not find a word beside punctuation."
        )
    spelling = Spelling.of(tokenizer)
    words = _new_words(tokenizer, spelling, _as_list(added_tokens))
    if not words:
        return

    trial = copy.deepcopy(tokenizer)
    teach(trial, spelling, list(words))
    for read, word in words.items():
        ids = _ids(trial, spelling, read)
        check_reading(tokenizer, trial, word, ids, [*words, *words.values()])

    n_before = n_rows(model)
    known = sorted(row for row in tokenizer.get_vocab().values() if row < n_before)
    sources = {
        read: _sources(tokenizer, spelling, word, init, known) for read, word in words.items()
    }
    rows = {read: _ids(trial, spelling, read) for read in words}
    # An entry that the vocabulary had keeps its embedding.
    new = {row for of_word in rows.values() for row in of_word}.difference(known)
    make_room(model, max(trial.get_vocab().values()) + 1)
    teach(tokenizer, spelling, list(words))
    # Rows that nobody asked for, of tokens that the model had none for, are not left to chance.
    start: dict[int, Sequence[int]] = dict.fromkeys(range(n_before, n_rows(model)), known)
    for read, of_word in rows.items():
        start |= {row: s for row, s in zip(of_word, sources[read], strict=True) if row in new}
    set_to_mean(model, start)
    drawn = [[row for row in of_word if row in new] for of_word in rows.values()]
    if init == RANDOM:
        set_to_draws(model, drawn, known)
    elif init == MEAN_COV:
        set_to_draws_around_mean(model, drawn, known, scale)
    for read, word in words.items():
        say(_told(tokenizer, spelling, word, read, new))


def _check(added_tokens: Any, init: Any = MEAN, scale: Any = SCALE) -> None:
    """Check what can be checked without a model.

    Raises:
        UserError: If there is no word, one is not a word, ``init`` is not a choice, or ``scale`` is
            no number above 0 or has no use.
    """
    problems = [
        *_word_problems(added_tokens),
        *_init_problems(init),
        *_scale_problems(scale, init),
    ]
    if problems:
        raise UserError(*problems)


# Called when a command line is read, before anything is loaded.
vars(add_new_tokens).update(check=_check)


def _as_list(added_tokens: str | Sequence[str]) -> list[str]:
    return [added_tokens] if isinstance(added_tokens, str) else list(added_tokens)


def _word_problems(added_tokens: Any) -> list[str]:
    listed: Any = [added_tokens] if isinstance(added_tokens, str) else added_tokens
    if not isinstance(listed, Sequence) or not listed:
        return [f"added_tokens must be a list of words but got {added_tokens!r}."]
    problems = []
    for word in listed:
        if not isinstance(word, str):
            problems.append(
                f"added_tokens must be a list of words but has {word!r} in it. "
                f"Put quotes around a number that is meant as a word: '\"{word}\"'."
            )
        elif not word.strip():
            problems.append("added_tokens must be a list of words but one of them is empty.")
        elif len(word.split()) > 1:
            problems.append(
                f"added_tokens must be a list of single words but has {word!r} in it. "
                f"Give each by itself: {' '.join(word.split())}"
            )
        elif word.strip().startswith((META_SPACE, CONTINUATION)):
            problems.append(
                f"added_tokens must be words as they stand in a text but has {word!r} in it. "
                "Leave out the mark before it; it is added where it belongs."
            )
    return problems


def _init_problems(init: Any) -> list[str]:
    is_copy = isinstance(init, str) and init.startswith(COPY) and init.removeprefix(COPY).strip()
    if init in _NAMES or is_copy:
        return []
    return [f"init must be {_CHOICES} but got {init!r}.{did_you_mean(str(init), _NAMES)}"]


def _scale_problems(scale: Any, init: Any) -> list[str]:
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not is_number or not (0 < scale < math.inf):
        return [f"scale must be a number above 0 but got {scale!r}."]
    if scale != SCALE and init != MEAN_COV:
        return [f"scale has no use because init is {init!r}; it is for {MEAN_COV}."]
    return []


def _new_words(tokenizer: Any, spelling: Spelling, words: Sequence[str]) -> dict[str, str]:
    """Those words that are to be added, by how the tokenizer reads them.

    Raises:
        UserError: If one cannot be.
    """
    new: dict[str, str] = {}
    problems = []
    for word in dict.fromkeys(map(str.strip, words)):
        read = spelling.normalized(tokenizer, word)
        if word in tokenizer.all_special_tokens:
            problems.append(
                f"added_tokens cannot hold {word!r}, which is a special token of this model."
            )
        elif _is_token(tokenizer, pieces(tokenizer, word, _SENTENCE)):
            say(f"add_new_tokens: {word!r} is one token already and is left alone.")
        elif not read or any(character.isspace() for character in read):
            problems.append(
                "added_tokens must be words that this model's tokenizer leaves as they are, but "
                f"it reads {word!r} as {read!r}."
            )
        elif read in new:
            say(f"add_new_tokens: {new[read]!r} and {word!r} are the same word for this tokenizer.")
        else:
            new[read] = word
    if problems:
        raise UserError(*problems)
    return new


def _is_token(tokenizer: Any, ids: Sequence[int] | None) -> bool:
    return ids is not None and len(ids) == 1 and ids[0] != tokenizer.unk_token_id


def _ids(tokenizer: Any, spelling: Spelling, read: str) -> list[int]:
    """The ids of a word's entries."""
    return [tokenizer.backend_tokenizer.token_to_id(f.content) for f in spelling.forms(read)]


def _sources(
    tokenizer: Any, spelling: Spelling, word: str, init: str, known: Sequence[int]
) -> list[Sequence[int]]:
    """For each entry of a word, the tokens that it starts as the mean of.

    Raises:
        UserError: If there are none.
    """
    if init in (MEAN, MEAN_COV, RANDOM):
        return [known for _ in spelling.forms(word)]
    source = word if init == SUBWORDS else init.removeprefix(COPY).strip()
    spaced = pieces(tokenizer, source, _SENTENCE) or pieces(tokenizer, source, "") or []
    shown = " ".join(spelled(tokenizer, spaced))
    if init == SUBWORDS and (not spaced or tokenizer.unk_token_id in spaced):
        raise UserError(
            f"init {SUBWORDS} needs words whose parts the tokenizer knows, but {word!r} is {shown}."
        )
    if init != SUBWORDS and not _is_token(tokenizer, spaced):
        raise UserError(
            f"init {COPY}WORD needs a WORD that is one token of this model, but {source!r} is "
            f"{shown}."
        )
    bare = pieces(tokenizer, source, "(" if spelling.starts_spaced else "") or spaced
    if init != SUBWORDS and not _is_token(tokenizer, bare):
        bare = spaced
    return [spaced] if spelling.sign is None else [spaced, bare]


def _told(tokenizer: Any, spelling: Spelling, word: str, read: str, new: set[int]) -> str:
    """What is said of a word that was added."""
    where = ["", ""]
    if spelling.sign is not None:
        start = "" if spelling.starts_spaced else "at the start of a text or "
        where = [" in a sentence", f" {start}right behind punctuation"]
    entries = [
        f"{form.content!r} (id {row}{'' if row in new else ', which was there before'}){place}"
        for form, row, place in zip(
            spelling.forms(read), _ids(tokenizer, spelling, read), where, strict=False
        )
    ]
    return f"add_new_tokens: {word!r} is one token now: {', '.join(entries)}."
