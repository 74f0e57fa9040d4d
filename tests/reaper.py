"""Starts a program and takes note of the end of everything that it starts, as an init should.

Where the first process of a machine or container does not do so, what has ended stays in the list
of processes, and SLURM waits for it for seconds. When the program ends, or the process that has
started this one, everything that is left of it is killed.

    python reaper.py PROGRAM ARGUMENTS ...
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(program: list[str]) -> int:
    """Run a program. Returns its exit status."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    child = os.spawnvp(os.P_NOWAIT, program[0], program)
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
    ended = 0
    while ended != child:
        ended, status = os.wait()
    while children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        for each in children:
            os.kill(int(each), signal.SIGKILL)
        for _ in children:
            os.wait()
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
