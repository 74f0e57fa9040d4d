"""Small studies for tests: a tiny random model, a few sentences, and parts that misbehave.

The losses and callbacks here are named on command lines too, as ``studies.NAME``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

import finetune_lm
from commands import Command
from finetune_lm import DataTrainingArguments, ModelArguments, OptimizationArguments
from finetune_lm.loss_classes import OutputsDefaultLoss
from helpers import write_lines

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
TRAIN = [
    "The man has always broken the glass.",
    "The women have often drunk the water.",
    "The children don't see the old teacher.",
    "She opened the box and they drank.",
    "The story was told again and again.",
]
VALIDATION = ["The glass was broken by the man.", "The water was drunk."]
LR = {"lr": {"values": [1e-4, 1e-2], "suggest_kwargs": {"log": True}}}
RANDOM = {"sampler": "random"}


def files(directory: Path) -> dict[str, str]:
    """A training and a validation file."""
    directory.mkdir(exist_ok=True)
    return {
        "train_file": write_lines(directory / "teach.txt.gz", TRAIN),
        "validation_file": write_lines(directory / "check.txt.gz", VALIDATION),
    }


def data_args(directory: Path, **kwargs: Any) -> DataTrainingArguments:
    """Arguments of a run of two epochs."""
    settings = {
        **files(directory),
        "epochs": 2,
        "per_device_train_batch_size": 2,
        "seed": 5,
        "output_dir": str(directory / "out"),
        **kwargs,
    }
    return DataTrainingArguments(**settings)


def study_args(n_trials: int | None = 3, **kwargs: Any) -> OptimizationArguments:
    """Arguments of a study with a random sampler and without pruning, unless others are given."""
    import optuna

    study_kwargs = {
        "sampler": optuna.samplers.RandomSampler,
        "pruner": optuna.pruners.NopPruner,
        **kwargs.pop("study_kwargs", {}),
    }
    return OptimizationArguments(
        do_optimize=True,
        study_kwargs=study_kwargs,
        optimize_kwargs={"n_trials": n_trials, **kwargs.pop("optimize_kwargs", {})},
        params=kwargs.pop("params", LR),
        **kwargs,
    )


def run_study(
    model: str, data: DataTrainingArguments, study: OptimizationArguments, **model_kwargs: Any
) -> Any:
    """A study in this process."""
    return finetune_lm.run(ModelArguments(model, **model_kwargs), data, study)


def trials_of(result: Any) -> list[Any]:
    """Optuna's trials of a study."""
    return result.study.get_trials(deepcopy=False)


def start(*argv: Any, cwd: Path, plots: bool = False, **environment: str) -> Command:
    """Start the program in a process of its own, with this directory's modules to name.

    Without plots, which take longer than all the rest, unless they are asked for.
    """
    variables = {"PYTHONPATH": str(Path(__file__).parent), **environment}
    without = [] if plots else ["finetune_lm.study.search:save_plots"]
    return Command(*argv, cwd=cwd, merged=True, environment=variables, without=without)


def finish(process: Command) -> str:
    """Wait for a process that must succeed, and return what it has said."""
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def wait_for(path: Path, process: Command) -> None:
    """Wait until a process has made a file."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class HangHere:
    """A callback that, where HANG names a file, makes it and waits for the process to be killed.

    It ends by itself if the test that has started it is gone.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        pass

    def __call__(self, epoch: int, batch: int) -> None:
        if os.environ.get("HANG"):
            parent = os.getppid()
            Path(os.environ["HANG"]).touch()
            while os.getppid() == parent:
                time.sleep(0.1)
            os._exit(1)


class Misbehave:
    """A callback that leaves all it can behind in the model."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model

    def __call__(self, epoch: int, batch: int) -> None:
        if epoch or batch:
            return
        model = self.model
        embeddings = model.get_input_embeddings()
        # The first of these takes part in the trial, too, and the same in each.
        embeddings.register_forward_hook(lambda module, args, output: output * 1.01)
        embeddings.register_forward_pre_hook(lambda module, args: None)
        first = next(iter(model.parameters()))
        first.register_hook(lambda gradient: gradient * 0.5)
        first.register_post_accumulate_grad_hook(lambda parameter: None)
        norm = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)][-1]
        norm.weight.requires_grad_(False)
        norm.register_buffer("left_behind", torch.ones(3))
        norm.bias = torch.nn.Parameter(norm.bias.detach() + 1.0)
        model.add_module("extra", torch.nn.Linear(1, 1))
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.add_(0.0)
        model.train()


class Interrupt:
    """A callback that sends its own process a signal in a chosen trial."""

    number = signal.SIGTERM
    at_trial = 1
    n_made = 0

    def __init__(self, model: Any, tokenizer: Any) -> None:
        type(self).n_made += 1
        # The first one is made before there are trials.
        self.is_due = self.n_made - 2 == self.at_trial

    def __call__(self, epoch: int, batch: int) -> None:
        if self.is_due:
            os.kill(os.getpid(), self.number)
            self.is_due = False


class ListLoss(OutputsDefaultLoss):
    """A loss with a number for each of its data sets, like `KLBaselineLoss`."""

    given: list[Any] = []  # noqa: RUF012

    def __init__(
        self, model: Any, tokenizer: Any, dataset: Any = None, scaleby: Any = 2.5, n: Any = 20
    ) -> None:
        super().__init__(model, tokenizer)
        self.scale = sum(scaleby) if isinstance(scaleby, list) else scaleby
        type(self).given.append((scaleby, n))

    def __call__(self, outputs: Any, labels: Any) -> Any:
        return super().__call__(outputs, labels) * self.scale
