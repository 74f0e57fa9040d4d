"""Spans for span-denoising models: where they are, and what becomes of inputs and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_lm.constants import IGNORED_LABEL
from finetune_lm.data_preprocessing._selection import choose, n_to_mask, real, round_half_even
from finetune_lm.errors import UserError
from finetune_lm.models.vocabulary import Vocabulary, padding_id

if TYPE_CHECKING:
    from torch import Tensor


def input_and_target_lengths(
    length: int, mask_prop: float, mean_noise_span_length: float
) -> tuple[int, int]:
    """How many tokens of text make inputs of a given length, and how long their labels are.

    Span denoising shortens the inputs: each span becomes one sentinel. The most text is taken that
    leaves no more than ``length`` input tokens.

    Args:
        length: How long the inputs may be, with their sentinels and one end token.
        mask_prop: The share of tokens that is in spans.
        mean_noise_span_length: How long spans are on average, in tokens.

    Returns:
        The number of text tokens, and the length of the labels with their final sentinel.

    Raises:
        UserError: If no text fits.

    Example:
        >>> input_and_target_lengths(512, 0.15, 3.0)
        (568, 114)
    """

    def lengths(n: int) -> tuple[int, int]:
        n_noise = round(n * mask_prop)
        n_spans = round(n_noise / mean_noise_span_length)
        return n - n_noise + n_spans + 1, n_noise + n_spans + 1

    n = next((n for n in range(length, 0, -1) if lengths(n)[0] <= length), 0)
    if n < 1:
        raise UserError(f"length must leave room for text but is {length}.")
    while lengths(n + 1)[0] <= length:
        n += 1
    if mask_prop == 0.5 and lengths(n)[1] > length:  # labels as long as inputs, not one longer
        return n - 1, lengths(n)[1] - 1
    return n, lengths(n)[1]


def noise_mask(
    allowed: Tensor, mask_prop: float, mean_noise_span_length: float, most_spans: int
) -> Tensor:
    """Choose spans of tokens, in the way of T5's pre-training.

    Of n tokens ``min(max(round(mask_prop * n), 1), n - 1)`` are noise, in
    ``max(round(n_noise / mean_noise_span_length), 1)`` spans, or as many as there is room for. The
    noise is cut into that many pieces, and what is kept into one more, of which the last may be
    empty, all cuts equally likely. The pieces take turns, what is kept first. So the first token is
    never noise, no two spans touch, and a text may end in a span or not. (In T5's own code every
    text does, which for a text with a single span fixes its place.)

    Args:
        allowed: Which tokens may be chosen, (n, length).
        mask_prop: The share of them to choose.
        mean_noise_span_length: How long spans are on average.
        most_spans: How many there may be.

    Returns:
        Booleans, (n, length).
    """
    import torch

    n = allowed.sum(dim=1)
    n_noise = torch.minimum(n_to_mask(n, mask_prop), (n - 1).clamp(min=0))
    n_kept = n - n_noise
    n_spans = round_half_even(n_noise.double() / mean_noise_span_length).clamp(min=1)
    n_spans = torch.minimum(n_spans.clamp(max=most_spans), torch.minimum(n_noise, n_kept))
    noise = _pieces(n_noise, n_spans, allowed.shape[1])
    # What is kept has one piece more, behind the last span, and that one may be empty: it is cut
    # with one item too many. Without it the only span of a short text would always end the text.
    kept = _pieces(n_kept + 1, n_spans + 1, allowed.shape[1] + 1)[:, : noise.shape[1]]
    kept *= torch.arange(kept.shape[1], device=n.device) < n_spans[:, None]
    ends = torch.stack([kept, noise], dim=2).flatten(1).cumsum(dim=1)
    # A piece begins where the one before it ends; rows with fewer pieces have empty ones behind,
    # which all begin at the same place.
    begins = torch.zeros(len(allowed), allowed.shape[1] + 1, dtype=torch.long, device=n.device)
    begins.scatter_(1, ends, 1)
    is_noise = begins.cumsum(dim=1) % 2 == 1
    place = (allowed.cumsum(dim=1) - 1).clamp(min=0)
    return is_noise.gather(1, place) & allowed & (n_noise > 0)[:, None]


def _pieces(n_items: Tensor, n_pieces: Tensor, width: int) -> Tensor:
    """Cut ``n_items[i]`` items into ``n_pieces[i]`` pieces of one or more, at random.

    Returns:
        The length of each piece, 0 behind the last: (n, most pieces).
    """
    import torch

    gaps = torch.arange(width, device=n_items.device) < (n_items - 1)[:, None]
    cuts = choose(gaps, (n_pieces - 1).clamp(min=0))
    piece = torch.nn.functional.pad(cuts.long().cumsum(dim=1), (1, 0))[:, :width]
    items = torch.arange(width, device=n_items.device) < n_items[:, None]
    lengths = torch.zeros(len(n_items), max(width, 1), dtype=torch.long, device=n_items.device)
    lengths.scatter_add_(1, piece, items.long())
    return lengths[:, : max(int(n_pieces.max()) if len(n_pieces) else 1, 1)]


def first_of_run(chosen: Tensor) -> Tensor:
    """Which chosen tokens have no chosen token right before them: (n, length)."""
    begins = chosen.clone()
    begins[:, 1:] &= ~chosen[:, :-1]
    return begins


def corrupt(
    inputs: dict[str, Tensor],
    tokenizer: Any,
    vocabulary: Vocabulary,
    chosen: Tensor,
    begins: Tensor,
) -> dict[str, Tensor]:
    """Put one sentinel in place of each span, and make labels that say what was there.

    Labels are, for each span, its sentinel and its tokens, then one more sentinel. There is one
    span less than there are sentinels: what would be a span too many stays as it is.

    Args:
        inputs: ``input_ids``, ``attention_mask``, perhaps ``labels``, which are then kept.
        tokenizer: The tokenizer that made them.
        vocabulary: Its entries.
        chosen: Which tokens are in spans, (n, length).
        begins: Which of them begin a span, (n, length).

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, padded anew.

    Raises:
        UserError: If there are sentinels in a text already.
    """
    import torch

    ids = inputs["input_ids"]
    sentinels = torch.as_tensor(vocabulary.sentinel_ids, device=ids.device)
    kept, given = real(inputs), inputs.get("labels")
    _check_no_sentinels(ids, kept, sentinels, tokenizer)
    n_spans = begins.cumsum(dim=1)
    chosen = chosen & (n_spans < len(sentinels))
    begins = begins & chosen
    n_spans = begins.cumsum(dim=1)
    sentinel = sentinels[(n_spans - 1).clamp(min=0)]

    kept &= ~chosen | begins
    length = kept.sum(dim=1)
    input_ids = _packed(torch.where(begins, sentinel, ids), kept, padding_id(tokenizer))
    attention = torch.arange(input_ids.shape[1], device=ids.device) < length[:, None]
    if given is not None:
        labels = given
    else:
        # Each token of a span stands behind all tokens and sentinels of the spans before it.
        place = chosen.cumsum(dim=1) + n_spans - 1
        last = chosen.sum(dim=1) + begins.sum(dim=1)
        width = int(last.max()) + 1 if len(last) else 1
        labels = torch.full((len(ids), width + 1), IGNORED_LABEL, dtype=ids.dtype).to(ids.device)
        labels.scatter_(1, torch.where(chosen, place, width), ids)
        labels.scatter_(1, torch.where(begins, place - 1, width), sentinel)
        labels.scatter_(1, last[:, None], sentinels[begins.sum(dim=1)][:, None])
        labels = labels[:, :width]
    return {**inputs, "input_ids": input_ids, "attention_mask": attention.long(), "labels": labels}


def _packed(values: Tensor, kept: Tensor, fill: int) -> Tensor:
    """The kept values of each row, moved together to the left."""
    import torch

    width = int(kept.sum(dim=1).max()) if len(kept) else 0
    place = torch.where(kept, kept.cumsum(dim=1) - 1, width)
    packed = torch.full((len(values), width + 1), fill, dtype=values.dtype, device=values.device)
    return packed.scatter_(1, place, values)[:, :width]


def _check_no_sentinels(ids: Tensor, kept: Tensor, sentinels: Tensor, tokenizer: Any) -> None:
    import torch

    found = (torch.isin(ids, sentinels) & kept).any(dim=1)
    if found.any():
        row = int(found.nonzero()[0])
        text = tokenizer.decode(ids[row][kept[row]].tolist())
        raise UserError(
            f"a text that is to be masked must not have sentinels in it already but one has: "
            f"{text!r}. Leave the masking out for texts that come masked."
        )
