"""A model as it was before any modifier, beside the model, where both can have the same weights.

An adapter leaves the weights of its model as they are. So what a KL term or a measure holds the
model against need not be loaded a second time, and checkpoints need not have these weights.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from finetune_lm.models.weights import hash_of_weights

if TYPE_CHECKING:
    from finetune_lm.models.loading import LoadedModel

_UNTOUCHED: WeakKeyDictionary[Any, LoadedModel] = WeakKeyDictionary()
_SAME_AS_UNTOUCHED: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()
"""The weights of a model that is split among ranks in which it is as its untouched self is."""


def twin_of(loaded: LoadedModel, *, with_own_embeddings: bool) -> LoadedModel | None:
    """A model with modules of its own and the weights of another; None if there can be none.

    Args:
        loaded: The other.
        with_own_embeddings: Whether it is to have a copy of whatever has a row for each token, so
            that new words may be written into the other's.
    """
    import torch

    model = loaded.model
    memo: dict[int, Any] = {id(weight): weight for weight in model.parameters()}
    if with_own_embeddings:
        for weight in _embeddings(model):
            memo[id(weight)] = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
    try:
        return replace(loaded, model=copy.deepcopy(model, memo), tokenizer=None)
    except (TypeError, RuntimeError, ValueError, AttributeError, NotImplementedError):
        return None


def share(model: Any, twin: LoadedModel) -> None:
    """Let a model share its weights with its untouched self from now on.

    Nothing is done if these are not the weights that were loaded any more: something has changed
    them in place.
    """
    if hash_of_weights(twin.model) != twin.origin.get("weights"):
        return
    _UNTOUCHED[model] = twin
    keep_apart(model)
    twin.model.eval().requires_grad_(False)


def untouched_of(model: Any) -> LoadedModel | None:
    """The untouched self of a model that shares its weights, without a tokenizer; else None."""
    return _UNTOUCHED.get(model)


def part(model: Any) -> None:
    """Part a model, which is about to be split among ranks, from its untouched self.

    That is loaded and split by itself where it is needed. It is known which weights were the same.
    """
    shared = shared_weights(model)
    names = (name for name, weight in model.named_parameters() if id(weight) in shared)
    _SAME_AS_UNTOUCHED[model] = frozenset(names)
    _UNTOUCHED.pop(model, None)


def shared_weights(model: Any) -> set[int]:
    """The ids of the parameters that a model shares with its untouched self: nothing moves them.

    Of a model that was parted from it, of those that are the same.
    """
    twin = untouched_of(model)
    if twin is not None:
        return {id(weight) for weight in twin.model.parameters()}
    names = _SAME_AS_UNTOUCHED.get(model, frozenset())
    return {id(weight) for name, weight in model.named_parameters() if name in names}


def keep_apart(model: Any) -> None:
    """Give the untouched self weights of its own wherever the model learns.

    To be called before the first step, when it is known what learns.
    """
    import torch

    if same := _SAME_AS_UNTOUCHED.get(model):
        learns = {name for name, weight in model.named_parameters() if weight.requires_grad}
        _SAME_AS_UNTOUCHED[model] = same - learns
    if (twin := untouched_of(model)) is None:
        return
    learned = {id(weight) for weight in model.parameters() if weight.requires_grad}
    own: dict[int, Any] = {}
    for module in twin.model.modules():
        for name, weight in module._parameters.items():
            if id(weight) in learned:
                if id(weight) not in own:
                    values = weight.detach().clone()
                    own[id(weight)] = torch.nn.Parameter(values, requires_grad=False)
                module._parameters[name] = own[id(weight)]


def _embeddings(model: Any) -> Sequence[Any]:
    """The parameters with a row for each token: those of input and output, and its bias."""
    outputs = model.get_output_embeddings()
    found = [model.get_input_embeddings().weight]
    found += [getattr(outputs, name, None) for name in ("weight", "bias")]
    return [weight for weight in found if weight is not None]
