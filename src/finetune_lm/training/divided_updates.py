"""Updates of which each process on one machine makes a part, in weights that all of them share.

While a model learns, its weights lie in memory that all processes see (`common_memory`), and beside
them each process has room for its gradients. The weights, end to end, are cut into as many parts as
there are processes. At an update each adds up the gradients of its own part, and its optimizer
moves nothing else. Then the update is there for all: no gradient's sum and no weight is told to
anybody.

Weights change between the two moments of an update at which all wait for each other, and at no
other time. Where a process writes into weights by itself, all others would do so once more. So this
is done only where no code but our own and torch's comes near the weights, and where an optimizer
does to a part of a weight what it does to the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from finetune_lm.common_memory import add_up
from finetune_lm.models.sharding import is_sharded
from finetune_lm.ranks import world
from finetune_lm.scoring.fast import scratch
from finetune_lm.training.several_optimizers import SeveralOptimizers

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments
    from finetune_lm.training.step import Learner

_BY_ENTRY = (
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.SGD,
)
"""Optimizers that move each entry of a weight by its own gradients alone, and have a state for a
weight once they have moved it, of its shape or of one number."""

_KNOWN = ("accelerate", "finetune_lm", "peft", "torch", "transformers")
"""Packages whose code neither changes weights on the way nor looks at gradients."""
_OF_MODULE = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_OF_WEIGHT = ("_backward_hooks", "_post_accumulate_grad_hooks")
"""Where torch keeps what a module and a weight call."""
_LINE = 64
"""Bytes in a line of a processor's cache, at whose multiples weights and parts begin."""


@dataclass(frozen=True)
class _Share:
    """A weight in common memory, and this process's part of it.

    Attributes:
        weight: The model's parameter.
        values: Its values: (n,).
        gradients: Room for its gradients in each process: (n,) each.
        mine: Which of its entries are this process's part.
        part: These, as a parameter of their own; perhaps of no entry.
        alone: Where its values were before, and are again in the end.
    """

    weight: torch.nn.Parameter
    values: Tensor
    gradients: Sequence[Tensor]
    mine: slice
    part: torch.nn.Parameter
    alone: Tensor


class DividedUpdates:
    """Updates that processes make together.

    Args:
        weights: What learns.
        optimizers: What moves it: no weight is in two of them.
        memory: Memory that all processes see: room for the weights, and for their gradients in each
            process.
    """

    def __init__(
        self,
        weights: Sequence[torch.nn.Parameter],
        optimizers: Sequence[torch.optim.Optimizer],
        memory: Tensor,
    ) -> None:
        self._shares = _shares(weights, memory)
        self._optimizers = optimizers
        self._hooks = [each.register_state_dict_post_hook(self._whole) for each in optimizers]
        for share in self._shares if world().is_first else ():
            share.values.copy_(share.alone.reshape(-1))
        world().gather(None)
        for share in self._shares:
            share.weight.data = share.values.view(share.weight.shape)
            scratch.reserve(share.weight, share.gradients[world().rank])
        self._put_into_optimizers({share.weight: share.part for share in self._shares})
        self.parts = [share.part for share in self._shares]
        """This process's parts of the weights, with their gradients."""

    def add_up(self) -> None:
        """Let the gradients of this process's parts be the sums over all processes.

        The weights' own gradients are these sums in its parts, and elsewhere anything.
        """
        rank = world().rank
        for share in self._shares:
            gradient, room = share.weight.grad, share.gradients[rank]
            if gradient is not None and gradient.data_ptr() != room.data_ptr():
                room.view(gradient.shape).copy_(gradient)
        # Behind this message all gradients are there.
        told = world().gather([share.weight.grad is not None for share in self._shares])
        for share, *have in zip(self._shares, *told, strict=True):
            if not any(have):
                continue
            share.weight.grad = share.gradients[rank].view(share.weight.shape)
            if share.part.numel():
                found = [g for g, has in zip(share.gradients, have, strict=True) if has]
                share.part.grad = share.gradients[rank][share.mine]
                add_up([gradient[share.mine] for gradient in found], share.part.grad)

    def clip(self, max_norm: float) -> None:
        """Make the gradients smaller if the norm of all together is larger than this."""
        gradients = [part.grad for part in self.parts if part.grad is not None]
        norms = [norm.double() for norm in torch._foreach_norm(gradients)] if gradients else []
        squares = world().gather(sum(float(norm.square()) for norm in norms))
        # By the same formula as torch.nn.utils.clip_grad_norm_.
        factor = max_norm / (math.sqrt(sum(squares)) + 1e-6)
        for gradient in gradients if not factor >= 1 else ():  # it may be no number
            gradient.mul_(factor)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        world().gather(None)

    def forget_gradients(self) -> None:
        """Leave no gradients."""
        for share in self._shares:
            share.weight.grad = share.part.grad = None

    def end(self) -> None:
        """Let each process have weights of its own again. Nothing is updated after that."""
        for hook in self._hooks:
            hook.remove()
        for share in self._shares:
            scratch.reserve(share.weight, None)
            share.weight.data = share.alone.copy_(share.weight.data)
        self.forget_gradients()
        for optimizer in self._optimizers:
            optimizer.state.clear()
        self._put_into_optimizers({share.part: share.weight for share in self._shares})

    def _put_into_optimizers(self, others: dict[Any, Any]) -> None:
        """Let optimizers move other parameters, with what they have found for those before."""
        shares: dict[Any, _Share] = {share.weight: share for share in self._shares}
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["params"] = [others.get(each, each) for each in group["params"]]
            for weight in [each for each in optimizer.state if each in shares]:
                share, state = shares[weight], optimizer.state.pop(weight)
                if share.part.numel():
                    optimizer.state[share.part] = {
                        name: value.reshape(-1)[share.mine].clone()
                        if getattr(value, "shape", None) == weight.shape
                        else value
                        for name, value in state.items()
                    }

    def _whole(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """The state of an optimizer as it is where one process updates all, for the first process.

        The others are given the same with tensors of no entry.
        """
        by_part = {share.part: share for share in self._shares}
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        cut = {n: by_part[each] for n, each in enumerate(parameters) if each in by_part}
        kept = state["state"]

        def is_cut(number: int, value: Any) -> bool:
            return number in cut and getattr(value, "shape", None) == cut[number].part.shape

        of_parts = {n: [x for x, v in of.items() if is_cut(n, v)] for n, of in kept.items()}
        others = {n: {x: v for x, v in of.items() if not is_cut(n, v)} for n, of in kept.items()}
        told = world().gather((of_parts, others))
        # What is not cut is the same wherever it is.
        names = {n: found for of_one, _ in told for n, found in of_one.items()}
        whole = {n: dict(found) for _, of_one in told for n, found in of_one.items()}
        for name in sorted({name for found in names.values() for name in found}):
            numbers = [n for n, found in names.items() if name in found]
            # In the room for the first one's gradients: between two updates there are none.
            for number in (n for n in numbers if n in kept):
                share = cut[number]
                share.gradients[0][share.mine] = kept[number][name]
            world().gather(None)
            for number in numbers:
                found = cut[number].gradients[0].view(cut[number].weight.shape)
                whole[number][name] = found.clone() if world().is_first else found.new_empty(0)
            world().gather(None)
        return {**state, "state": dict(sorted(whole.items()))}


@contextmanager
def dividing_updates(args: DataTrainingArguments, learner: Learner) -> Iterator[Learner]:
    """Inside, processes on one machine's CPU divide updates, if that comes to the same.

    Args:
        args: What of the user's own comes near the weights.
        learner: What learns. Its state is there already, if it goes on from a checkpoint.

    Yields:
        The learner, which knows.
    """
    memory, weights = None, [each for each in learner.model.parameters() if each.requires_grad]
    if world().size > 1 and world().all(_may_divide(args, learner, weights)):
        memory = world().common_memory(_n_bytes(weights) * (world().size + 1))
    if memory is None:
        yield learner
        return
    with torch.no_grad():
        divided = DividedUpdates(weights, _optimizers(learner.optimizer), memory)
    try:
        yield replace(learner, divided=divided)
    finally:
        with torch.no_grad():
            divided.end()


def _optimizers(optimizer: Any) -> list[torch.optim.Optimizer]:
    inner = getattr(optimizer, "optimizer", optimizer)
    return inner.optimizers if isinstance(inner, SeveralOptimizers) else [inner]


def _may_divide(
    args: DataTrainingArguments, learner: Learner, weights: Sequence[torch.nn.Parameter]
) -> bool:
    """Whether nothing can tell divided updates from others, and it is a matter of this CPU."""
    given: list[Any] = [
        *args.loss_classes.values(),
        *args.measures.values(),
        learner.callbacks.classes(),
    ]
    used = [each for several in given for each in several]
    used += [args.lr_scheduler] if callable(args.lr_scheduler) else []
    for module in learner.model.modules():
        used += [type(module), *_hooks(module, *_OF_MODULE)]
    for weight in weights:
        used += _hooks(weight, *_OF_WEIGHT)
    return (
        args.fast
        and learner.accelerator.device.type == "cpu"
        and learner.accelerator.scaler is None
        and not is_sharded(learner.model)
        and all(type(each) in _BY_ENTRY for each in _optimizers(learner.optimizer))
        and all(str(each.__module__).partition(".")[0] in _KNOWN for each in used)
        and all(each.device.type == "cpu" and each.ndim for each in weights)
        and not _are_bound(learner.model)
    )


def _hooks(owner: Any, *names: str) -> list[Any]:
    """What is called by a module or a weight."""
    return [hook for name in names for hook in (getattr(owner, name, None) or {}).values()]


def _are_bound(model: Any) -> bool:
    """Whether weights have memory in common, change when the model is called, or cannot be cut.

    There are no parts of sparse gradients.
    """
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.numel()]
    ends = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors)
    overlap = any(end > begin for (_, end), (begin, _) in pairwise(ends))
    modules = list(model.modules())
    return overlap or any(getattr(m, "max_norm", None) or getattr(m, "sparse", 0) for m in modules)


def _n_bytes(weights: Sequence[Tensor]) -> int:
    """How much memory weights take, each of which begins a line."""
    return sum(-(-weight.nbytes // _LINE) * _LINE for weight in weights)


def _shares(weights: Sequence[torch.nn.Parameter], memory: Tensor) -> list[_Share]:
    """Where weights and their gradients are in common memory, and this process's part of each."""
    n_lines = _n_bytes(weights) // _LINE
    ends = [n_lines * rank // world().size * _LINE for rank in range(world().size + 1)]
    first, last = ends[world().rank : world().rank + 2]
    # Arrays, since what is made of a part of one is a tensor with a storage of its own. Of several
    # that share one, whoever saves them makes copies.
    rooms = [room.numpy() for room in torch.split(memory, n_lines * _LINE)]
    shares, begin = [], 0
    for weight in weights:
        place = slice(begin, begin + weight.nbytes)
        of_all = (torch.from_numpy(room[place]) for room in rooms)
        values, *gradients = (each.view(weight.dtype) for each in of_all)
        size, n = weight.element_size(), weight.numel()
        mine = slice(*(min(max(each - begin, 0) // size, n) for each in (first, last)))
        part = torch.nn.Parameter(values[mine])
        shares.append(_Share(weight, values, gradients, mine, part, weight.data))
        begin += _n_bytes([weight])
    return shares
