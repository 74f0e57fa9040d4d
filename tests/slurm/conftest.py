"""A cluster that the tests start themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

import slurm_cluster
from forked_programs import ForkedPrograms


@pytest.fixture(scope="session")
def cluster():
    """A real SLURM cluster of one node, which stands idle when a test begins."""
    if reason := slurm_cluster.reason_to_skip():
        pytest.skip(reason)
    # What a job names is looked for where the tests are, too.
    tests = str(Path(slurm_cluster.__file__).parent)
    with slurm_cluster.running_cluster(PYTHONPATH=tests) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Of a test that fails, show what the cluster says, and what its jobs have said."""
    report = yield
    if report.failed and (running := item.funcargs.get("cluster")) is not None:
        report.sections.append(("SLURM", running.account()))
        for log in sorted(item.funcargs["tmp_path"].glob("log*")):
            report.sections.append((log.name, log.read_text(errors="replace")))
    return report


@pytest.fixture
def programs():
    """What a script starts instead of a new Python. Studies make no plots."""
    with ForkedPrograms(without=["finetune_lm.study.search:save_plots"]) as running:
        yield running
