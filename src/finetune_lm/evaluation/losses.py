"""The losses of a run, combined into the one that is minimised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.arguments.calls import check_call
from finetune_lm.arguments.given_losses import takes_several
from finetune_lm.arguments.references import numbered_names, short_name
from finetune_lm.constants import BY_EXAMPLES, BY_LABELS, BY_SUM, OWN_SHARE
from finetune_lm.data.batch import from_device
from finetune_lm.errors import UserError, users_code
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.randomness import own_stream
from finetune_lm.ranks import world
from finetune_lm.recording.columns import LOSS

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class LossValues:
    """The losses of one batch, as tensors.

    Attributes:
        total: What is minimised.
        parts: Each loss by its column.
        counts: By what each of them counts among those that other ranks have found of the same
            batch; None for one that adds up.
    """

    total: Tensor
    parts: dict[str, Tensor]
    counts: Mapping[str, float | None] = field(default_factory=dict)

    def of_share(self, counts: Mapping[str, float | None]) -> Tensor | None:
        """What this rank adds to what is minimised, to which the others add theirs.

        Args:
            counts: By what each loss counts on all ranks together.

        Returns:
            A tensor of one value; None if there is nothing to be learned by this rank.
        """
        import torch

        if counts == self.counts:
            return self.total
        terms = []
        for name, value in self.parts.items():
            mine, of_all = self.counts[name], counts[name]
            if mine is None or of_all is None:
                terms += [value] if mine is None else []
            elif mine > 0:
                terms.append(value * (mine / of_all))
        return torch.stack(terms).sum() if terms else None

    def numbers(self) -> Mapping[str, float]:
        """All of them by column as numbers, which come from the device in one go."""
        import torch

        values = torch.stack([self.total.detach(), *(v.detach() for v in self.parts.values())])
        return _NumbersToCome([LOSS, *self.parts], from_device(values.float()))


class _NumbersToCome(Mapping[str, float]):
    """Numbers by column, which are waited for by whoever looks at one of them first."""

    def __init__(self, names: Sequence[str], coming: Callable[[], npt.NDArray[np.float32]]) -> None:
        self._names = names
        self._coming = coming

    @cached_property
    def _numbers(self) -> dict[str, float]:
        return dict(zip(self._names, self._coming().tolist(), strict=True))

    def __getitem__(self, name: str) -> float:
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class FoundLosses:
    """The losses of one batch, or of a rank's share of it, as numbers.

    Attributes:
        numbers: What is minimised and each loss, by column.
        counts: As of `LossValues`.
        weights: By what each loss counts in an epoch's mean, of those that say so.
    """

    numbers: Mapping[str, float]
    counts: Mapping[str, float | None] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)


def count_of(loss: Any, outputs: Any, labels: Tensor, n_labels: int) -> float | None:
    """By what the value of a loss counts among those of other ranks; None if it adds up.

    Args:
        loss: It says so by ``reduce_over_ranks``, see `arguments.given_losses.over_ranks_problems`.
        outputs: What the model returned for this rank's share of a batch; None if that is empty.
        labels: The labels of this share: (n, label_length).
        n_labels: How many of them count.
    """
    way = loss.reduce_over_ranks
    if way == OWN_SHARE:
        return None
    if outputs is None:
        return 0
    if way == BY_SUM:
        return None
    if way == BY_LABELS:
        return n_labels
    return len(labels) if way == BY_EXAMPLES else float(way(outputs, labels))


@dataclass(frozen=True)
class LossEntry:
    """A loss class and what it is made with.

    Attributes:
        cls: Made with ``model``, ``tokenizer`` and its own arguments; called with ``outputs`` and
            ``labels`` (or having a ``forward`` that is). One whose ``return_all`` is true may
            return several values, of which the mean counts.
        kwargs: Its own arguments.
        seed: That of its own stream of random numbers; None for the generators of the run.
    """

    cls: Callable[..., Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None


class Losses:
    """Losses made once for a run and called with each batch.

    Args:
        entries: Their classes.
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
        entries: Sequence[LossEntry],
        reduce: Callable[..., Tensor],
        model: Any,
        tokenizer: Any,
    ) -> None:
        self.names = numbered_names([entry.cls for entry in entries])
        self._reduce = reduce
        self._reduction = f"loss reduction {short_name(reduce)}"
        self._takes_several = takes_several(reduce, len(entries))
        self._made: list[Any] = []
        self._device: torch.device | None = None
        for entry, name in zip(entries, self.names, strict=True):
            check_call(entry.cls, "loss_classes_kwargs", entry.kwargs, "model, tokenizer")
            stream = nullcontext() if entry.seed is None else own_stream(entry.seed)
            try:
                with users_code(f"loss class {name}"), stream:
                    made = entry.cls(model=model, tokenizer=tokenizer, **entry.kwargs)
            except UserError as error:
                raise UserError(*(f"{name}: {problem}" for problem in error.problems)) from error
            if not callable(made) and not callable(getattr(made, "forward", None)):
                raise UserError(
                    f"loss class {name} must make an object that is called with outputs and "
                    f"labels, but made {type(made).__name__}."
                )
            self._made.append(made)

    def by_name(self) -> dict[str, Any]:
        """The instance of each class by its column."""
        return dict(zip(self.names, self._made, strict=True))

    def rewind(self) -> None:
        """Let losses draw at random what they drew from the beginning, if they can."""
        for loss in self._made:
            if callable(rewind := getattr(loss, "rewind", None)):
                rewind()

    def epoch_weights(self) -> dict[str, float]:
        """What the last value of each loss counts by in an epoch's mean, of those that say so."""
        return {
            name: float(loss.epoch_weight)
            for name, loss in self.by_name().items()
            if hasattr(loss, "epoch_weight")
        }

    def reduced(self, means: Mapping[str, float]) -> float:
        """What the reduction makes of means over an epoch, by column."""
        import torch

        return float(
            self._together([torch.tensor(means[n], device=self._device) for n in self.names])
        )

    @property
    def need_logits(self) -> bool:
        """Whether one of them needs more of the outputs than the model's own loss.

        A loss class says that it does not by ``needs_logits = False``. It says so of its own
        ``__call__``, not of that of a class that inherits from it.
        """
        return any(map(_needs_logits, self._made))

    @property
    def of_own_shares(self) -> set[str]:
        """Those of which a rank finds its share only, though it has all of a batch."""
        return {
            name
            for name, loss in self.by_name().items()
            if getattr(loss, "reduce_over_ranks", None) == OWN_SHARE
        }

    def joined(self, found: Sequence[FoundLosses], *, are_shares: bool = True) -> FoundLosses:
        """The losses of a batch of which each rank has found some.

        Args:
            found: What each has found.
            are_shares: Whether that is of its share of the batch; otherwise all had all of it.
        """
        if not are_shares:
            own = self.of_own_shares

            def of_all(name: str, values: list[float]) -> float:
                return sum(values) if name in own else values[0]

            parts = {n: of_all(n, [each.numbers[n] for each in found]) for n in self.names}
            weights = {n: of_all(n, [each.weights[n] for each in found]) for n in found[0].weights}
            return FoundLosses({LOSS: self.reduced(parts), **parts}, {}, weights)
        counts: dict[str, float | None] = {}
        parts = {}
        for name in self.names:
            given = [each.counts[name] for each in found]
            values = [each.numbers[name] for each in found]
            if None in given:
                counts[name], parts[name] = None, sum(values)
                continue
            by = [n or 0.0 for n in given]
            counts[name] = sum(by)
            total = sum(value * n for value, n in zip(values, by, strict=True) if n)
            parts[name] = total / (sum(by) or 1)
        weights = {n: sum(each.weights[n] for each in found) for n in found[0].weights}
        return FoundLosses({LOSS: self.reduced(parts), **parts}, counts, weights)

    def __call__(self, outputs: Any, labels: Tensor, n_labels: int | None = None) -> LossValues:
        """All losses of one batch, or of a rank's share of it.

        Args:
            outputs: What the model returned; None for a share of no example.
            labels: The labels it was called with, (n, label_length).
            n_labels: How many of them count; None where nothing is to be put together with what
                other ranks have found.

        Raises:
            UserError: If a loss or the reduction is not one number.
        """
        import torch

        parts = {}
        counts: dict[str, float | None] = {}
        for name, loss in self.by_name().items():
            if n_labels is not None and world().size > 1:
                with users_code(f"reduce_over_ranks of loss {name}"):
                    counts[name] = count_of(loss, outputs, labels, n_labels)
                if counts[name] == 0:
                    parts[name] = torch.zeros((), device=labels.device)
                    continue
            with _in_loss(name), users_code(f"loss {name}"):
                value = (loss if callable(loss) else loss.forward)(outputs, labels)
            if getattr(loss, "return_all", False) and isinstance(value, torch.Tensor):
                value = value.mean()
            if not _is_one_number(value):
                raise UserError(
                    f"{name} must return a tensor of one value but returned {_shown(value)}."
                )
            parts[name] = value.reshape(())
            if not value.is_floating_point():  # a number that is counted
                parts[name] = parts[name].float()
            self._device = value.device
        return LossValues(self._together(list(parts.values())), parts, counts)

    def _together(self, values: list[Tensor]) -> Tensor:
        """The value that is minimised: ()."""
        import torch

        given = values if self._takes_several else [torch.stack(values)]
        with users_code(self._reduction):
            total = self._reduce(*given)
        if not _is_one_number(total):
            raise UserError(
                f"a loss reduction must return a tensor of one value but returned {_shown(total)}."
            )
        return total.reshape(())


@contextmanager
def _in_loss(name: str) -> Iterator[None]:
    """Let an error about memory say in which loss it arose."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            error.loss = name  # type: ignore[union-attr]
        raise


def _needs_logits(loss: Any) -> bool:
    for each in (loss, *type(loss).__mro__):
        attributes = getattr(each, "__dict__", {})
        if "needs_logits" in attributes:
            return bool(attributes["needs_logits"])
        if "__call__" in attributes or "forward" in attributes:
            return True
    return True


def _is_one_number(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex()


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"one of shape {tuple(shape)}" if shape is not None else repr(value)[:80]
