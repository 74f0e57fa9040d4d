"""Whether a fast way comes to the same as the plain one, and by which examples that is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finetune_lm.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finetune_lm.scoring.fast.calling import Caller

# How far the logits may be from those of the plain model, relative to the largest: float32 sums in
# another order differ by some 1e-6, a model that does something else by far more.
_TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
_TOLERANCE_OF_HALF_PRECISION = 2e-2
# What one example is on its own differs by less: it is computed with the same shapes but one.
_STRICTER = 5.0
_MORE_PADDING = 7
# How many examples are compared, and how many tokens are enough.
_EXAMPLES_COMPARED = 4
_TOKENS_COMPARED = 1000
# A short example changes how these compute from then on.
_CHANGED_BY_SHORT_EXAMPLES = frozenset({"big_bird", "bigbird_pegasus"})
# Logits beyond those of models, to see whether something bounds them.
_LARGE = 100.0


def examples_to_compare(attention_mask: Tensor, rows: Tensor) -> Tensor:
    """A few examples of a batch by which to compare ways: short and long ones.

    Four of those in which something is asked, or as many as have a thousand tokens, padding
    included, but two at least.

    Args:
        attention_mask: 1 for tokens, 0 for padding: (n, length).
        rows: The example of each position that is asked about: (k,).

    Returns:
        Their rows, in order.
    """
    import torch

    lengths, counts = _lengths_and_counts(attention_mask, rows)
    asked = counts.nonzero().squeeze(-1)
    # By length, and among those of one length by how much is asked in them.
    keys = lengths[asked] * (int(counts.max()) + 1) + counts[asked]
    in_order = asked[keys.argsort(stable=True)]
    n = min(len(asked), _EXAMPLES_COMPARED)
    while n > 2 and n * attention_mask.shape[1] > _TOKENS_COMPARED:
        n -= 1
    spread = torch.linspace(0, len(in_order) - 1, n).round().long()
    chosen: Tensor = in_order[spread].sort().values
    return chosen


ALL_TRAITS = frozenset({"several", "lengths", "counts"})


def traits_of(attention_mask: Tensor, rows: Tensor) -> frozenset[str]:
    """What a batch has by which ways of calling a model may be told apart.

    Several examples, examples of different lengths, and different numbers of predictions in them.
    The arguments are those of `examples_to_compare`.
    """
    lengths, counts = _lengths_and_counts(attention_mask, rows)
    asked = counts > 0
    found = {
        "several": int(asked.sum()) > 1,
        "lengths": len(lengths[asked].unique()) > 1,  # type: ignore[no-untyped-call]
        "counts": len(counts[asked].unique()) > 1,  # type: ignore[no-untyped-call]
    }
    return frozenset(name for name, is_there in found.items() if is_there)


def _lengths_and_counts(attention_mask: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """How many tokens each example has, and how many of its positions are asked about: (n,)."""
    return attention_mask.sum(dim=1), rows.bincount(minlength=len(attention_mask))


def are_same(
    found: Tensor, expected: Tensor, kind: torch.dtype | None = None, stricter: float = 1.0
) -> bool:
    """Whether logits are the same but for rounding.

    Args:
        found: Any logits.
        expected: Those of the plain model.
        kind: The precision that they were computed in; by default their own.
        stricter: How many times less rounding there must be.
    """
    if found.shape != expected.shape:
        return False
    name = str(kind or expected.dtype).removeprefix("torch.")
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    tolerance = _TOLERANCE.get(name, _TOLERANCE_OF_HALF_PRECISION) * max(largest, 1.0)
    tolerance /= stricter
    return bool(((found - expected).abs() <= tolerance).all())


def pads_freely(
    call: Caller,
    inputs: dict[str, Tensor],
    rows: Tensor,
    positions: Tensor,
    kind: torch.dtype | None,
) -> bool:
    """Whether one example has the same logits with more padding.

    That is not so in models that mix positions by other means than attention. The arguments are
    those of `scoring.fast.output_layer.OutputLayer.logits`, and the precision as of `are_same`.
    """
    import torch

    config = getattr(call.model, "config", None)
    if getattr(config, "chunk_size_feed_forward", 0) or (
        getattr(config, "model_type", None) in _CHANGED_BY_SHORT_EXAMPLES
    ):
        return False
    first = int(rows[0])
    length = max(int(inputs["attention_mask"][first].sum()), 1)
    alone = {name: tensor[first : first + 1] for name, tensor in inputs.items()}
    for name in ("input_ids", "attention_mask"):
        alone[name] = alone[name][:, :length]
    more = dict(alone)
    padding = torch.zeros_like(alone["input_ids"][:, :1]).expand(1, _MORE_PADDING)
    more["input_ids"] = torch.cat([alone["input_ids"], padding], dim=1)
    more["attention_mask"] = torch.cat([alone["attention_mask"], padding], dim=1)
    of_first = positions[rows == first]
    row = torch.zeros_like(of_first)
    try:
        one, other = (call.plain(each, row, of_first) for each in (alone, more))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # Some take only some lengths.
        return False
    return are_same(one, other, kind, stricter=_STRICTER)


def returns_what_the_layer_does(
    call: Caller,
    inputs: dict[str, Tensor],
    rows: Tensor,
    positions: Tensor,
    behind: Callable[[Tensor], Tensor] | None = None,
) -> bool:
    """Whether a model does with its last layer's logits what is expected, whatever these are.

    A bound on them, for example, does not show in those of a model that has learned little.

    Args:
        call: Calls the model.
        inputs: As of `pads_freely`, and the others, too.
        rows: The example of each position.
        positions: Its place in that example.
        behind: What is done with the logits; None if they are left as they are.
    """
    import torch

    made_up: list[Tensor] = []

    def replace(_: Any, args: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        values = torch.linspace(-_LARGE, _LARGE, logits.numel(), device=logits.device)
        made_up.append(values.view(logits.shape).to(logits.dtype))
        return made_up[-1]

    first = int(rows[0])
    inputs = {name: tensor[first : first + 1] for name, tensor in inputs.items()}
    of_first = positions[rows == first]
    handle = call.layer.register_forward_hook(replace)
    try:
        _, logits = call.selected(inputs, torch.zeros_like(of_first), of_first)
    finally:
        handle.remove()
    expected = made_up[-1] if behind is None else behind(made_up[-1].clone())
    return torch.allclose(logits.float(), expected.float(), atol=1e-5)


@contextmanager
def autocast_of(layer: Any) -> Iterator[list[torch.dtype | None]]:
    """Find out in which precision a layer is called if autocast is on; None if it is off."""
    import torch

    found: list[torch.dtype | None] = []

    def look(_: Any, args: tuple[Tensor, ...]) -> None:
        kind = args[0].device.type
        is_on = torch.is_autocast_enabled(kind)
        found.append(torch.get_autocast_dtype(kind) if is_on else None)

    handle = layer.register_forward_pre_hook(look)
    try:
        yield found
    finally:
        handle.remove()
