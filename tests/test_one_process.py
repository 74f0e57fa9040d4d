"""Launchers that start several processes for one run, and those that start one."""

from __future__ import annotations

import os

import pandas as pd
import pytest

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments, UserError
from finetune_lm.runs.one_process import check_one_process
from helpers import write_lines

SEVERAL = [
    {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},  # torchrun
    {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"},
    {"RANK": "3"},
    {"LOCAL_RANK": "1"},
    {"WORLD_SIZE": " 2 "},
    {"PMI_SIZE": "2"},  # MPICH, Intel
    {"OMPI_COMM_WORLD_SIZE": "2"},
    {"MV2_COMM_WORLD_SIZE": "4"},
    {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"},  # srun --ntasks 2
]
ONE = [
    {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},  # torchrun --nproc_per_node 1
    {"WORLD_SIZE": "1"},
    {"WORLD_SIZE": "", "RANK": ""},
    {"WORLD_SIZE": "what", "RANK": "-1"},
    {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
]


@pytest.fixture
def environment(monkeypatch):
    for name in [name for each in SEVERAL + ONE for name in each]:
        monkeypatch.delenv(name, raising=False)

    monkeypatch.delenv("MASTER_ADDR", raising=False)

    def set_to(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_to


@pytest.fixture
def args(tmp_path):
    file = write_lines(tmp_path / "test.txt.gz", ["The water was drunk."])
    return DataTrainingArguments(test_file=[file], output_dir=str(tmp_path / "out"))


@pytest.mark.parametrize("variables", SEVERAL, ids=str)
def test_several_are_refused(environment, args, variables, tmp_path):
    environment(variables)
    if "WORLD_SIZE" in variables:  # by this alone they do not find each other
        said = "must find each other by MASTER_ADDR"
    else:
        said = "this must be one process"
    with pytest.raises(UserError, match=said):
        finetune_lm.run(ModelArguments("tiny-lm"), args)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("variables", ONE, ids=str)
def test_one_is_not(environment, variables):
    environment(variables)
    check_one_process()


def test_one_that_torchrun_starts_looks_for_no_others(environment, args):
    """It would wait for them, or have its model wrapped."""
    alone = finetune_lm.run(ModelArguments("tiny-lm"), args).test_results
    environment(ONE[0])
    with_launcher = finetune_lm.run(ModelArguments("tiny-lm"), args).test_results
    pd.testing.assert_frame_equal(with_launcher, alone)
    assert os.environ["LOCAL_RANK"] == "0"


def test_workers_of_a_study_may_be_tasks_of_one_srun(environment):
    environment({"SLURM_STEP_NUM_TASKS": "4"})
    check_one_process(is_study=True)
    environment({"WORLD_SIZE": "4"})
    with pytest.raises(UserError, match="WORLD_SIZE is 4"):
        check_one_process(is_study=True)
