"""Rows to places and back, with a backward pass that gathers too.

torch's own gradient of ``index_select`` adds up, for an index may occur more than once. Here each
token has one place of its own when there are gradients, and what is in padding goes nowhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Spread(torch.autograd.Function):
    """Each place of rectangles filled with its row: (k, ...) -> (places, ...)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, node_of_place: Tensor, place_of_node: Tensor) -> Tensor:
        ctx.place_of_node = place_of_node
        return rows.index_select(0, node_of_place)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return upstream.index_select(0, ctx.place_of_node), None, None


class Collect(torch.autograd.Function):
    """Each row from its place in rectangles: (places, ...) -> (k, ...)."""

    @staticmethod
    def forward(ctx: Any, places: Tensor, place_of_node: Tensor) -> Tensor:
        ctx.place_of_node = place_of_node
        ctx.shape = places.shape
        return places.index_select(0, place_of_node)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream.new_zeros(ctx.shape).index_copy_(0, ctx.place_of_node, upstream), None
