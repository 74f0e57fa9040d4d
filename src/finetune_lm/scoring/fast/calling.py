"""Call a model so that its last layer sees some positions only, and as little padding as may be."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from finetune_lm.data.batch import on_device, to_device
from finetune_lm.models.model_calls import called
from finetune_lm.scoring.fast import ragged, ragged_kinds
from finetune_lm.scoring.fast.activations import computes_again, in_one_operation, replaceable
from finetune_lm.scoring.fast.length_groups import Group, in_groups
from finetune_lm.scoring.fast.ragged_attention import Rows, laid_out
from finetune_lm.scoring.fast.row_inputs import row_inputs, told_positions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

StandIn = Callable[["Tensor"], "Tensor"]
"""Makes logits, (n, vocabulary), of what a last layer is fed: (k, width)."""


class Caller:
    """Calls a model for what its last layer is fed at some positions, and for the logits there.

    Inputs, rows and positions are those of `scoring.fast.output_layer.OutputLayer.logits`.

    Args:
        model: A transformers model.
        layer: Its last layer, which makes the logits.

    Attributes:
        layer: The last layer.
        is_ragged: Whether padding may be left out.
        worth_packing: How many places of padding there must be for that to be done.
        may_split: Whether a batch may go in as two, whose padding differs.
        is_causal: Whether tokens see those before them only, as far as that is known.
        activations: Modules that are called as one operation, see `activations`.
    """

    def __init__(self, model: Any, layer: Any) -> None:
        self._model_of = weakref.ref(model)
        self.layer = layer
        self.is_ragged = False
        self.worth_packing = 0
        self.may_split = False
        self.is_causal = ragged_kinds.is_causal(model)
        self._window = ragged_kinds.window_of(model)
        self.activations = replaceable(model)
        self._computes_again = computes_again(model)

    @property
    def model(self) -> Any:
        """The model."""
        return self._model_of()

    @property
    def n_logits(self) -> int:
        """How many logits the layer makes at a position."""
        return getattr(self.layer, "out_features", None) or len(self.layer.weight)

    def plain(self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> Tensor:
        """The logits at the positions, of the model called as usual."""
        device = self._device()
        logits: Tensor = called(self.model, on_device(inputs, device)).logits
        return logits[to_device(rows, device), to_device(positions, device)]

    def _device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def selected(
        self,
        inputs: dict[str, Tensor],
        rows: Tensor,
        positions: Tensor,
        *,
        stand_in: StandIn | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the layer is fed at the positions, and the logits that the model returns for it.

        The layer itself need not be called: something may stand in for it.
        """
        if not self._packs(inputs):
            return self._in_groups(inputs, rows, positions, stand_in)
        encoder = None
        if "decoder_input_ids" in inputs:
            layout, encoder = ragged.lay_out_pair(inputs, rows, positions)
        else:
            layout = ragged.lay_out(inputs["attention_mask"], is_causal=self.is_causal)
        nodes = layout.nodes(rows, positions)
        return self._in_a_row(inputs, Rows(layout, encoder), nodes, stand_in)

    def fed(self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> Tensor:
        """What the layer is fed at the positions, which makes no logits of it."""
        return self.selected(inputs, rows, positions, stand_in=self._nothing)[0]

    def _nothing(self, hidden: Tensor) -> Tensor:
        """One row of zeros, for models that do something with the logits behind the layer."""
        return hidden.new_zeros(1, self.n_logits)

    def _packs(self, inputs: dict[str, Tensor]) -> bool:
        """Whether a batch goes in without its padding."""
        if not self.is_ragged or not self._fits_window(inputs):
            return False
        mask = inputs["attention_mask"]
        return mask.numel() - int(mask.sum()) >= self.worth_packing

    def _fits_window(self, inputs: dict[str, Tensor]) -> bool:
        return self._window is None or int(inputs["attention_mask"].sum(1).max()) <= self._window

    def _in_groups(
        self,
        inputs: dict[str, Tensor],
        rows: Tensor,
        positions: Tensor,
        stand_in: StandIn | None,
    ) -> tuple[Tensor, Tensor]:
        import torch

        device = self._device()
        whole = Group(inputs, rows, positions, torch.arange(len(rows)))
        may_split = self.may_split and len(rows) > 0
        groups = in_groups(inputs, rows, positions) if may_split else [whole]
        found = []
        for group in groups:
            places = to_device(group.rows, device), to_device(group.positions, device)
            with _fed_with(self.layer, *places, stand_in) as fed, self._in_less_time():
                logits = called(self.model, on_device(group.inputs, device)).logits
            found.append((fed[0], logits))
        if len(groups) == 1:
            return found[0]
        order = to_device(torch.cat([group.asked for group in groups]).argsort(), device)
        hidden, logits = map(torch.cat, zip(*found, strict=True))
        return hidden[order], logits[order] if len(logits) == len(order) else logits

    def _in_a_row(
        self,
        inputs: dict[str, Tensor],
        in_row: Rows,
        nodes: Tensor,
        stand_in: StandIn | None,
    ) -> tuple[Tensor, Tensor]:
        device = self._device()
        in_row, nodes = in_row.to(device), to_device(nodes, device)
        inputs = on_device(inputs, device)
        with (
            laid_out(self.model, in_row),
            told_positions(self.model, inputs, in_row),
            _fed_with(self.layer, 0, nodes, stand_in) as fed,
            self._in_less_time(),
        ):
            logits = called(self.model, row_inputs(self.model, inputs, in_row)).logits
        return fed[0], logits

    @contextmanager
    def _in_less_time(self) -> Iterator[None]:
        """Let parts of the model compute the same in less time."""
        # It imports torch, which the start of a program does not wait for.
        from finetune_lm.scoring.fast.dropout import dropout_by_bytes

        # What the backward pass computes again would be dropped out in another way.
        dropout = nullcontext() if self._computes_again else dropout_by_bytes()
        with dropout, in_one_operation(self.activations):
            yield

    def of_beginnings(
        self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the last layer is fed at some positions, shared beginnings computed once.

        Only where `is_ragged` and `is_causal`, and without gradients.

        Returns:
            What the layer is fed, (n_distinct, width), and which of these each position has: (k,).
        """
        import torch

        if not self._fits_window(inputs):
            hidden = self.fed(inputs, rows, positions)
            return hidden, torch.arange(len(hidden), device=hidden.device)
        mask = inputs["attention_mask"]
        mask = mask * ragged.up_to_asked(mask.shape, rows, positions)
        layout = ragged.lay_out_tree(inputs["input_ids"], mask)
        distinct, which = layout.nodes(rows, positions).unique(return_inverse=True)  # type: ignore[no-untyped-call]
        hidden, _ = self._in_a_row(inputs, Rows(layout), distinct, self._nothing)
        return hidden, to_device(which, hidden.device)


@contextmanager
def _fed_with(
    layer: Any, rows: Tensor | int, positions: Tensor, stand_in: StandIn | None
) -> Iterator[list[Tensor]]:
    """Let a layer see only some positions of what it is called with; yields what these are.

    If something stands in for it, that does.
    """
    fed: list[Tensor] = []

    def select(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        fed.append(args[0][rows, positions])
        return (fed[-1], *args[1:])

    handle = layer.register_forward_pre_hook(select)
    own = vars(layer).get("forward")
    if stand_in is not None:
        layer.forward = stand_in
    try:
        yield fed
    finally:
        handle.remove()
        if own is not None:
            layer.forward = own
        elif stand_in is not None:
            del layer.forward
