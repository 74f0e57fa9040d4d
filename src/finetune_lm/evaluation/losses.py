"""The losses of a run, combined into the one that is minimised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments.calls import check_call
from finetune_lm.arguments.reductions import takes_several
from finetune_lm.arguments.references import numbered_names
from finetune_lm.errors import UserError
from finetune_lm.evaluation.memory import in_loss
from finetune_lm.results.columns import LOSS

if TYPE_CHECKING:
    from torch import Tensor

    from finetune_lm.arguments import DataTrainingArguments
    from finetune_lm.data.files import Examples


@dataclass(frozen=True)
class LossValues:
    """The losses of one batch, as tensors.

    Attributes:
        total: What is minimised.
        parts: Each loss by its column.
    """

    total: Tensor
    parts: dict[str, Tensor]

    def numbers(self) -> dict[str, float]:
        """All of them by column as numbers, fetched from the device in one go."""
        import torch

        values = torch.stack([self.total.detach(), *(v.detach() for v in self.parts.values())])
        return dict(zip([LOSS, *self.parts], values.float().tolist(), strict=True))


class Losses:
    """Losses made once for a run and called with each batch.

    Args:
        classes: Made with ``model``, ``tokenizer`` and their own arguments; called with
            ``outputs`` and ``labels`` (or having a ``forward`` that is). One whose ``return_all``
            is true may return several values, of which the mean counts.
        kwargs: The arguments of each, in the same order.
        reduce: Combines the values. It is given them stacked in one tensor or one by one, as
            `takes_several` says.
        model: The model.
        tokenizer: Its tokenizer.

    Raises:
        UserError: If a class cannot be made with these arguments, or the reduction cannot be given
            so many losses.
    """

    def __init__(
        self,
        classes: Sequence[Callable[..., Any]],
        kwargs: Sequence[Mapping[str, Any]],
        reduce: Callable[..., Tensor],
        model: Any,
        tokenizer: Any,
    ) -> None:
        self.names = numbered_names(classes)
        self._reduce = reduce
        self._takes_several = takes_several(reduce, len(classes))
        self._made: list[Any] = []
        for cls, name, given in zip(classes, self.names, kwargs, strict=True):
            check_call(cls, "loss_classes_kwargs", given, "model, tokenizer")
            try:
                self._made.append(cls(model=model, tokenizer=tokenizer, **given))
            except UserError as error:
                raise UserError(*(f"{name}: {problem}" for problem in error.problems)) from error

    def by_name(self) -> dict[str, Any]:
        """The instance of each class by its column."""
        return dict(zip(self.names, self._made, strict=True))

    @property
    def need_logits(self) -> bool:
        """Whether one of them needs more of the outputs than the model's own loss.

        A loss class says that it does not by ``needs_logits = False``. It says so of its own
        ``__call__``, not of that of a class that inherits from it.
        """
        return any(map(_needs_logits, self._made))

    def __call__(self, outputs: Any, labels: Tensor) -> LossValues:
        """All losses of one batch.

        Args:
            outputs: What the model returned.
            labels: The labels it was called with, (n, label_length).

        Raises:
            UserError: If a loss or the reduction is not one number.
        """
        import torch

        parts = {}
        for name, loss in self.by_name().items():
            with in_loss(name):
                value = (loss if callable(loss) else loss.forward)(outputs, labels)
            if getattr(loss, "return_all", False) and isinstance(value, torch.Tensor):
                value = value.mean()
            if not isinstance(value, torch.Tensor) or value.numel() != 1:
                raise UserError(
                    f"{name} must return a tensor of one value but returned {_shown(value)}."
                )
            parts[name] = value.reshape(())
        values = list(parts.values())
        total = self._reduce(*values) if self._takes_several else self._reduce(torch.stack(values))
        if not isinstance(total, torch.Tensor) or total.numel() != 1:
            raise UserError(
                f"a loss reduction must return a tensor of one value but returned {_shown(total)}."
            )
        return LossValues(total.reshape(()), parts)


def read_loss_files(args: DataTrainingArguments) -> list[Examples]:
    """Read the data files that the losses of a training run use.

    Raises:
        UserError: With every problem of every file.
    """
    files: dict[str, Examples] = {}
    problems: list[str] = []
    for dataset_type, classes in args.loss_classes.items():
        for cls, kwargs in zip(classes, args.kwargs_of_losses(dataset_type), strict=True):
            if (read := getattr(cls, "read_files", None)) is None:
                continue
            try:
                files |= {examples.path: examples for examples in read(**kwargs)}
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return list(files.values())


class EpochLosses:
    """Means over an epoch, each batch weighing as much as it has labels that count."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weight = 0

    def add(self, losses: Mapping[str, float], n_labels: int) -> None:
        """Take in a batch."""
        self._weight += n_labels
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * n_labels

    def means(self, dataset_name: str) -> dict[str, float]:
        """The mean of each loss.

        Raises:
            UserError: If no label of the data set counts.
        """
        if not self._weight:
            raise UserError(
                f"{dataset_name} has nothing to predict: all of its labels are ignored. Masked "
                f"language models need masks, in the file or from a data_preprocessing_fn."
            )
        return {name: value / self._weight for name, value in self._sums.items()}

    @property
    def is_empty(self) -> bool:
        """Whether no label has counted so far."""
        return self._weight == 0

    def state_dict(self) -> dict[str, Any]:
        """What was taken in so far."""
        return {"sums": dict(self._sums), "weight": self._weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._sums, self._weight = dict(state["sums"]), state["weight"]


def _needs_logits(loss: Any) -> bool:
    for each in (loss, *type(loss).__mro__):
        attributes = getattr(each, "__dict__", {})
        if "needs_logits" in attributes:
            return bool(attributes["needs_logits"])
        if "__call__" in attributes or "forward" in attributes:
            return True
    return True


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"one of shape {tuple(shape)}" if shape is not None else repr(value)[:80]
