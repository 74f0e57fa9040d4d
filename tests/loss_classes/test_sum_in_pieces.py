"""Gradients of several losses, one at a time."""

from __future__ import annotations

import torch

from finetune_lm.loss_classes._sum_in_pieces import SumInPieces
from finetune_lm.loss_scale import loss_scaled_by


def sum_in_pieces(pieces, parameters):
    found = SumInPieces(parameters, len(pieces))
    for piece in pieces:
        found.add(piece())
    return found.total()


def test_the_sum_and_its_gradient():
    """(x + x**2) * 3 at 2 is 18, its derivative (1 + 2 x) * 3 is 15."""
    x = torch.tensor(2.0, requires_grad=True)
    total = sum_in_pieces([lambda: x, lambda: x**2], [x]) * 3
    total.backward()
    assert (total.item(), x.grad.item()) == (18.0, 15.0)


def test_small_gradients_are_not_lost_in_half_precision():
    """A step in float16 takes 1e-9 for 0, but not the same times 65,536."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    x = torch.tensor(1.0, requires_grad=True)
    pieces = [lambda: x.half().float() * 1e-9, lambda: x.half().float() * 2e-9]
    with loss_scaled_by(scaler):
        total = sum_in_pieces(pieces, [x])
    assert abs(total.item() / 3e-9 - 1) < 1e-3
    scaler.scale(total).backward()
    torch.testing.assert_close(x.grad / 2.0**16, torch.tensor(3e-9), rtol=1e-3, atol=0)


def test_one_piece_keeps_its_graph_and_without_gradients_there_is_none():
    x = torch.tensor(2.0, requires_grad=True)
    assert sum_in_pieces([lambda: x**2], [x]).grad_fn.name() == "PowBackward0"
    with torch.no_grad():
        assert sum_in_pieces([lambda: x, lambda: x**2], [x]).item() == 6.0


def test_without_scaling_they_are_what_they_are():
    x = torch.tensor(1.0, requires_grad=True)
    sum_in_pieces([lambda: x.half().float() * 1e-9, lambda: x.half().float()], [x]).backward()
    assert float(x.grad) == 1.0


def test_a_sum_in_pieces_is_the_sum_with_its_gradients():
    weight = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    bias = torch.tensor(0.5, requires_grad=True)
    unused = torch.tensor(9.0, requires_grad=True)
    frozen = torch.tensor(2.0)
    pieces = [
        lambda: (weight * frozen).sum() + bias,
        lambda: (weight**2).sum(),
        lambda: bias**3,
    ]
    total = sum_in_pieces(pieces, [weight, bias, unused, frozen])
    (total * 10).backward()
    assert total.item() == 12.5 + 14 + 0.125
    torch.testing.assert_close(weight.grad, 10 * (2.0 + 2 * weight.detach()))
    torch.testing.assert_close(bias.grad, torch.tensor(10 * (1 + 3 * 0.25)))
    assert unused.grad is None


def test_only_one_piece_of_a_sum_has_its_graph_in_memory():
    weight = torch.ones(4, requires_grad=True)
    alive, most = [], []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            alive.append(1)
            most.append(len(alive))
            return x.sum()

        @staticmethod
        def backward(ctx, upstream):
            alive.pop()
            return upstream.expand(4)

    total = sum_in_pieces([lambda: Counted.apply(weight)] * 5, [weight])
    assert max(most) == 1
    total.backward()
    assert weight.grad.tolist() == [5.0] * 4
