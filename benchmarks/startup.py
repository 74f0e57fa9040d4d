"""What ``finetune-lm --help`` takes."""

from __future__ import annotations

import resource
import subprocess
import sys

from measuring import N_TIMES, Row

TARGET = 0.4


def run(quick: bool = False) -> list[Row]:
    """The processor time of --help."""
    del quick

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "finetune_lm", "--help"], stdout=subprocess.DEVNULL, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return [Row.at_most("--help", "–", min(seconds() for _ in range(N_TIMES)), TARGET, " s")]
