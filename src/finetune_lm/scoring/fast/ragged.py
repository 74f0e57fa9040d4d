"""Where the tokens of a batch stand that goes through a model without its padding.

All tokens of a batch go through the model in one row, so that its linear layers see no padding.
Only attention looks at sentences: there the tokens are laid out as rectangles again, sentence by
sentence, those of about the same length in one, and what comes out is put back in the row (see
`ragged_attention`). Where sentences begin alike, which is the rule in templated materials, the
tokens of a shared beginning can stand in the row once (a *tree* of beginnings) if the model is
causal, since then they are the same whatever follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.data.batch import to_device

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# How many places a rectangle must spare to be made into two: attending twice costs, too.
_WORTH_A_RECTANGLE = 1024


@dataclass(frozen=True)
class Layout:
    """Where tokens stand in the row, and where in the rectangles of sentences.

    The *places* of the rectangles are numbered one rectangle after the other, row by row.

    Attributes:
        shapes: Of each rectangle how many sentences it has, and the longest one's length.
        begins: The place of each sentence's first token: (n,).
        node_of_place: For each place its token's number in the row; for padding any: (n_places,).
        place_of_node: For each token in the row one place that has it: (k,).
        rows: The sentence of that place: (k,).
        positions: Its position in that sentence: (k,).
        is_real: Which places have a token; None where a token sees those up to its own, so that it
            does not matter: (n_places,).
    """

    shapes: tuple[tuple[int, int], ...]
    begins: Tensor
    node_of_place: Tensor
    place_of_node: Tensor
    rows: Tensor
    positions: Tensor
    is_real: Tensor | None = None
    _cells: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    @property
    def longest(self) -> int:
        """The length of the longest sentence."""
        return max(length for _, length in self.shapes)

    def nodes(self, rows: Tensor, positions: Tensor) -> Tensor:
        """The numbers in the row of the tokens at some positions of sentences: (k,)."""
        return self.node_of_place[self.begins[rows] + positions]

    def cells(self, heads: int) -> tuple[Tensor, Tensor]:
        """The same of each head alone, whose rectangles are products of matrices as they stand.

        A place has as many *cells* as there are heads: the rectangle of the first sentence's first
        head comes first, then that of its second head.

        Args:
            heads: How many there are.

        Returns:
            As `node_of_place` and `place_of_node`, of cells, and of tokens and heads: (n_places *
            heads,) and (k * heads,).
        """
        if heads not in self._cells:
            self._cells[heads] = self._found_cells(heads)
        return self._cells[heads]

    def _found_cells(self, heads: int) -> tuple[Tensor, Tensor]:
        import torch

        device = self.node_of_place.device
        head = torch.arange(heads, device=device)
        nodes, cells = [], []
        sizes = [n * length for n, length in self.shapes]
        of_shapes = torch.split(self.node_of_place, sizes)
        for part, (n, length) in zip(of_shapes, self.shapes, strict=True):
            nodes.append((part.view(n, 1, length) * heads + head[:, None]).flatten())
            number = torch.arange(n * length * heads, device=device) + sum(map(len, nodes[:-1]))
            cells.append(number.view(n, heads, length).transpose(1, 2).reshape(-1, heads))
        return torch.cat(nodes), torch.cat(cells)[self.place_of_node].flatten()

    def to(self, device: torch.device) -> Layout:
        """The same on a device."""
        moved: dict[str, Any] = {
            name: to_device(tensor, device)
            for name in _TENSORS
            if (tensor := getattr(self, name)) is not None
        }
        return replace(self, **moved)


_TENSORS = [each.name for each in fields(Layout) if each.init and each.name != "shapes"]


def lay_out(
    attention_mask: Tensor,
    *,
    is_causal: bool = True,
    parts: Sequence[npt.NDArray[np.int64]] | None = None,
) -> Layout:
    """Every real token of a batch in the row, sentence after sentence.

    Args:
        attention_mask: 1 for tokens, 0 for padding on the right: (n, length).
        is_causal: Whether a token sees those before it only.
        parts: The sentences of each rectangle; by default those of about the same length.
    """
    import torch

    rows, positions = attention_mask.nonzero(as_tuple=True)
    shapes, begins = _rectangles(attention_mask.sum(dim=1).numpy(), parts)
    places = begins[rows] + positions
    n_places = sum(n * length for n, length in shapes)
    nodes = torch.zeros(n_places, dtype=torch.int64)
    nodes[places] = torch.arange(len(places))
    is_real = None
    if not is_causal:
        is_real = torch.zeros(n_places, dtype=torch.bool)
        is_real[places] = True
        # A sentence without a token sees something too, so that it comes to numbers.
        is_real[begins] = True
    return Layout(shapes, begins, nodes, places, rows, positions, is_real)


def lay_out_pair(
    inputs: dict[str, Tensor], rows: Tensor, positions: Tensor
) -> tuple[Layout, Layout]:
    """What a decoder and an encoder are fed, each in a row, without what nobody asks about.

    Both have the same sentences in their rectangles, in the same order.

    Args:
        inputs: With ``attention_mask`` and ``decoder_input_ids``, (n, length) each.
        rows: The example of each position that is asked about: (k,).
        positions: Its place in what the decoder is fed: (k,).

    Returns:
        The layouts of the decoder and of the encoder.
    """
    decoded = up_to_asked(inputs["decoder_input_ids"].shape, rows, positions)
    read = inputs["attention_mask"].bool() & decoded.any(dim=1, keepdim=True)
    parts = rectangles_of((decoded.sum(dim=1) + read.sum(dim=1)).numpy())
    return lay_out(decoded, parts=parts), lay_out(read, is_causal=False, parts=parts)


def up_to_asked(shape: Sequence[int], rows: Tensor, positions: Tensor) -> Tensor:
    """Which tokens a causal model needs for what it is asked about, (n, length): none behind that.

    Args:
        shape: The number of sentences, and their length.
        rows: The sentence of each position that is asked about: (k,).
        positions: Its place in that sentence: (k,).
    """
    import torch

    n, length = shape
    ends = positions.new_zeros(n).scatter_reduce(0, rows, positions + 1, "amax")
    return torch.arange(length) < ends[:, None]


def lay_out_tree(input_ids: Tensor, attention_mask: Tensor) -> Layout:
    """Every distinct beginning of a sentence in the row once, for causal models, no gradients.

    Args:
        input_ids: Token ids, (n, length).
        attention_mask: 1 for tokens, 0 for padding on the right: (n, length).
    """
    import torch

    nodes, first = nodes_of_beginnings(input_ids, attention_mask)
    shapes, begins = _rectangles(attention_mask.sum(dim=1).numpy(), None)
    rows, positions = attention_mask.nonzero(as_tuple=True)
    node_of_place = torch.zeros(sum(n * length for n, length in shapes), dtype=torch.int64)
    node_of_place[begins[rows] + positions] = nodes
    rows, positions = rows[first], positions[first]
    return Layout(shapes, begins, node_of_place, begins[rows] + positions, rows, positions)


def nodes_of_beginnings(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens of a batch end the same beginning of a sentence.

    Args:
        input_ids: Token ids, (n, length).
        attention_mask: 1 for tokens, 0 for padding on the right: (n, length).

    Returns:
        The number of the beginning that each real token ends, sentence after sentence: (k,). And
        of each beginning one of these tokens: (n_distinct,).
    """
    import torch

    ids, real = input_ids.cpu().numpy(), attention_mask.cpu().numpy().astype(bool)
    n, length = ids.shape
    width = int(ids.max(initial=0)) + 1
    nodes = np.full((n, length), -1, dtype=np.int64)
    token = (real.cumsum() - 1).reshape(n, length)
    found = []
    n_nodes = 0
    # Token by token: two sentences share a node if they shared the one before and go on alike.
    before = np.zeros(n, dtype=np.int64)
    for position in range(length):
        rows = np.flatnonzero(real[:, position])
        if not len(rows):
            break
        # Nodes are numbered below the number of places, so the pair is one number.
        pairs = before[rows] * width + ids[rows, position]
        _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
        before[rows] = nodes[rows, position] = n_nodes + inverse
        found.append(token[rows[first], position])
        n_nodes += len(first)
    first_tokens = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
    return torch.from_numpy(nodes[real]), torch.from_numpy(first_tokens)


def rectangles_of(lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Which sentences to attend to together: all, or those of about the same length.

    Args:
        lengths: Of each, in tokens: (n,).

    Returns:
        Their rows, of each rectangle.
    """
    parts = split(lengths)
    spared = len(lengths) * int(lengths.max(initial=0))
    spared -= sum(len(part) * int(lengths[part].max(initial=0)) for part in parts)
    if len(parts) == 1 or spared < _WORTH_A_RECTANGLE:
        return [np.arange(len(lengths))]
    return [part[each] for part in parts for each in rectangles_of(lengths[part])]


def split(lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The rows of the short and of the long, so that padding both takes the fewest places.

    Args:
        lengths: (n,).

    Returns:
        Two arrays of rows, or one if all are as long.
    """
    order = lengths.argsort(kind="stable")
    in_order = lengths[order]
    n_short = np.arange(1, len(lengths))
    places = n_short * in_order[:-1] + (len(lengths) - n_short) * in_order[-1]
    if not len(places) or places.min() >= len(lengths) * in_order[-1]:
        return [order]
    cut = int(n_short[places.argmin()])
    return [np.sort(order[:cut]), np.sort(order[cut:])]


def _rectangles(
    lengths: npt.NDArray[np.int64], parts: Sequence[npt.NDArray[np.int64]] | None
) -> tuple[tuple[tuple[int, int], ...], Tensor]:
    """The shapes of the rectangles of sentences, and the place where each sentence begins: (n,)."""
    import torch

    shapes = []
    begins = np.zeros(len(lengths), dtype=np.int64)
    n_places = 0
    for part in rectangles_of(lengths) if parts is None else parts:
        longest = max(int(lengths[part].max(initial=0)), 1)
        shapes.append((len(part), longest))
        begins[part] = n_places + np.arange(len(part)) * longest
        n_places += len(part) * longest
    return tuple(shapes), torch.from_numpy(begins)
