from __future__ import annotations

import torch

from finetune_lm.scoring.fast import scratch


def test_what_has_held_a_tensor_holds_the_next_one_but_not_before_it_is_gone():
    scratch.release()
    like = torch.ones(300, 7)
    first = scratch.lasting(like)
    assert (first.shape, first.dtype, first.is_contiguous()) == (like.shape, like.dtype, True)
    where, row = first.data_ptr(), first.fill_(3)[2]
    del first
    other = scratch.lasting(like)
    assert other.data_ptr() != where
    assert (row == 3).all()
    del row
    again = scratch.lasting(like)
    assert again.data_ptr() == where
    assert (other.fill_(1) + again.fill_(2) == 3).all()
    scratch.release()


def test_a_gradient_is_in_the_same_memory_in_each_step():
    from finetune_lm.scoring.fast.criterion import of_linear
    from finetune_lm.scoring.fast.cross_entropy import CrossEntropy

    scratch.release()
    torch.manual_seed(0)
    weight = torch.randn(11, 4, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    where = set()
    for _ in range(3):
        ids, targets = torch.randint(11, (2, 5))
        # The input embedding shares the weights of the layer.
        of_linear(weight[ids], weight, None, CrossEntropy(targets))[0].backward()
        expected = torch.autograd.grad(
            torch.nn.functional.cross_entropy(weight[ids] @ weight.T, targets), weight
        )
        torch.testing.assert_close(weight.grad, expected[0])
        where.add(weight.grad.data_ptr())
        optimizer.step()
        optimizer.zero_grad()
    assert len(where) == 1
    scratch.release()


def test_memory_that_is_reserved_for_a_tensor_is_lent_first_and_to_nobody_else():
    weight, other, memory = torch.randn(3, 4), torch.randn(3, 4), torch.zeros(12)
    scratch.reserve(weight, memory)
    assert scratch.lasting(other).data_ptr() != memory.data_ptr()
    for _ in range(2):
        first, second = scratch.lasting(weight.view(3, 4)), scratch.lasting(weight)
        assert first.data_ptr() == memory.data_ptr() != second.data_ptr()
        del first, second
    scratch.reserve(weight, None)
    assert scratch.lasting(weight).data_ptr() != memory.data_ptr()
    scratch.release()


def test_what_is_on_another_device_gets_none_of_this_memory():
    scratch.release()
    with scratch.borrowed((4, 16), torch.empty(1)):
        pass
    with scratch.borrowed((4, 16), torch.empty(1, device="meta")) as memory:
        assert memory.device.type == "meta"
    scratch.release()
