"""What a trial of a study costs before its first step, beside loading everything for it anew.

Measured is the processor time between the last step of a trial and the first of the next: the
results are written, Optuna chooses, the journal is kept, weights and generators are put back, and
optimizer and losses are made. Loading anew is what a single run does before its first step, in this
process or in one of its own. The least of several times each.

    python benchmarks/study.py
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import torch
import transformers

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments, OptimizationArguments
from finetune_lm.data.files import read_files
from finetune_lm.evaluation.splits import make_splits
from finetune_lm.model_modifiers.callbacks import Callbacks
from finetune_lm.models.pretrained import model_path
from finetune_lm.runs.preparing import load
from finetune_lm.study import search, trials
from finetune_lm.training.state import TrainingState
from finetune_lm.training.step import make_learner
from measuring import Row

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
N_TRIALS = 8
N_LOADS = 3


_LOADING, _PROCESS = "loading all again", "a process of its own"
_TARGETS = {_LOADING: 1.0, _PROCESS: 0.1}


def run(quick: bool) -> list[Row]:
    """A trial's overhead, against loading all again and against a process of its own."""
    del quick
    results = []
    with tempfile.TemporaryDirectory() as directory:
        for name, model in (("tiny-lm", "tiny-lm"), ("GPT-2 4 x 256", _medium(directory))):
            args = DataTrainingArguments(
                train_file=str(DATA / "flomped_active.txt.gz"),
                validation_file=str(DATA / "flomped_passive.txt.gz"),
                seed=1,
                output_dir=str(Path(directory) / f"study-{name}"),
            )
            between = _between_trials(model, args)
            for what, seconds in (
                (_LOADING, _loading(model, args)),
                (_PROCESS, _fresh_process(model, args)),
            ):
                row = f"before a second trial's first step, {name}"
                results.append(Row.at_most(row, what, between / seconds, _TARGETS[what]))
    return results


def _medium(directory: str) -> str:
    """A model of 16 million parameters, with a tokenizer that does not use all of them."""
    path = Path(directory) / "model"
    config = transformers.GPT2Config(
        n_layer=4, n_embd=256, n_head=4, vocab_size=50_257, n_positions=128
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    transformers.AutoTokenizer.from_pretrained(model_path("tiny-lm")).save_pretrained(path)
    return str(path)


def _between_trials(model: str, args: DataTrainingArguments) -> float:
    """Processor time from the end of a trial's training to the beginning of the next one's."""
    begun: list[float] = []
    ended: list[float] = []

    def train(*arguments: Any, **_: Any) -> None:
        begun.append(time.process_time())
        [state] = (each for each in arguments if isinstance(each, TrainingState))
        state.stopping.update(0, torch.rand(1).item())
        ended.append(time.process_time())

    with (
        mock.patch.object(trials, "train", train),
        mock.patch.object(search, "save_plots"),
    ):
        finetune_lm.run(
            ModelArguments(model),
            args,
            OptimizationArguments(
                do_optimize=True,
                study_kwargs={"sampler": optuna.samplers.RandomSampler},
                optimize_kwargs={"n_trials": N_TRIALS},
            ),
        )
    return min(b - e for e, b in zip(ended[:-1], begun[1:], strict=True))


def _loading(model: str, args: DataTrainingArguments) -> float:
    """Processor time of what a single run does before its first step."""
    model_args = ModelArguments(model)
    times = []
    for _ in range(N_LOADS):
        begin = time.process_time()
        accelerator, loaded, datasets = load(model_args, args, read_files(args))
        [training] = make_splits("train", datasets, loaded, args, None)
        make_learner(args, loaded, accelerator, Callbacks(), training)
        times.append(time.process_time() - begin)
    return min(times)


def _fresh_process(model: str, args: DataTrainingArguments) -> float:
    """The same in a new process, which has everything to import first."""
    code = f"""
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.data.files import read_files
from finetune_lm.runs.preparing import load
args = DataTrainingArguments(train_file={args.train_file!r},
    validation_file={args.validation_file!r}, seed=1)
load(ModelArguments({model!r}), args, read_files(args))
"""
    times = []
    for _ in range(N_LOADS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def main() -> None:
    """Print the table."""
    for row in run(quick=False):
        print(f"{f'{row.what} / {row.against}':<70}  {row.value}")


if __name__ == "__main__":
    main()
