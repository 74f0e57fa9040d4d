"""When Python looks through everything that it holds for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

_NEVER = 10**6


@contextmanager
def without_full_collections() -> Iterator[None]:
    """Inside, only new objects are looked through. May be used as a decorator.

    At the start of a run, packages and data become objects by the hundred thousand, nearly all of
    which stay. Python would look through all that there are each time that they have become a
    quarter more, which takes a fifth of the time until the first step. What is not reachable any
    more is freed all the same, by its count of references or while it is young.
    """
    before = gc.get_threshold()
    gc.set_threshold(*before[:2], _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def passing_over_what_is_there() -> Iterator[None]:
    """Inside, nothing is looked through that is there now.

    To look through all objects of torch and transformers takes longer than an epoch may. What
    somebody around this passes over already is passed over afterwards, too.
    """
    was_passed_over = gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not was_passed_over:
            gc.unfreeze()


@contextmanager
def passing_over_packages() -> Iterator[None]:
    """The same, unless somebody around this passes over packages already.

    What a run has is passed over as well, and so looked through again only behind this.
    """
    with nullcontext() if gc.get_freeze_count() else passing_over_what_is_there():
        yield
