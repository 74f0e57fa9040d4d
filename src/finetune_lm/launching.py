"""How the processes that make one run together were started, and where they find each other."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

from finetune_lm.errors import UserError, first_line

_LONGEST_START = timedelta(minutes=10)


def launched() -> tuple[int, int]:
    """Which of how many processes of a launcher (torchrun, accelerate launch) this one is."""
    size = _number("WORLD_SIZE", 1)
    return (_number("RANK", 0), size) if size > 1 else (0, 1)


def place_here() -> int:
    """Which of the launcher's processes on this machine this one is."""
    return _number("LOCAL_RANK", 0)


def is_first_here() -> bool:
    """Whether this process is the first of those of the launcher on this machine."""
    return place_here() == 0


def launcher() -> str | None:
    """How so many processes are started, for people; None where there is only one."""
    _, size = launched()
    if size == 1:
        return None
    here = _number("LOCAL_WORLD_SIZE", size)
    nodes = f"--nnodes {size // here} " if here < size else ""
    return f"torchrun {nodes}--nproc-per-node {here} -m finetune_lm"


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdecimal() else default


_n_stores = count()


def common_store(size: int) -> Any:
    """What all ranks reach, with nothing in it: another one each time that they all ask for one.

    Raises:
        UserError: If they do not find each other.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    store = _store_of_launch(size)
    # A launcher that starts all of them again keeps what is in it.
    start = _number("TORCHELASTIC_RESTART_COUNT", 0)
    return PrefixStore(f"finetune_lm/{start}/{next(_n_stores)}", store)


@cache
def _store_of_launch(size: int) -> Any:
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=_LONGEST_START)))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{size} processes (WORLD_SIZE) must find each other by MASTER_ADDR and MASTER_PORT, "
            f"as torchrun and accelerate launch see to, but do not: {first_line(error)}"
        ) from error
    return store
