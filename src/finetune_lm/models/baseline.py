"""Where a model came from, so that its untouched self is loaded once and shared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from finetune_lm.arguments import ModelArguments
from finetune_lm.arguments.references import describe
from finetune_lm.errors import UserError
from finetune_lm.models.loading import (
    LoadedModel,
    arguments_of,
    load_model,
)
from finetune_lm.models.pretrained import load_tokenizer, read_token
from finetune_lm.models.sharding import shard
from finetune_lm.models.untouched import untouched_of
from finetune_lm.ranks import world

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Shelf:
    """Things that were made once, for all who ask for the same."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}
        self._used: set[str] = set()

    def shared(self, what: str, of: Any, make: Callable[[], T]) -> T:
        """What was made before under the same description, else made now and kept.

        Args:
            what: What kind of thing it is.
            of: All that it depends on, in plain types and objects that have a name.
            make: Makes it.
        """
        made = self.kept(what, of)
        return self.keep(what, of, make()) if made is None else made

    def kept(self, what: str, of: Any) -> Any:
        """What was kept under this description; None if nothing was."""
        key = _key(what, of)
        self._used.add(key)
        return self._kept.get(key)

    def keep(self, what: str, of: Any, made: T) -> T:
        """Keep what was made, for the next that asks for the same."""
        key = _key(what, of)
        self._used.add(key)
        self._kept[key] = made
        return made

    def forget_unused(self) -> None:
        """Let go of what nobody has asked for since the last time."""
        self._kept = {key: made for key, made in self._kept.items() if key in self._used}
        self._used = set()


class Origin(Shelf):
    """How a model was loaded, and what was made from that since and may be used again.

    It lives as long as the model, so that whatever is trained from the same model in one process
    (several losses of a run, the trials of a study) shares what it has.

    Args:
        args: What the model was loaded by.
        untouched: What was made of the same model, untouched, in runs before this one.
        twin: Its untouched self, if the model shares its weights, without a tokenizer.

    Attributes:
        untouched: What was made of the model as it is without any modifier, such as a baseline. It
            may serve other runs, while all else is for this model alone.
        encoder_options: How the run's texts are turned into tokens: keyword arguments of
            `data.tokenization.TextEncoder`, for those who have more texts to be turned likewise.
        fast: Whether the run takes the fast ways of the package `fast`.
        mode: The mode of a model that has two, else None.
    """

    def __init__(
        self,
        args: ModelArguments,
        untouched: Shelf | None = None,
        twin: LoadedModel | None = None,
    ) -> None:
        super().__init__()
        self._args = args
        self._twin = twin
        self.untouched = untouched or Shelf()
        self.encoder_options: dict[str, Any] = {}
        self.fast = True
        self.mode: str | None = None
        self._split_on: torch.device | None = None

    def split(self, device: torch.device) -> None:
        """Let the untouched model be split among ranks when it is loaded, as the model is.

        It then serves this model alone: ranks may have to find each other anew before the next run,
        and must have let go of all that they call each other by.

        Args:
            device: Where this process computes.
        """
        self.untouched, self._twin, self._split_on = Shelf(), None, device

    @property
    def name(self) -> str:
        """The model as named on the command line."""
        return self._args.model_name_or_path

    def hub_options(self) -> dict[str, Any]:
        """What reaching the Hub needs: the access token, if there is one."""
        token = read_token(self._args.token)
        return {"token": token} if token else {}

    def baseline(
        self,
        model_kwargs: Mapping[str, Any] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
    ) -> LoadedModel:
        """The model as it was named, before any modifier: same revision, cache and token.

        It is in eval mode, on the CPU, and none of its parameters asks for gradients. It is loaded
        when it is first asked for, unless the model still has its weights (see `untouched`). Where
        the model is split among ranks it is, too, and on its device: all of them ask for it, and
        call it equally often.

        Args:
            model_kwargs: More arguments for the model's ``from_pretrained``.
            tokenizer_kwargs: More arguments for the tokenizer's.

        Raises:
            UserError: If it cannot be loaded any more.
        """
        given = {"model": dict(model_kwargs or {}), "tokenizer": dict(tokenizer_kwargs or {})}

        def load() -> LoadedModel:
            import torch

            args = replace(
                self._args,
                model_modifier_fns=[],
                model_modifier_fn_kwargs={},
                model_kwargs={**self._args.model_kwargs, **given["model"]},
                tokenizer_kwargs={**self._args.tokenizer_kwargs, **given["tokenizer"]},
            )
            if self._twin is not None and not given["model"]:
                return replace(self._twin, tokenizer=load_tokenizer(args))
            # What the run draws must not depend on whether a baseline is loaded.
            with torch.random.fork_rng(devices=[]):
                loaded = load_model(args, hashed=False)
            loaded.model.eval().requires_grad_(False)
            if self._split_on is not None:
                shard([loaded.model], self._split_on)
            return loaded

        def load_in_turns() -> LoadedModel:
            return load() if self._split_on is None else world().in_turns(load)

        return self.untouched.shared("baseline", given, load_in_turns)


def _key(what: str, of: Any) -> str:
    return f"{what} {json.dumps(of, sort_keys=True, default=describe)}"


_ORIGINS: WeakKeyDictionary[Any, Origin] = WeakKeyDictionary()


def origin_of(model: Any) -> Origin:
    """Where a model came from.

    A model that a Python user has loaded by transformers comes from where its own config says.

    Raises:
        UserError: If the model was made from nothing, so that there is no other like it.
    """
    if model not in _ORIGINS:
        args = arguments_of(model)
        name = getattr(model, "name_or_path", "")
        if args is None and not name:
            raise UserError(
                "the model must come from the Hub or a directory, so that its baseline can be "
                "loaded from there, but it has no name_or_path. Save it and load it again."
            )
        _ORIGINS[model] = Origin(args or ModelArguments(name), twin=untouched_of(model))
    return _ORIGINS[model]


def share(model: Any, untouched: Shelf) -> None:
    """Let a model that was just loaded have what was made of its untouched self before."""
    args = arguments_of(model)
    assert args is not None
    _ORIGINS[model] = Origin(args, untouched, untouched_of(model))
