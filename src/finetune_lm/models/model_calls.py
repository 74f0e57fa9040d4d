"""How a model is called with a batch: for what it predicts there, and so that it keeps nothing.

Decoders keep keys and values for a call that goes on with their texts, unless they are told not to.
Nobody here makes such a call. To keep them takes memory, some decoders cannot do it, and that of
FSMT sees the tokens that it is to predict when it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from finetune_lm.arguments.calls import taken_by, takes_named

_CACHE = "use_cache"


def called(model: Any, inputs: Mapping[str, Any]) -> Any:
    """What a model returns for a batch.

    Args:
        model: The model.
        inputs: What it is called with, on its device.
    """
    return model(**inputs, **({_CACHE: False} if _takes_cache(model) else {}))


_taking: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
"""Whether models of a class take the argument: to ask takes long, beside a small one's call."""


def _takes_cache(model: Any) -> bool:
    """Whether a model can be told to keep nothing."""
    if "forward" in vars(model):  # something is put around that of its class
        return _says_so(model)
    kind = type(model)
    if kind not in _taking:
        _taking[kind] = _says_so(model)
    return _taking[kind]


def _says_so(model: Any) -> bool:
    """Whether a model names the argument, or a part does that it hands all others on to.

    Granite's mixtures and Switch Transformers do the latter.
    """
    takes = taken_by(model.forward)
    if takes is None or _CACHE in takes.parameters:
        return takes is not None
    return takes.takes_any and any(takes_named(p.forward, _CACHE) for p in model.children())
