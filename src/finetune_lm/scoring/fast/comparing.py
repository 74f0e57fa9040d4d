"""Whether a fast way comes to the same as the plain one, and by which examples that is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import IGNORED_LABEL
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
# How many tokens of the longest example are compared, and of the others: enough that both differ in
# length and in how much is asked in them, and few enough that their logits fit anywhere.
_TOKENS_OF_LONGEST, _TOKENS_OF_OTHERS = 64, 32
# What is asked about behind these is kept from the first such position on.
_ASKED_AT_LEAST = 4
# How many logits are looked at together: 16 MB in float32.
_LOGITS_AT_ONCE = 2**22
# A short example changes how these compute from then on.
_CHANGED_BY_SHORT_EXAMPLES = frozenset({"big_bird", "bigbird_pegasus"})
# Logits beyond those of models, to see whether something bounds them.
_LARGE = 100.0


def few_to_compare(
    inputs: Mapping[str, Tensor], rows: Tensor, positions: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The beginnings of a few examples of a batch by which to compare ways.

    The longest, and one or two that differ from it in whatever examples of this batch do: in length
    and in how much is asked in them, see `traits_of`. A beginning is a text as good as any, and
    what tells ways apart shows in a short one.

    Args:
        inputs: What the model is called with, padded on the right; perhaps with ``labels``.
        rows: The example of each position that is asked about: (k,).
        positions: Its place in that example: (k,).

    Returns:
        The same of the few.
    """
    import torch

    lengths, counts = _lengths_and_counts(inputs["attention_mask"], rows)
    chosen = _telling(lengths, counts)
    first = positions.new_full((len(lengths),), positions.max().item())
    first = first.scatter_reduce(0, rows, positions, "amin")[chosen]
    most = torch.tensor([_TOKENS_OF_OTHERS] * (len(chosen) - 1) + [_TOKENS_OF_LONGEST])
    most = most.maximum(first + _ASKED_AT_LEAST)
    width = max(int(lengths[chosen].minimum(most).max()), 1)
    # A decoder is fed with labels, whose lengths are others.
    of_labels = {"labels", "decoder_input_ids"} if "decoder_input_ids" in inputs else set()
    few = {
        name: tensor[chosen, : int(most.max()) if name in of_labels else width]
        for name, tensor in inputs.items()
    }
    for name, hidden in (("attention_mask", 0), ("labels", IGNORED_LABEL)):
        if name in few:
            is_behind = torch.arange(few[name].shape[1]) >= most[:, None]
            few[name] = few[name].masked_fill(is_behind, hidden)
    place = torch.full((len(lengths),), -1)
    place[chosen] = torch.arange(len(chosen))
    rows = place[rows]
    # Padding may be asked about, too.
    is_among = (rows >= 0) & (positions < (most if of_labels else most.clamp(max=width))[rows])
    rows, positions = rows[is_among], positions[is_among]
    order = rows.argsort(stable=True)
    return few, rows[order], positions[order]


def _telling(lengths: Tensor, counts: Tensor) -> Tensor:
    """One or two examples that differ from the longest as much as any do, and that one: (n,)."""
    import torch

    asked = counts.nonzero().squeeze(-1)
    # By length, and among those of one length by how much is asked in them.
    keys = lengths[asked] * (int(counts.max()) + 1) + counts[asked]
    in_order = asked[keys.argsort(stable=True)]
    longest, others = in_order[-1], in_order[:-1]
    differs = torch.stack([each[others] != each[longest] for each in (lengths, counts)])
    chosen = []
    if len(others):
        second = differs.sum(dim=0).argmax()
        missing = differs.any(dim=1) & ~differs[:, second]
        chosen = [others[second], *(others[each.long().argmax()] for each in differs[missing])]
    return torch.stack([*chosen, longest])


ALL_TRAITS = frozenset({"several", "lengths", "counts"})


def traits_of(attention_mask: Tensor, rows: Tensor) -> frozenset[str]:
    """What a batch has by which ways of calling a model may be told apart.

    Several examples, examples of different lengths, and different numbers of predictions in them.

    Args:
        attention_mask: 1 for tokens, 0 for padding: (n, length).
        rows: The example of each position that is asked about: (k,).
    """
    return traits_in(*_lengths_and_counts(attention_mask, rows))


def traits_in(lengths: Tensor, counts: Tensor) -> frozenset[str]:
    """The same of examples with so many tokens and predictions: (n,) each.

    None of them has more than all of them together.
    """
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
    import torch

    if found.shape != expected.shape:
        return False
    if not expected.numel():
        return True
    name = str(kind or expected.dtype).removeprefix("torch.")
    largest = float(max(map(abs, expected.aminmax())))
    tolerance = _TOLERANCE.get(name, _TOLERANCE_OF_HALF_PRECISION) * max(largest, 1.0)
    tolerance /= stricter
    n_at_once = max(1, _LOGITS_AT_ONCE // max(expected.shape[-1], 1))
    parts = (torch.split(each, n_at_once) for each in (found, expected))
    # One that is no number is not the same.
    return all(bool((a - b).abs_().amax() <= tolerance) for a, b in zip(*parts, strict=True))


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


def made_up_logits(hidden: Tensor, size: int) -> Tensor:
    """Logits as no model makes them, to see what one does with its last layer's, whatever they are.

    A bound on them, for example, does not show in those of a model that has learned little.

    Args:
        hidden: What the layer is fed: (k, width).
        size: The size of the vocabulary.

    Returns:
        (k, vocabulary), each row a function of what is fed there.
    """
    import torch

    values = torch.linspace(-_LARGE, _LARGE, size, device=hidden.device)
    stretched: Tensor = values * (1 + hidden.float().mean(dim=-1, keepdim=True).tanh() / 2)
    return stretched.to(hidden.dtype)


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
