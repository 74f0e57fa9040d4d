"""Models for one run after another: the last one is kept as it was loaded, and each run has a copy.

A copy is made of a model that nothing was done to yet, so that nothing of what a run does to its
model, tokenizer or configuration reaches the next.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from finetune_lm.arguments import ModelArguments
from finetune_lm.models.baseline import Shelf, share
from finetune_lm.models.loading import (
    LoadedModel,
    Loader,
    identify,
    load_model,
    load_untouched,
    modified,
)
from finetune_lm.models.pretrained import load_tokenizer, model_path
from finetune_lm.models.saved_adapters import SavedAdapter
from finetune_lm.models.sharding import is_to_be_split
from finetune_lm.models.tasks import Task
from finetune_lm.randomness import generator_states, restore_generators

_AFTER_LOADING = frozenset(
    each.name
    for each in fields(ModelArguments)
    if each.name.startswith(("model_modifier_fn", "model_callbacks", "model_pre_train_step"))
)
"""Arguments that make a difference only once a model is loaded."""


@dataclass
class _Stock:
    """A model as it was loaded.

    Attributes:
        key: All that this depends on but the seed.
        known: Its configuration and kind.
        loaded: The model; None until a run needs it, and where it cannot be copied.
        seed: The seed from which it was loaded, if something in it was drawn; else None.
        after: Where the generators were then.
        untouched: What was made of the model since, such as a baseline.
    """

    key: Any
    known: tuple[Any, Task]
    loaded: LoadedModel | None = None
    seed: int | None = None
    after: Mapping[str, Any] | None = None
    untouched: Shelf = field(default_factory=Shelf)
    can_be_copied: bool = True


class KeptModels(Loader):
    """Loads models, and keeps the last one for the next run that is of the same.

    It takes as much memory as a model, on the CPU. Models whose code is not that of transformers,
    and those that are quantized, spread over devices or split among ranks, are loaded anew for each
    run.
    """

    def __init__(self) -> None:
        self._stock: _Stock | None = None

    def identify(self, args: ModelArguments) -> tuple[Any, Task]:
        """What `loading.identify` says, with a configuration of one's own."""
        key = _key(args)
        if self._stock is None or self._stock.key != key:
            self._stock = None  # its memory is free before there is another
            self._stock = _Stock(key, identify(args))
        self._stock.untouched.forget_unused()
        config, task = self._stock.known
        return copy.deepcopy(config), task

    def load(self, args: ModelArguments, known: tuple[Any, Task]) -> LoadedModel:
        """What `loading.load_model` returns."""
        import torch

        stock = self._stock
        is_split = is_to_be_split(args)
        if stock is None or not stock.can_be_copied or is_split or stock.key != _key(args):
            return load_model(args, known)
        if stock.loaded is None or stock.seed not in (None, torch.initial_seed()):
            stock.loaded = None
            before = generator_states()
            loaded = load_untouched(args, known)
            after = generator_states()
            is_drawn = not _are_equal(before, after)
            stock.seed, stock.after = (torch.initial_seed(), after) if is_drawn else (None, None)
            stock.can_be_copied = _can_be_copied(args, loaded.model)
            if not stock.can_be_copied:
                return modified(loaded, args)
            stock.loaded = loaded
        elif stock.after is not None:
            restore_generators(stock.after)
        try:
            model = _copied_model(stock.loaded.model)
        except (TypeError, RuntimeError, ValueError, AttributeError, NotImplementedError):
            stock.loaded, stock.can_be_copied = None, False
            return load_model(args, known)
        tokenizer = _copied_tokenizer(stock.loaded.tokenizer) or load_tokenizer(args)
        origin = dict(stock.loaded.origin)
        mine = replace(stock.loaded, model=model, tokenizer=tokenizer, origin=origin)
        mine = modified(mine, args)
        share(mine.model, stock.untouched)
        return mine


def _key(args: ModelArguments) -> Any:
    """All that a model depends on as it is loaded, but the seed."""
    values = {
        each.name: getattr(args, each.name)
        for each in fields(args)
        if each.name not in _AFTER_LOADING
    }
    places = {args.model_name_or_path, args.config_name, args.tokenizer_name}
    if (adapter := SavedAdapter.find(args.model_name_or_path)) is not None:
        places.add(adapter.base)
    return (repr(values), args.token, tuple(_files(name) for name in sorted(filter(None, places))))


def _files(name: str) -> tuple[Any, ...]:
    """The files of a local model, as far as the system knows them; none for one on the Hub."""
    path = Path(model_path(name))
    try:
        found = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else []
        if path.is_dir():
            # A run saves its tokenizer beside its model.
            beside = path.resolve().parent / "tokenizer"
            found += beside.glob("*") if beside.is_dir() else []
        return tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(found))
    except OSError:
        return ()


def _can_be_copied(args: ModelArguments, model: Any) -> bool:
    """Whether a copy of a model does what the model does, as far as that can be told."""
    return (
        not args.trust_remote_code
        and type(model).__module__.startswith("transformers.")
        and getattr(model, "hf_quantizer", None) is None
        and getattr(model, "hf_device_map", None) is None
        and all(parameter.device.type == "cpu" for parameter in model.parameters())
    )


def _copied_model(model: Any) -> Any:
    """A copy that has nothing in common with a model."""
    mine = copy.deepcopy(model)
    # torch copies a parameter without what is hung onto it.
    for original, copied in zip(model.parameters(), mine.parameters(), strict=True):
        vars(copied).update(copy.deepcopy(vars(original)))
    return mine


def _copied_tokenizer(tokenizer: Any) -> Any:
    """A copy that has nothing in common with a tokenizer; None if it would not be the same.

    A copy is made of a description in JSON, in which the scores of a Unigram model may come out
    another in their last digits.
    """
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is None:
        return None
    mine = copy.deepcopy(tokenizer)
    return mine if mine.backend_tokenizer.to_str() == backend.to_str() else None


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two states of generators are the same."""
    import torch

    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_are_equal(one[k], other[k]) for k in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list) and any(isinstance(item, torch.Tensor) for item in one):
        return all(map(_are_equal, one, other))
    return bool(one == other)
