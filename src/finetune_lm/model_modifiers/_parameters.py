"""Parameters of a model, and entries of them, by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from finetune_lm.errors import UserError
from finetune_lm.model_modifiers._indices import Item, index_mask, parse_index

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

Marked = dict["Parameter", "Tensor"]
"""Entries of some parameters: masks that broadcast to their shapes."""


@dataclass(frozen=True)
class ParameterPattern:
    """A name of parameters, with or without an index.

    Attributes:
        text: As the user wrote it.
        name: The name, in which ``*`` stands for any text and ``?`` for any one character.
        index: Which entries; None for all.
    """

    text: str
    name: str
    index: tuple[Item, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name with perhaps an index behind it.

        Raises:
            UserError: If the text is none.

        Example:
            >>> ParameterPattern.parse("transformer.wte.weight[0:100]").index
            (slice(0, 100, None),)
        """
        name, bracket, rest = text.strip().partition("[")
        if not name.strip():
            raise UserError(f"{text!r} must begin with the name of a parameter.")
        if not bracket:
            return cls(text, name)
        if not rest.endswith("]"):
            raise UserError(f"{text!r} must end with ']'.")
        try:
            return cls(text, name.strip(), parse_index(rest[:-1]))
        except UserError as error:
            raise UserError(f"{text!r}: {error}") from None

    def find(self, model: Any) -> Marked:
        """The entries that the pattern means.

        Raises:
            UserError: If there are none.
        """
        import torch

        named = dict(model.named_parameters(remove_duplicate=False))
        wanted = re.compile(re.escape(self.name).replace(r"\*", ".*").replace(r"\?", "."))
        found = {name: each for name, each in named.items() if wanted.fullmatch(name)}
        if not found:
            raise UserError(no_such_parameter(self.name, list(named)))
        marked: Marked = {}
        for name, parameter in found.items():
            try:
                mask = (
                    index_mask(self.index, parameter.shape)
                    if self.index is not None
                    else torch.ones([1] * parameter.ndim, dtype=torch.bool)
                )
            except UserError as error:
                raise UserError(f"{self.text!r} does not fit {name}: {error}") from None
            marked[parameter] = mask
        return marked


def no_such_parameter(name: str, names: Sequence[str]) -> str:
    """Return a message with the names that are most like one that does not exist."""
    message = f"no parameter of the model is called {name!r}."
    inside = [other for other in names if other.startswith(f"{name}.")]
    if inside:
        return f"{message} {name}.* means all that are below it, such as {inside[0]}."
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    close = close or [other for other in names if name.strip("*?.") in other][:3] or [*names[:3]]
    return f"{message} There are {', '.join(close)}{' and others' if len(names) > 3 else ''}."


def checked_patterns(texts: Any, name: str) -> list[ParameterPattern]:
    """Names of parameters as a list; one may come without a list around it.

    Args:
        texts: The names.
        name: The argument that gives them, for messages.

    Raises:
        UserError: If they are no names, or there is none.
    """
    listed = [texts] if isinstance(texts, str) else texts
    if (
        not isinstance(listed, Sequence)
        or not listed
        or not all(isinstance(text, str) for text in listed)
    ):
        raise UserError(f"{name} must be a list of names of parameters but got {texts!r}.")
    patterns, problems = [], []
    for text in listed:
        try:
            patterns.append(ParameterPattern.parse(text))
        except UserError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    if problems:
        raise UserError(*problems)
    return patterns


def find_all(model: Any, patterns: Sequence[ParameterPattern], name: str) -> Marked:
    """The entries that some patterns mean together.

    Args:
        model: The model.
        patterns: The patterns. That they overlap does not matter.
        name: The argument that gives them, for messages.

    Raises:
        UserError: With a message for each pattern that means nothing.
    """
    marked: Marked = {}
    problems: list[str] = []
    for pattern in patterns:
        try:
            for parameter, mask in pattern.find(model).items():
                marked[parameter] = marked[parameter] | mask if parameter in marked else mask
        except UserError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    if problems:
        raise UserError(*problems)
    return marked
