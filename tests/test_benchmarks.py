"""The benchmarks run, and what is no matter of speed in them holds."""

from __future__ import annotations

import copy
import json
import math
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


@pytest.fixture(scope="module")
def found():
    """What one process finds that imports torch for all tests."""
    return in_benchmarks(
        """
import run, step, synchronisations, workload
from measuring import Row
rows = [Row.at_most("a", "b", 1.0, 2.0), Row.at_least("c", "d", 1.0, 2.0), Row("e", "f", "g")]
found = {"table": run.table(rows), "did": []}
for worker in ("ours", "bare", "trainer"):
    getattr(step, worker)("tiny", vocabulary=workload.SMALL_VOCABULARY)()
    found["did"].append(worker)
found["waits"] = [row.what for row in synchronisations.run()]
print(json.dumps(found))
"""
    )


def test_a_training_batch_does_not_wait_for_the_device(found):
    """For what its tokens cost and for its losses."""
    assert found["waits"] == ["waits for the device in a training batch (none)"]


def test_each_side_of_a_comparison_runs(found):
    assert found["did"] == ["ours", "bare", "trainer"]


def test_rows_make_a_table(found):
    verdicts = [line.split("|")[-2].strip() for line in found["table"]]
    assert verdicts == ["met", "---", "yes", "no", ""]


def test_the_kl_term_that_ours_is_compared_with_is_the_same(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import torch

    from careful_loop import kl_term
    from families import family
    from finetune_lm.loss_classes._kl_divergence import kl_divergence
    from fitted_model import fitted_rows

    first, other = (copy.deepcopy(family("gpt2").model).eval() for _ in range(2))
    with torch.no_grad():
        first.transformer.wte.weight.mul_(1.1)
        ids = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 0]])
        mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
        found = kl_term(first, other, {"input_ids": ids, "attention_mask": mask})
        each = []
        for row, n in ((0, 4), (1, 3)):
            q, p = (model(ids[row : row + 1, :n]).logits[0, :-1] for model in (first, other))
            each.append(kl_divergence(q, p).mean())
        torch.testing.assert_close(found, torch.stack(each).mean(), rtol=1e-4, atol=1e-7)
    # Four entries that none of three follows, and two targets behind one of these.
    hidden, targets = torch.eye(3)[[0, 1, 2, 2]] * 50, torch.tensor([3, 0, 1, 3])
    cost = torch.nn.functional.cross_entropy(hidden @ fitted_rows(hidden, targets, 7).T, targets)
    torch.testing.assert_close(cost, torch.tensor(0.5 * math.log(2)), atol=0.01, rtol=0)
