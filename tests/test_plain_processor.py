"""The tests of numbers on a processor without vector instructions beyond the oldest.

There torch adds up in another order, and its own float32 functions are less exact.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NUMBERS = [
    "scoring/test_surprisal.py",
    "scoring/fast/test_criterion.py",
    "scoring/fast/test_cross_entropy.py",
    "loss_classes/test_kl_divergence.py",
]
RUN = """
import sys, pytest, torch
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
torch.set_num_threads(2)
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[1:]]))
"""


def test_numbers_are_as_exact_there_with_two_threads():
    ran = subprocess.run(
        [sys.executable, "-c", RUN, *(str(HERE / name) for name in NUMBERS)],
        cwd=HERE.parent,
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
