"""Launchers that start several processes for one run, and those that start one."""

from __future__ import annotations

import copy
import os

import pandas as pd
import pytest
import torch
from torch.distributed import HashStore

import finetune_lm
from finetune_lm import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    UserError,
    launching,
)
from finetune_lm.data.files import read_files
from finetune_lm.models.loading import load_model
from finetune_lm.ranks import World
from finetune_lm.runs import same_for_all
from finetune_lm.runs.one_process import check_one_process
from finetune_lm.runs.preparing import load
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


class Other(World):
    """The first of three ranks, of which the last has something else."""

    size = 3

    def __init__(self, change):
        self.change = change

    def gather(self, value):
        changed = copy.deepcopy(value)
        self.change(changed)
        return [value, value, changed]


def _newer(value):
    value["versions"] |= {"torch": "9.9", "source of finetune_lm": "0"}


def _longer(value):
    value["arguments"]["epochs"] += 1
    value["arguments"]["train_optimizer_kwargs"]["lr"] = 7


def _elsewhere(value):
    """What may be otherwise on another machine is not among what is compared."""
    assert not {"cache_dir", "test_file", "output_dir"} & set(value["arguments"])
    assert "save_tmp_test_files" in value["arguments"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_elsewhere, None),
        (_newer, f"in torch (9.9, not {torch.__version__}) and source of finetune_lm."),
        (_longer, "in epochs (251, not 250) and train_optimizer_kwargs.lr (7, not 2e-06)."),
    ],
)
def test_ranks_that_would_drift_apart_are_told(args, monkeypatch, change, said):
    all_args = (ModelArguments("tiny-lm"), args, OptimizationArguments())
    monkeypatch.setattr(same_for_all, "world", lambda: Other(change))
    if said is None:
        same_for_all.check_programs_and_arguments(all_args)
        return
    with pytest.raises(UserError) as raised:
        same_for_all.check_programs_and_arguments(all_args)
    assert f"but rank 2 differs from rank 0 {said}" in str(raised.value)


def test_data_files_that_say_something_else_are_told(args, monkeypatch):
    files = read_files(args)

    def change(value):
        value["test_file"] = ["another"]

    monkeypatch.setattr(same_for_all, "world", lambda: Other(change))
    with pytest.raises(UserError, match="rank 2 differs from rank 0 in test_file"):
        same_for_all.check_files(files)
    monkeypatch.setattr(same_for_all, "world", lambda: Other(lambda value: None))
    same_for_all.check_files(files)


def _told(monkeypatch, check, change):
    monkeypatch.setattr(same_for_all, "world", lambda: Other(lambda value: None))
    check()
    monkeypatch.setattr(same_for_all, "world", lambda: Other(change))
    with pytest.raises(UserError) as raised:
        check()
    return str(raised.value).partition("differs from rank 0 in ")[2]


def test_models_that_differ_are_told(monkeypatch):
    """As files of one name on several machines may, or what a modifier has drawn by itself."""
    args = ModelArguments("tiny-lm", model_modifier_fns=[lambda model, tokenizer: None])
    loaded = load_model(args)

    def check():
        same_for_all.check_identity(same_for_all.identity_of_model(loaded, args))

    def another(value):
        value["model"]["weights"] = "0"

    def modified_otherwise(value):
        value["weights of the modified model"] = "0"

    assert _told(monkeypatch, check, another) == "weights of the model."
    assert _told(monkeypatch, check, modified_otherwise) == "weights of the modified model."


def test_tokens_that_differ_are_told(monkeypatch, args):
    """As those of two versions of a tokenizer, or of preprocessing with numbers of its own."""
    *_, datasets = load(ModelArguments("tiny-lm"), args, read_files(args))

    def change(value):
        value["tokens of the test data"] = [0]

    said = _told(monkeypatch, lambda: same_for_all.check_tokens(datasets), change)
    assert said == "tokens of the test data."


def test_each_run_of_a_script_that_torchrun_has_started_has_a_store_of_its_own(monkeypatch):
    """In that of an earlier one is where processes were and why they have ended."""
    store = HashStore()
    monkeypatch.setattr(launching, "_store_of_launch", lambda size: store)
    first, second = launching.common_store(2), launching.common_store(2)
    first.set("end/1", "a mistake")
    assert first.check(["end/1"])
    assert not second.check(["end/1"])
