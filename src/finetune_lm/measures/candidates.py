"""What listed words would cost in a token's place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.errors import UserError
from finetune_lm.measures._chains import costs_of_chains
from finetune_lm.measures._measure import Measure
from finetune_lm.models.spelling import (
    Spelling,
    checked_words,
    spelling_at_beginning,
    spelling_in_sentence,
)
from finetune_lm.models.tasks import Task
from finetune_lm.models.vocabulary import spelled, vocabulary_of
from finetune_lm.scoring.measuring import LogitRows, Tokens

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float32]

# How the values in the middle of a text and at its beginning are called until it is known where
# tokens are.
_INSIDE, _FIRST = "inside", "first"


class Candidates(Measure):
    """What listed words would cost at each position, in bits: ``surprisal_of_NAME``.

    A word is the token that sentences use there: where a tokenizer has one of its own behind a
    space, that one, and at the beginning of a text the one without; if it is several tokens there,
    the value is missing there. The cost of a set is that of
    any of its words, -log2 of the sum of their probabilities.

    Wilson, Petty & Frank (2023, https://doi.org/10.1162/tacl_a_00608) measure so what a model has
    learned about a new word's arguments.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        words: Words with a column each.
        sets: Sets of words, by the name of the column.
        at: Names of regions outside of which the columns are missing; None for everywhere.
        chained: Whether a word may be several tokens: then its cost is that of one after the other
            behind the same context, for causal models, with the model in eval mode. That takes a
            pass through the model for each position and word.

    Raises:
        UserError: If a word is several tokens, or an argument will not do.
    """

    calls_model_with = ("chained",)

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        words: Sequence[str] | str = (),
        sets: Mapping[str, Sequence[str] | str] | None = None,
        at: Sequence[str] | str | None = None,
        chained: bool = False,
    ) -> None:
        self._named = _named(words, sets)
        self._at = None if at is None else self.regions_of(at=at)
        self.columns = tuple(f"surprisal_of_{name}" for name in self._named)
        vocabulary = vocabulary_of(tokenizer)
        inside = [
            [spelling_in_sentence(word, tokenizer, vocabulary) for word in members]
            for members in self._named.values()
        ]
        problems = {
            _problem(word, spelling, tokenizer, chained): None
            for members, spellings in zip(self._named.values(), inside, strict=True)
            for word, spelling in zip(members, spellings, strict=True)
        }
        if told := [problem for problem in problems if problem is not None]:
            raise UserError(
                f"each word must be one token but {', '.join(told)}. Take other words, add them "
                f"(model_modifiers.add_new_tokens), or set chained True."
            )
        first = [
            [spelling_at_beginning(word, tokenizer, vocabulary) for word in members]
            for members in self._named.values()
        ]
        self._of_place: dict[str, list[list[Spelling] | None]] = {
            place: [_all_usable(spellings, chained) for spellings in found]
            for place, found in ((_INSIDE, inside), (_FIRST, first))
        }
        self._chains = sorted(
            {
                spelling
                for found in self._of_place.values()
                for spellings in found
                for spelling in spellings or []
                if len(spelling) > 1
            }
        )
        usable = [each for found in self._of_place.values() for each in found]
        self._names = [f"{c} {place}" for place in self._of_place for c in self.columns]
        # Of each name which of all single tokens and chains, one after the other, are its words.
        singles = sorted({s for each in usable for s in each or [] if len(s) == 1})
        self._singles = [token for (token,) in singles]
        places = {spelling: i for i, spelling in enumerate([*singles, *self._chains])}
        self._members = [[places[s] for s in each or []] for each in usable]
        self._sets = [j for j, each in enumerate(self._members) if len(each) > 1]
        self._indices: tuple[Tensor, Tensor] | None = None
        self._model = model

    @staticmethod
    def columns_of(**kwargs: Any) -> tuple[str, ...]:
        """The columns, which the words name."""
        named = _named(kwargs.get("words", ()), kwargs.get("sets"))
        return tuple(f"surprisal_of_{name}" for name in named)

    @staticmethod
    def regions_of(**kwargs: Any) -> frozenset[str]:
        """The regions outside of which there is nothing; none where it is everywhere."""
        at = kwargs.get("at")
        return frozenset([] if at is None else [at] if isinstance(at, str) else at)

    @staticmethod
    def check(**kwargs: Any) -> None:
        """See that keyword arguments will do, as far as that shows without a tokenizer."""
        named = _named(kwargs.get("words", ()), kwargs.get("sets"))
        if not named:
            raise UserError(
                "words or sets must be given, as in --measures_kwargs.Candidates.words tea juice."
            )
        at = kwargs.get("at")
        if at is not None:
            checked_words(at, "at")
        if not isinstance(kwargs.get("chained", False), bool):
            raise UserError(f"chained must be True or False but got {kwargs['chained']!r}.")

    @staticmethod
    def check_tokenizer(tokenizer: Any, task: Task, **kwargs: Any) -> None:
        """See that the words are tokens, or chains of them where the kind of model can have them.

        Raises:
            UserError: If they are not.
        """
        problem = Candidates(None, tokenizer, **kwargs).task_problem(task)
        if problem is not None:
            raise UserError(f"{problem}.")

    def task_problem(self, task: Task) -> str | None:
        """See `Measure.task_problem`."""
        if self._chains and not (task.predicts_in_order and task.labels_parallel_inputs):
            return f"chained is for causal models, not for a {task.description}"
        return None

    def prepare(
        self, inputs: Mapping[str, Tensor], rows: Tensor, positions: Tensor
    ) -> Tensor | None:
        """What words of several tokens cost behind each position, in nats: (k, n of them)."""
        if not self._chains:
            return None
        return costs_of_chains(self._model, inputs, (rows, positions), self._chains)

    def of_rows(self, rows: LogitRows, beside: Any = None) -> dict[str, Tensor]:
        """See `Measure.of_rows`: each column for both places where a word can stand."""
        names, values = self.of_rows_together(rows, beside)
        return dict(zip(names, values.unbind(dim=1), strict=True))

    def of_rows_together(self, rows: LogitRows, beside: Any = None) -> tuple[Sequence[str], Tensor]:
        """The same as names and one tensor, (k, number of names)."""
        import torch

        device = rows.logits.device
        if self._indices is None or self._indices[0].device != device:
            first = [each[0] if each else -1 for each in self._members]
            both = [torch.tensor(each, dtype=torch.int64) for each in (self._singles, first)]
            self._indices = both[0].to(device), both[1].to(device)
        singles, first_of = self._indices
        log_p = rows.shifted.index_select(1, singles) - rows.total.log()[:, None]
        parts = [-beside.to(log_p)] if self._chains else []
        # What has no words is the last of all, which is no number.
        log_p = torch.cat([log_p, *parts, log_p.new_full((len(log_p), 1), torch.nan)], dim=1)
        values = log_p[:, first_of]
        for j in self._sets:
            values[:, j] = log_p[:, self._members[j]].logsumexp(dim=1)
        return self._names, rows.of_targets(values / -math.log(2))

    def finish(
        self,
        measured: Mapping[str, FloatArray],
        behind: Mapping[str, FloatArray],
        tokens: Tokens,
    ) -> dict[str, FloatArray]:
        """See `Measure`."""
        del behind
        found = {
            column: np.where(
                tokens.begins, measured[f"{column} {_FIRST}"], measured[f"{column} {_INSIDE}"]
            )
            for column in self.columns
        }
        if self._at is None:
            return found
        is_in = np.array([region in self._at for region in tokens.regions], dtype=bool)
        return {name: np.where(is_in, v, np.float32(np.nan)) for name, v in found.items()}


def _named(words: Any, sets: Any) -> dict[str, list[str]]:
    """The words of each column, by its name.

    Raises:
        UserError: If they are no words, or a name is there twice.
    """
    found = {word: [word] for word in (checked_words(words, "words") if words else [])}
    if sets is not None and not isinstance(sets, Mapping):
        raise UserError(f"sets must be words by the name of each set but got {sets!r}.")
    for name, members in (sets or {}).items():
        if name in found:
            raise UserError(f"sets.{name} must have another name, since {name!r} is in words.")
        found[str(name)] = checked_words(members, f"sets.{name}")
    return found


def _problem(word: str, spelling: Spelling | None, tokenizer: Any, chained: bool) -> str | None:
    """Why a word cannot be a candidate, None if it can."""
    if spelling is None:
        return f"{word!r} has no tokens of its own"
    if len(spelling) > 1 and not chained:
        tokens = " ".join(map(repr, spelled(tokenizer, spelling)))
        return f"{word!r} is {len(spelling)} tokens ({tokens})"
    return None


def _all_usable(spellings: Sequence[Spelling | None], chained: bool) -> list[Spelling] | None:
    """The spellings, None if one cannot be used."""
    usable = [s for s in spellings if s is not None and (chained or len(s) == 1)]
    return usable if len(usable) == len(spellings) else None
