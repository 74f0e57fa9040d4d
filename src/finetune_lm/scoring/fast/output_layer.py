"""Logits at the positions that are asked about, and at no others."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune_lm.messages import say_once
from finetune_lm.models.inference import without_learning
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.scoring.fast import ragged_kinds
from finetune_lm.scoring.fast.behind_layer import behind_layer
from finetune_lm.scoring.fast.calling import Caller
from finetune_lm.scoring.fast.comparing import (
    ALL_TRAITS,
    are_same,
    autocast_of,
    few_to_compare,
    made_up_logits,
    pads_freely,
    traits_of,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finetune_lm.scoring.fast.criterion import Criterion

# How many rows of logits that were made up are looked at.
_ROWS_MADE_UP = 4
# How many places of padding a batch must have to go in without them on a GPU, where a small batch
# takes the time of launching its operations, of which there are more then.
_WORTH_PACKING_ON_A_GPU = 2**11
# How many times less logits that were made up may differ: the same is done with both.
_OF_MADE_UP = 1000.0


@dataclass(frozen=True)
class Behind:
    """Positions at which logits are looked at, but count in no loss.

    Attributes:
        rows: The example of each: (m,).
        positions: Its place in that example: (m,).
        look_at: Told which of all k + m positions some are, and their logits.
    """

    rows: Tensor
    positions: Tensor
    look_at: Callable[[slice, Tensor], None]


class OutputLayer:
    """A model's last layer, which makes logits of hidden states, fed with some positions only.

    The layer is the largest one of a small model and its outputs the largest of its tensors, while
    padding and ignored labels need no logits. What is selected before the layer comes out as it
    would if it were selected behind it, unless a model does something unusual there. Below the
    layer, padding is left out as well where the model is of a kind that `ragged_kinds` knows. Both
    are compared with the plain model on a few examples, and left where they differ.

    Args:
        model: A transformers model.
        fast: Whether to do all that. If not, the model is called as usual.
        may_pack: Whether padding may be left out.
    """

    def __init__(self, model: Any, *, fast: bool = True, may_pack: bool = True) -> None:
        # All who ask for a model's layer share it, so it must not keep the model alive.
        self._model_of = weakref.ref(model)
        find = getattr(model, "get_output_embeddings", None)
        self._layer = find() if fast and find is not None else None
        self._seen: frozenset[str] = frozenset()
        self._is_checked = self._layer is None
        self._may_pack = may_pack
        self._call = Caller(model, self._layer)
        self._behind = behind_layer(model)
        self.is_there = self._layer is not None
        """Whether the model has such a layer, and there is anything to be done."""
        self.selects = False
        """Whether logits are computed at the positions asked about only."""
        self.resumes = False
        """Whether logits can be made of what the layer was fed."""
        self._is_linear = False
        """Whether they are made by a product of matrices."""
        self.autocast_to: torch.dtype | None = None
        """The precision in which the model computes its products, if it is not its weights' own."""
        self._pads_freely = False
        """Whether logits are the same however much padding there is."""
        self.gives_own_loss: bool | None = None
        """Whether the model's own loss is what its logits cost; None while nobody has looked."""
        self.own_loss_seen: frozenset[str] = frozenset()
        """What there was to be seen in the examples by which that was found, see `traits_of`."""

    @property
    def _model(self) -> Any:
        return self._model_of()

    @property
    def is_ragged(self) -> bool:
        """Whether padding is left out."""
        return self._call.is_ragged

    @property
    def resumes_alone(self) -> bool:
        """Whether what the layer is fed does not depend on the examples that go in together."""
        return self.resumes and (self.is_ragged or self._pads_freely)

    @property
    def settled_for(self) -> frozenset[str]:
        """What batches may have, see `traits_of`, and nothing of the model is looked at again."""
        return self._seen & self.own_loss_seen if self._is_checked else frozenset()

    @property
    def n_logits(self) -> int:
        """How many logits it makes at a position."""
        return self._call.n_logits

    @property
    def n_bytes_fed(self) -> int:
        """How much memory takes at most what the layer is fed at a position."""
        weight = next(self._layer.parameters(), None) if self._layer is not None else None
        return weight.shape[-1] * max(weight.element_size(), 4) if weight is not None else 0

    @property
    def has_beginnings(self) -> bool:
        """Whether beginnings that sentences share can be computed once."""
        return self.is_ragged and self._call.is_causal

    def logits(self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> Tensor:
        """Logits at some positions, with gradients if they are enabled.

        Args:
            inputs: What the model is called with, without labels: still on the CPU, so that nothing
                waits for the model's device.
            rows: The example of each position, in the same place: (k,).
            positions: Its place in that example: (k,).

        Returns:
            (k, vocabulary).
        """
        self.check(inputs, rows, positions)
        if not self.selects:
            return self._call.plain(inputs, rows, positions)
        return self._call.selected(inputs, rows, positions)[1]

    def hidden(self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> Tensor | None:
        """What the last layer is fed at some positions, from which `of_hidden` makes the logits.

        Returns:
            (k, width of the layer); None for a model that has no such layer, or that changes the
            logits behind it.
        """
        self.check(inputs, rows, positions)
        if not self.resumes:
            return None
        return self._call.fed(inputs, rows, positions)

    @contextmanager
    def of_hidden(self, hidden: Tensor) -> Iterator[Tensor]:
        """The logits that the last layer makes of what it is fed, without gradients.

        Yields:
            (k, vocabulary), which may not be used after the context.
        """
        import torch

        from finetune_lm.scoring.fast.criterion import linear

        layer = self._layer
        assert layer is not None
        if self.autocast_to is not None or not _is_linear(layer, hidden) or _is_watched(layer):
            with torch.no_grad(), self._autocast(hidden.device.type):
                logits = self._finished(layer(hidden))
            yield logits
            return
        bias = layer.bias if layer.bias is None else layer.bias.detach()
        with linear(hidden.detach(), layer.weight.detach(), bias) as logits:
            yield self._finished(logits)

    def _finished(self, logits: Tensor) -> Tensor:
        return logits if self._behind is None else self._behind(logits)

    def of_beginnings(
        self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the last layer is fed at some positions, shared beginnings computed once.

        Only where `has_beginnings` and `resumes`, and without gradients.

        Returns:
            What the layer is fed, (n_distinct, width), and which of these each position has: (k,).
        """
        return self._call.of_beginnings(inputs, rows, positions)

    def judged(
        self,
        criterion: Criterion,
        inputs: dict[str, Tensor],
        rows: Tensor,
        positions: Tensor,
        behind: Behind | None = None,
    ) -> tuple[Tensor, ...]:
        """The results of a criterion for the logits at some positions.

        Args:
            criterion: The criterion.
            inputs: What the model is called with, without labels.
            rows: The example of each position: (k,).
            positions: Its place in that example: (k,).
            behind: More positions, at which logits are only looked at.

        Returns:
            Its results; gradients come from the first of them, if they are enabled.
        """
        import torch

        from finetune_lm.scoring.fast.criterion import of_linear, of_logits
        from finetune_lm.scoring.fast.embedding_rows import handed_on

        self.check(inputs, rows, positions)
        k = len(rows)
        if behind is not None:
            rows = torch.cat([rows, behind.rows])
            positions = torch.cat([positions, behind.positions])
        if not self._is_linear or _is_watched(self._layer):
            logits = self.logits(inputs, rows, positions)
            if behind is not None:
                behind.look_at(slice(k, len(logits)), logits[k:].detach())
                logits = logits[:k]
            return of_logits(logits, criterion)
        layer = self._layer
        assert layer is not None
        with handed_on(layer.weight) as handed:
            hidden = self._call.fed(inputs, rows, positions)
        if behind is not None:
            with self.of_hidden(hidden[k:].detach()) as logits:
                behind.look_at(slice(k, len(hidden)), logits)
            hidden = hidden[:k]
        return of_linear(hidden, handed[0], layer.bias, criterion)

    def check(self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> None:
        """Compare with the plain model by a few examples; arguments are those of `logits`.

        Once, and again if a batch shows what those before could not. If memory runs out meanwhile,
        or the model finds no numbers, it is still to be done.
        """
        if not len(rows) or (self._is_checked and not (self.selects and self._seen < ALL_TRAITS)):
            return
        if self._is_checked and traits_of(inputs["attention_mask"], rows) <= self._seen:
            return
        few = few_to_compare(inputs, rows, positions)
        with without_learning(self._model):
            with self.seen_at_work():
                plain = self._call.plain(*few)
            self.compare(*few, plain)

    @contextmanager
    def seen_at_work(self) -> Iterator[None]:
        """Find out, while the plain model is called, in which precision its layer computes."""
        with autocast_of(self._layer) as found:
            yield
        self.autocast_to = found[0] if found else None

    def compare(
        self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor, plain: Tensor
    ) -> Tensor | None:
        """Find the fastest way that comes to the plain model's logits. In eval mode, no gradients.

        Args:
            inputs: As of `logits`, of a few short examples, and the next two, too.
            rows: The example of each position.
            positions: Its place in that example.
            plain: The plain model's logits there: (k, vocabulary).

        Returns:
            The logits of that way, (k, vocabulary); None if there is none. If the plain model finds
            no numbers, it is still to be found.
        """
        self.selects = self.resumes = self._is_linear = self._is_checked = False
        if plain.isnan().any():
            return None
        self._seen |= traits_of(inputs["attention_mask"], rows)
        if self.autocast_to is not None:
            # One operation rounds once where eight do eight times: not the same any more.
            self._call.activations = []
        for is_ragged in [True, False] if self._can_pack(inputs) else [False]:
            self._call.is_ragged, self._call.worth_packing = is_ragged, 0
            self._pads_freely = not is_ragged and pads_freely(
                self._call, inputs, rows, positions, self.autocast_to
            )
            on_cpu = plain.device.type == "cpu"
            self._call.may_split = self._may_pack and self._pads_freely and on_cpu
            for find in (self._resumed, self._selected):
                found = _or_none(find, inputs, rows, positions)
                if found is not None and are_same(found, plain, self.autocast_to):
                    self.resumes = find == self._resumed
                    self.selects = self._is_checked = True
                    if is_ragged and not on_cpu:
                        self._pad_little(partial(find, inputs, rows, positions), plain)
                    return found
                self._is_linear = False
            if is_ragged:
                say_once("fast: padding stays, since this model gives other logits without it.")
        say_once(
            "fast: the model is called as usual, since it uses its output layer in its own way."
        )
        self._is_checked = True
        return None

    def _pad_little(self, find: Callable[[], Tensor | None], plain: Tensor) -> None:
        """Leave padding in where there is little of it, if that comes to the same, too."""
        is_linear = self._is_linear
        self._call.worth_packing = _WORTH_PACKING_ON_A_GPU
        padded = _or_none(find)
        if padded is None or not are_same(padded, plain, self.autocast_to):
            self._is_linear, self._call.worth_packing = is_linear, 0

    def _can_pack(self, inputs: dict[str, Tensor]) -> bool:
        if not self._may_pack:
            return False
        longest = int(inputs["attention_mask"].sum(dim=1).max())
        can = ragged_kinds.supports(self._model) and ragged_kinds.fits_window(self._model, longest)
        if not can:
            ragged_kinds.say_why_padding_stays(self._model, longest)
        return can

    def _autocast(self, device_type: str) -> AbstractContextManager[object]:
        """The precision in which the layer is called within the model."""
        import torch

        if self.autocast_to is None:
            return nullcontext()
        return torch.autocast(device_type, self.autocast_to)

    def _selected(self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> Tensor:
        return self._call.selected(inputs, rows, positions)[1]

    def _resumed(self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> Tensor | None:
        """The logits made of what the layer is fed, which is not called itself then.

        None if the model does anything else with what its layer makes. Where the model has autocast
        on, which reaches as far as its own call, the layer is called so as well.
        """

        def make_up(hidden: Tensor) -> Tensor:
            return made_up_logits(hidden, self._call.n_logits)

        hidden, returned = self._call.selected(inputs, rows, positions, stand_in=make_up)
        if len(returned) != len(hidden):
            return None
        # In any row it shows what is done with all of them.
        some = slice(None, None, max(1, len(hidden) // _ROWS_MADE_UP))
        expected = self._finished(make_up(hidden[some]))
        if not are_same(returned[some].float(), expected.float(), stricter=_OF_MADE_UP):
            return None
        self._is_linear = (
            self.autocast_to is None and self._behind is None and _is_linear(self._layer, hidden)
        )
        with self.of_hidden(hidden) as logits:
            return logits.clone()


def _or_none(find: Callable[..., Tensor | None], *asked: Any) -> Tensor | None:
    """What is found; None if the model is called in a way of its own.

    It may expect other shapes behind its layer, or its layer's weights are of another precision
    than what the layer was fed.
    """
    try:
        return find(*asked)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return None


def _is_linear(layer: Any, hidden: Tensor) -> bool:
    """Whether a layer is a product of matrices and nothing else."""
    import torch

    return type(layer) is torch.nn.Linear and layer.weight.dtype == hidden.dtype


def _is_watched(module: Any) -> bool:
    """Whether a module has hooks, or its ``forward`` was replaced."""
    return "forward" in vars(module) or bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
    )
