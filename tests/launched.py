"""Command lines that several processes do together, as torchrun starts them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from commands import Command

# What the tests bring is found, and arithmetic is that of one thread.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}


def launch(*argv: Any, n: int = 2, cwd: Path, **kwargs: Any) -> list[Command]:
    """Begin a command line in so many processes that find each other, one thread each.

    Args:
        *argv: The arguments.
        n: How many processes.
        cwd: Where they are started.
        **kwargs: Further arguments of `Command`.
    """
    from torch.distributed import TCPStore

    # As torchrun has it, it is neither of them that all of them ask. It takes a port that is free.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": "1",
        **kwargs.pop("environment", {}),
    }
    ranks = [
        Command(
            *argv, cwd=cwd, environment={**shared, "RANK": str(i), "LOCAL_RANK": str(i)}, **kwargs
        )
        for i in range(n)
    ]
    ranks[0].store = store  # type: ignore[attr-defined]  # lives as long as they do
    return ranks


def run_launched(
    *argv: Any, n: int = 2, cwd: Path, **kwargs: Any
) -> list[subprocess.CompletedProcess[str]]:
    """Do that to its end. Returns what each has come to, by rank."""
    ended = []
    for command in launch(*argv, n=n, cwd=cwd, **kwargs):
        stdout, stderr = command.communicate()
        ended.append(subprocess.CompletedProcess(list(argv), command.wait(), stdout, stderr))
    return ended
