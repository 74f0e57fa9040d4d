"""Modules that are called by way of another one, which sees when they begin and when they end.

A model that is split among processes is put together for its calls, layer by layer. Who does that
changes the class of the module whose calls it sees, and has each parameter in one such module; but
code that comes with a model is saved by its class, and a model in two modes has its parameters in
two modules. So it sees the calls of modules that are no part of the model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn


class Door(nn.Module):
    """What several modules are called by way of from now on, whoever calls them and how.

    Nothing else about them changes: neither their names nor their classes nor what they return.

    Args:
        modules: The modules.
        inner: The doors of modules in them.
    """

    def __init__(self, modules: Iterable[nn.Module], inner: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self.behind = nn.ModuleList(modules)
        self.inner = nn.ModuleList(inner)
        for module in self.behind:
            module.forward = self._by_way_of_this(module.forward)

    def forward(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call one of the modules."""
        return call(*args, **kwargs)

    def _by_way_of_this(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return self(call, *args, **kwargs)

        return forward
