"""The benchmarks run, and what is no matter of speed in them holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def in_benchmarks(code):
    """What a piece of code prints that may import the benchmarks, from JSON."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{code}"],
        cwd=BENCHMARKS,
        env=None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_training_batch_waits_for_the_device_twice():
    """For what its tokens cost and for its losses."""
    met = in_benchmarks(
        "import synchronisations\nprint(json.dumps([r.what for r in synchronisations.run()]))"
    )
    assert met == ["waits for the device in a training batch (cpu, tolist)"]


@pytest.mark.parametrize("worker", ["ours", "bare", "trainer"])
def test_each_side_of_a_comparison_runs(worker):
    code = f"""
import step, workload
made = step.{worker}("tiny", vocabulary=workload.SMALL_VOCABULARY)
made()
print(json.dumps(workload.SMALL_VOCABULARY))
"""
    assert in_benchmarks(code) == 512


def test_rows_make_a_table():
    lines = in_benchmarks(
        """
import run
from measuring import Row
rows = [Row.at_most("a", "b", 1.0, 2.0), Row.at_least("c", "d", 1.0, 2.0), Row("e", "f", "g")]
print(json.dumps(run.table(rows)))
"""
    )
    assert [line.split("|")[-2].strip() for line in lines] == ["met", "---", "yes", "no", ""]
