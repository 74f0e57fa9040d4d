"""What the measures of this package have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from finetune_lm.models.tasks import Task
from finetune_lm.scoring.measuring import LogitRows

if TYPE_CHECKING:
    from torch import Tensor


class Measure(ABC):
    """A measure that is asked about rows of logits which are gone through anyway.

    What `of_rows` finds are its columns, unless it has a method ``finish``, which makes them. That
    is given what was found of each token by name, NaN where nothing predicts it, (n,) each; the
    same of the prediction behind each token; and the `Tokens`; and returns (n,) for each column.

    Attributes:
        columns: Its columns in the tables.
        integers: Those of them that are whole numbers.
        over_word: What a table of words takes of a word's tokens, see the package.
        reads_logits: Whether it looks at the logits themselves, and not at what is made of them.
        looks_behind: Whether it needs what is predicted behind each token as well.
        calls_model_with: Arguments that, where they are given, let it call the model by itself.
    """

    columns: Sequence[str]
    integers: ClassVar[frozenset[str]] = frozenset()
    over_word: ClassVar[str | None] = "first"
    reads_logits: ClassVar[bool] = False
    looks_behind: ClassVar[bool] = False
    calls_model_with: ClassVar[Sequence[str]] = ()

    @abstractmethod
    def of_rows(self, rows: LogitRows, beside: Any = None) -> dict[str, Tensor]:
        """What is measured of rows of logits, by name: (k,) for their k targets.

        Args:
            rows: The rows.
            beside: What was prepared beside them, if anything was.
        """

    def __call__(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """What is measured of a block of logits by itself.

        Args:
            logits: (n, vocabulary), in float32.
            targets: The token that each row predicts: (n,).
        """
        return self.of_rows(LogitRows(logits, targets))

    def task_problem(self, task: Task) -> str | None:
        """Why a kind of model cannot have it, None if it can."""
        del task
        return None

    def prepare(
        self, inputs: Mapping[str, Tensor], rows: Tensor, positions: Tensor
    ) -> Tensor | None:
        """What is needed of some positions before their logits come, (k, ...); None for nothing.

        Args:
            inputs: What the model is called with, without labels.
            rows: The example of each position: (k,).
            positions: Its place in that example: (k,).
        """
        del inputs, rows, positions
        return None

    def beside(self, made: Tensor, which: Any) -> AbstractContextManager[Tensor]:
        """What `of_rows` is given beside some rows.

        Args:
            made: What `prepare` has returned.
            which: The position of each row: a slice, or an index of shape (n,).
        """
        return nullcontext(made[which])


def products_of_rows(left: Tensor, right: Tensor) -> Tensor:
    """The scalar product of each row of one tensor with the same one of another: (n,).

    Args:
        left: (n, width).
        right: (n, width).
    """
    import torch

    if left.device.type != "cpu":
        # A product of matrices may be rounded there (TF32), sums are not.
        return (left * right).sum(dim=-1)
    # One by one, which takes a seventh of the time of a batch of products.
    found = [a.dot(b) for a, b in zip(left.unbind(), right.unbind(), strict=True)]
    return torch.stack(found) if found else left.new_empty(0)
