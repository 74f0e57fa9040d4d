"""Gradients of several losses, one at a time."""

from __future__ import annotations

import torch

from finetune_lm.loss_classes._sum_in_pieces import sum_in_pieces
from finetune_lm.loss_scale import loss_scaled_by


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


def test_without_scaling_they_are_what_they_are():
    x = torch.tensor(1.0, requires_grad=True)
    sum_in_pieces([lambda: x.half().float() * 1e-9, lambda: x.half().float()], [x]).backward()
    assert float(x.grad) == 1.0
