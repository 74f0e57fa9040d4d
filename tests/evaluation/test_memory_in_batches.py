"""Memory that runs out is told by the batch, with what to lower."""

from __future__ import annotations

import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import finetune_lm
from crashing import in_a_process, run_limited
from finetune_lm import DataTrainingArguments, ModelArguments, UserError
from finetune_lm.evaluation.passes import batch_watched
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.ranks import World, being
from finetune_lm.recording.scored_tokens import ScoredTokens
from helpers import write_lines
from stateful import Growing

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"), True),
        (RuntimeError(CPU), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_about_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_what_torch_says_when_there_is_no_memory():
    """The sign that is looked for is the one that this version of torch gives."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)


class Hungry(OutputsDefaultLoss):
    def __call__(self, outputs, labels):
        if len(labels) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return outputs.loss


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = ["The man drank.", "The man has always broken the glass.", "She drank.", "They drank."]
    path = write_lines(Path("texts.txt.gz"), texts)

    def get(**kwargs):
        settings = {
            "train_file": path,
            "validation_file": path,
            "test_file": [path],
            "epochs": 2,
            "shuffle_train": False,
            "output_dir": "out",
        }
        return ModelArguments("tiny-lm"), DataTrainingArguments(**{**settings, **kwargs})

    return get


def failing(monkeypatch, call):
    """Lets memory run out while a batch is dealt with: the first, the second ..."""
    calls = []

    def of(*args, original=ScoredTokens.of, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(*args, **kwargs)

    monkeypatch.setattr(ScoredTokens, "of", of)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            5,
            "memory ran out in epoch 1, train batch 0: 3 examples of 9 tokens, padding included. "
            "Lower --per_device_train_batch_size (3) or --max_length, or take a smaller model.",
        ),
        (
            4,
            "memory ran out in epoch 0, validation batch 1: 2 examples of 4 tokens, padding "
            "included. Lower --per_device_validation_batch_size (2) or --max_length, or take a "
            "smaller model.",
        ),
        (
            9,
            "memory ran out in epoch 1, test batch 0: 1 example of 5 tokens, padding included. "
            "Lower --per_device_test_batch_size (1) or --max_length, or take a smaller model.",
        ),
    ],
)
def test_the_batch_and_what_to_lower(arguments, monkeypatch, call, message):
    failing(monkeypatch, call)
    with pytest.raises(UserError) as caught:
        finetune_lm.run(
            *arguments(
                per_device_train_batch_size=3,
                per_device_validation_batch_size=2,
                per_device_test_batch_size=1,
            )
        )
    assert str(caught.value) == message
    assert finetune_lm.load_metrics("out")["epoch"].max() >= 0


def no_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_memory_that_runs_out_elsewhere(arguments, monkeypatch):
    monkeypatch.setattr("finetune_lm.training.best_state.BestState.keep", no_memory)
    with pytest.raises(UserError, match="memory ran out on cpu, between two batches"):
        finetune_lm.run(*arguments())
    monkeypatch.setattr("transformers.PreTrainedModel.to", no_memory)
    with pytest.raises(UserError, match="tiny-lm must fit into the memory of cpu but does not"):
        finetune_lm.run(*arguments(output_dir="other"))
    assert not Path("other").exists()


def test_a_loss_that_runs_a_model_of_its_own_is_named(arguments):
    with pytest.raises(UserError) as caught:
        finetune_lm.run(*arguments(per_device_train_batch_size=3, loss_classes={"train": [Hungry]}))
    assert "train batch 0 while Hungry was computed: 3 examples" in str(caught.value)
    assert "or what loss_classes_kwargs gives Hungry" in str(caught.value)


def test_what_preprocessing_has_made_is_told(arguments, monkeypatch):
    failing(monkeypatch, 1)

    def twice(inputs, tokenizer):
        n = len(inputs["input_ids"])
        repeated = {key: tensor.repeat_interleave(2, dim=0) for key, tensor in inputs.items()}
        lengths = torch.tensor([2] * n + [-1] * n)
        return {**repeated, "expanded_lengths": lengths}

    with pytest.raises(UserError, match=r"8 examples of . tokens, .*made of 4 by preprocessing"):
        finetune_lm.run(
            *arguments(
                data_preprocessing_fn={"train": twice},
                data_preprocessing_fn_strategy={"train": "per_batch"},
                per_device_train_batch_size=4,
            )
        )


def test_memory_that_really_runs_out(arguments):
    """4 bytes x 2^20 x 4, 16, 64, 256: the fourth step asks for 1 GB with 1 GB left in all."""
    run = arguments(per_device_train_batch_size=1, loss_classes={"train": [Growing]})
    assert in_a_process(run_limited, resource.RLIMIT_AS, 2**30, *run) == 2
    said = Path("said").read_text()
    assert said.startswith("memory ran out in epoch 0, train batch 3 while Growing was computed")
    assert len(said.splitlines()) == 1


def test_of_several_processes_it_is_what_each_is_given():
    class Second(World):
        rank, size = 1, 3

    with being(Second()):
        lengths = torch.tensor([5, 9, 4, 8, 7, 6])
        mask = (torch.arange(9) < lengths[:, None]).long()
        batch = SimpleNamespace(
            inputs={"input_ids": mask, "attention_mask": mask}, is_label=mask.bool()
        )
        split = SimpleNamespace(dataset_type="train", batch_size=6)
        at = SimpleNamespace(split=split, batch=batch, epoch=0, number=2)
        with pytest.raises(UserError) as raised, batch_watched(at):
            raise MemoryError
    assert str(raised.value).startswith(
        "memory ran out in epoch 0, train batch 2: 2 examples of 9 tokens, padding included. "
        "Lower --per_device_train_batch_size (2) or"
    )
