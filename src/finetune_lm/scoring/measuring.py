"""What is measured of rows of logits beside the surprisal, where they are gone through anyway.

A *measure* is any object that is called with a block of float32 logits, (n, vocabulary), and the
token that each predicts, (n,), and returns its columns by name, (n,) each. Those of the package
`measures` are asked in another way, which spares them what a block is gone through for already:
they have a method ``of_rows``, called with `LogitRows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.errors import UserError, users_code
from finetune_lm.randomness import OwnRandomness

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finetune_lm.scoring.surprisal import Scores


class LogitRows:
    """Some rows of logits, and the tokens that they are asked about.

    Args:
        logits: (n, vocabulary), in float32. What a measure is given must be left as it is.
        targets: The tokens, (k,).
        row: The row that predicts each of them, (k,); None if each has a row of its own.
        beside: By measure, what `Measuring` has prepared for it of these rows.
    """

    def __init__(
        self,
        logits: Tensor,
        targets: Tensor,
        row: Tensor | None = None,
        beside: Mapping[int, Any] | None = None,
    ) -> None:
        self.logits = logits
        self.targets = targets
        self.row = row
        self.beside = beside or {}

    @cached_property
    def shifted(self) -> Tensor:
        """The logits less the largest of each row: (n, vocabulary)."""
        return self.logits - self.logits.amax(dim=-1, keepdim=True)

    @cached_property
    def exponentials(self) -> Tensor:
        """What the probabilities are proportional to: (n, vocabulary)."""
        return self.shifted.exp()

    @cached_property
    def total(self) -> Tensor:
        """The sum of the exponentials of each row: (n,)."""
        return self.exponentials.sum(dim=-1)

    def of_targets(self, values: Tensor) -> Tensor:
        """Values of rows, (n, ...), for the token of each: (k, ...)."""
        return values if self.row is None else values[self.row]


@dataclass(frozen=True)
class Tokens:
    """The tokens that have a row in a table, n of them, and where they stand.

    Attributes:
        token_id: Each of them: (n,).
        surprisal: What it costs in bits, NaN if nothing predicts it: (n,).
        word: The word that it is of, as a number of its own, -1 if it is of none: (n,).
        word_text: That word's text: (n,).
        num_in_word: The token's number in its word, from 0: (n,).
        straddles: Whether it is part of the word before its own as well: (n,).
        begins: Whether it is the first token of its text, behind what frames it: (n,).
        ends_word: Whether the token behind it is not of its word: (n,).
        next_id: The token behind it in its text, -1 if there is none: (n,).
        is_cut: Whether its text goes on behind what the model saw: (n,).
        in_order: Whether each is predicted from those before it only.
        regions: The region that each is in, None for none: (n,).
    """

    token_id: npt.NDArray[np.int64]
    surprisal: npt.NDArray[np.float32]
    word: npt.NDArray[np.int64]
    word_text: npt.NDArray[np.object_]
    num_in_word: npt.NDArray[np.int64]
    straddles: npt.NDArray[np.bool_]
    begins: npt.NDArray[np.bool_]
    ends_word: npt.NDArray[np.bool_]
    next_id: npt.NDArray[np.int64]
    is_cut: npt.NDArray[np.bool_]
    in_order: bool
    regions: npt.NDArray[np.object_]


class Measuring:
    """The measures of one data set, about one batch or several that go into the model together.

    Args:
        measures: The measures.
        inputs: What the model is called with, without labels.
        is_label: False where a label is padding: (n, label_length).
    """

    def __init__(
        self, measures: Sequence[Any], inputs: Mapping[str, Tensor], is_label: Tensor
    ) -> None:
        self._measures = measures
        self._inputs = inputs
        self.is_label = is_label

    def everywhere(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See `with_those_behind`."""
        return with_those_behind(self._measures, self.is_label, rows, positions)

    def begin(self, rows: Tensor, positions: Tensor, device: torch.device) -> Measurement:
        """Begin to measure at some positions.

        Args:
            rows: The example of each: (k,).
            positions: Its place in that example: (k,).
            device: Where the logits are.
        """
        return Measurement(self._measures, len(rows), device, self.prepared(rows, positions))

    def prepared(self, rows: Tensor, positions: Tensor) -> dict[int, Tensor]:
        """What measures make of some positions before their logits come, (k, ...) each."""
        made = {
            i: measure.prepare(self._inputs, rows, positions)
            for i, measure in enumerate(self._measures)
            if hasattr(measure, "prepare")
        }
        return {i: each for i, each in made.items() if each is not None}


class Measurement:
    """What is measured at k positions, some rows at a time.

    Args:
        measures: The measures.
        k: How many positions there are.
        device: Where the logits are.
        prepared: By measure what it made before, with a first dimension of k.
    """

    def __init__(
        self, measures: Sequence[Any], k: int, device: torch.device, prepared: Mapping[int, Any]
    ) -> None:
        self._measures = measures
        self._k, self._device = k, device
        self._prepared = prepared
        self._beside: dict[int, Tensor] = {}
        self._found: dict[str, Tensor] = {}
        self._found_together: dict[int, tuple[Sequence[str], Tensor]] = {}

    @property
    def values(self) -> dict[str, Tensor]:
        """What was measured, by name: (k,) each."""
        together = {
            name: column
            for names, values in self._found_together.values()
            for name, column in zip(names, values.unbind(dim=1), strict=True)
        }
        return {**self._found, **together}

    @property
    def uses_exponentials(self) -> bool:
        """Whether a measure is to be asked after the exponentials have taken the logits' place."""
        return any(not _reads_logits(measure) for measure in self._measures)

    @contextmanager
    def opened(self, which: Any) -> Iterator[None]:
        """Have ready what measures need beside a number of rows.

        Args:
            which: The position of each row: a slice, or an index of shape (n,).
        """
        if not self._prepared:
            yield
            return
        with ExitStack() as stack:
            self._beside = {
                i: stack.enter_context(self._measures[i].beside(made, which))
                for i, made in self._prepared.items()
            }
            yield
        self._beside = {}

    def rows(
        self, block: slice, logits: Tensor, targets: Tensor, row: Tensor | None = None
    ) -> LogitRows:
        """A block of the rows that are opened.

        Args:
            block: Which of them.
            logits: As of `LogitRows`, and the others, too.
            targets: The tokens that are asked about.
            row: Which row predicts each.
        """
        beside = {i: values[block] for i, values in self._beside.items()}
        return LogitRows(logits, targets, row, beside)

    def read_logits(self, rows: LogitRows, where: Any) -> None:
        """Ask those measures that look at the logits themselves.

        Args:
            rows: The rows.
            where: Which positions of all their targets are: a slice or an index.
        """
        for i, measure in enumerate(self._measures):
            if _reads_logits(measure):
                self._take(i, rows, where)

    def read_exponentials(self, rows: LogitRows, where: Any) -> None:
        """Ask the others, which look at what was made of the logits."""
        for i, measure in enumerate(self._measures):
            if not _reads_logits(measure):
                self._take(i, rows, where)

    def read(self, rows: LogitRows, where: Any) -> None:
        """Ask all."""
        self.read_logits(rows, where)
        self.read_exponentials(rows, where)

    def _take(self, i: int, rows: LogitRows, where: Any) -> None:
        import torch

        measure, beside = self._measures[i], rows.beside.get(i)
        if hasattr(measure, "of_rows_together"):
            # Of many columns each would be written by itself.
            names, block = measure.of_rows_together(rows, beside)
            if i not in self._found_together:
                everywhere = torch.full((self._k, len(names)), torch.nan, device=self._device)
                self._found_together[i] = names, everywhere
            self._found_together[i][1][where] = block.to(torch.float32)
            return
        of_rows = getattr(measure, "of_rows", None)
        found = of_rows(rows, beside) if of_rows else _called(measure, rows)
        for name, values in found.items():
            if name not in self._found:
                self._found[name] = torch.full((self._k,), torch.nan, device=self._device)
            self._found[name][where] = values.to(torch.float32)


def try_out(measure: Any, vocabulary_size: int, device: torch.device) -> None:
    """Ask a user's measure about two rows of random logits, so that mistakes in it show early.

    Nothing is done for those that are asked in another way (``of_rows``).

    Args:
        measure: The measure.
        vocabulary_size: How many logits a row has.
        device: Where the logits of the model are.

    Raises:
        UserError: If it does not return its columns.
    """
    import torch

    if hasattr(measure, "of_rows"):
        return
    with OwnRandomness(0):
        logits = torch.randn(2, vocabulary_size).to(device)
        targets = torch.tensor([0, vocabulary_size - 1], device=device)
        _called(measure, LogitRows(logits, targets))


def _called(measure: Any, rows: LogitRows) -> dict[str, Tensor]:
    """What a user's measure returns for rows, which are a copy so that it may change them."""
    import torch

    name = type(measure).__name__
    logits = rows.of_targets(rows.logits)
    logits = logits.clone() if rows.row is None else logits
    with torch.no_grad(), users_code(f"measure {name}"):
        found = measure(logits, rows.targets)
    columns = list(measure.columns)
    if isinstance(found, torch.Tensor) and len(columns) == 1:
        found = {columns[0]: found}
    described = _described(found)
    expected = dict.fromkeys(columns, str(tuple(rows.targets.shape)))
    if described != expected:
        raise UserError(
            f"measure {name} must return a dictionary of its columns {', '.join(columns)}, tensors "
            f"of numbers of shape {tuple(rows.targets.shape)}, but returned {described}."
        )
    return dict(found)


def _described(found: Any) -> Any:
    """What a measure returned, for people: the shape of each of its tensors."""
    import torch

    if not isinstance(found, Mapping):
        return type(found).__name__
    return {
        key: (f"{value.dtype} " if value.is_complex() else "") + str(tuple(value.shape))
        if isinstance(value, torch.Tensor)
        else type(value).__name__
        for key, value in found.items()
    }


def _reads_logits(measure: Any) -> bool:
    return bool(getattr(measure, "reads_logits", True))


def spread(
    values: npt.NDArray[np.float32], is_there: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Values of some tokens among all, NaN for the others: (n,)."""
    everywhere = np.full(len(is_there), np.nan, dtype=np.float32)
    everywhere[is_there] = values
    return everywhere


def finished(
    measure: Any, scores: Scores, is_predicted: npt.NDArray[np.bool_], tokens: Tokens | None
) -> dict[str, npt.NDArray[np.float32]]:
    """The columns of a measure, NaN where there is nothing: (n,) each.

    Args:
        measure: The measure.
        scores: Of those tokens that are predicted.
        is_predicted: Which these are: (n,).
        tokens: All tokens, for a measure with a method ``finish``.
    """
    if not is_predicted.any():
        return dict.fromkeys(measure.columns, spread(scores.surprisal, is_predicted))
    if not hasattr(measure, "finish"):
        return {name: spread(scores.measured[name], is_predicted) for name in measure.columns}
    measured, behind = (
        {name: spread(values, is_predicted) for name, values in each.items()}
        for each in (scores.measured, scores.measured_behind)
    )
    found: dict[str, npt.NDArray[np.float32]] = measure.finish(measured, behind, tokens)
    return found


def with_those_behind(
    measures: Sequence[Any], is_label: Tensor, rows: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Where predictions are that are asked about, and then those that measures need besides.

    A measure may need what is predicted behind each token as well, as far as that is not asked
    about anyway.

    Args:
        measures: The measures.
        is_label: False where a label is padding: (n, label_length).
        rows: The example of each prediction: (k,).
        positions: Its place in the logits: (k,).

    Returns:
        The example and the place of each, (k + m,) each.
    """
    import torch

    if not any(getattr(measure, "looks_behind", False) for measure in measures):
        return rows, positions
    n, width = is_label.shape
    asked = torch.zeros((n, width + 1), dtype=torch.bool)
    asked[rows, positions] = True
    wanted = torch.zeros_like(asked)
    wanted[rows, positions + 1] = True
    wanted[:, :width] &= is_label
    wanted[:, width:] = False
    more_rows, more_positions = (wanted & ~asked).nonzero(as_tuple=True)
    return torch.cat([rows, more_rows]), torch.cat([positions, more_positions])
