"""What measures cost: a training step and a test with them, against the same without."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import workload
from finetune_lm import measures
from finetune_lm.evaluation.evaluate import record_surprisals
from finetune_lm.evaluation.splits import Split
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.tasks import TASKS
from finetune_lm.recording.columns import MetadataColumns
from finetune_lm.recording.run_columns import RunColumns
from finetune_lm.recording.token_rows import TokenRows
from finetune_lm.recording.waiting_rows import WaitingRows
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from measuring import Row, smallest

TARGETS = {
    "WordBoundary": 1.03,
    "Entropy": 1.03,
    "Rank": 1.03,
    "60 Candidates": 1.01,
    "BaselineKL": 1.6,
}
N_LINES = 128
N_TIMES = {"small": 9, "gpt2": 5}


def run(quick: bool = False) -> list[Row]:
    """Each measure, in a training step and in a test."""
    rows = []
    for shape in ["small"] if quick else ["small", "gpt2"]:
        for what, make in (("training step", step), ("test", test)):
            without, *times = smallest(
                *(make(shape, name) for name in [None, *TARGETS]), n_times=N_TIMES[shape]
            )
            rows += [
                Row.at_most(f"{what} with {name}, {shape}", "without", seconds / without, target)
                for (name, target), seconds in zip(TARGETS.items(), times, strict=True)
            ]
    return rows


def _made(shape: str, name: str | None) -> tuple[Any, Any, list[Any]]:
    """A model, its tokenizer and a measure of it."""
    model, tokenizer = workload.causal_model(shape), workload.built_in_tokenizer()
    if name is None:
        return model, tokenizer, []
    if name == "60 Candidates":
        every = [t[1:] for t in sorted(tokenizer.get_vocab()) if t[:1] == "Ġ" and t[1:].isalpha()]
        return model, tokenizer, [measures.Candidates(model, tokenizer, words=every[:60])]
    if name == "BaselineKL":
        place = workload.scratch_directory() / shape
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        model.name_or_path = str(place)
    return model, tokenizer, [getattr(measures, name)(model, tokenizer)]


def step(shape: str, name: str | None) -> Callable[[], object]:
    """The step of the training loop, with every token recorded."""
    workload.one_thread()
    model, tokenizer, made = _made(shape, name)
    experiment = workload.experiment(model, tokenizer, workload.taught(), measures=made)
    batches = itertools.cycle(experiment.batches[:1])
    return lambda: experiment.step(next(batches))


def test(shape: str, name: str | None) -> Callable[[], object]:
    """All rows of a test set."""
    workload.one_thread()
    model, tokenizer, made = _made(shape, name)
    model.eval()
    data = workload.dataset(workload.fillers()[:N_LINES], tokenizer)
    loaded = LoadedModel("random", TASKS["lm"], model, tokenizer)
    columns = workload.measured_columns(
        RunColumns.of(loaded, 1, MetadataColumns([data.metadata], [data.path])), made
    )
    scorer, size = Scorer(model, data.task, fast=True), workload.BATCH_SIZE
    forward = Forward(scorer, data, size, Needs(False, made))
    split = Split("test", data, size, forward, TokenRows(data, "test", columns, measures=made))
    run = workload.run_of(loaded)
    return lambda: deque(record_surprisals(run, split, None, WaitingRows([])), maxlen=0)
