"""Testing a model, against minicons (https://github.com/kanishkamisra/minicons) if it is there."""

from __future__ import annotations

import importlib
import importlib.util
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack

import workload
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
from measuring import Row, Worker, smallest_of

SHAPE = "small"
DEVICE = "cpu"
N_LINES = {"fillers": 512, "mixed lengths": 128}
TARGETS = {"fillers": 5.0, "mixed lengths": 4.0}
TUNED = 2.5


def run(quick: bool = False) -> list[Row]:
    """Tokens scored a second, against minicons."""
    del quick
    rows = []
    is_there = importlib.util.find_spec("minicons") is not None
    for texts, target in TARGETS.items():
        what = f"tokens scored a second, {texts}, {SHAPE}"
        if not is_there:
            rows.append(Row(what, "minicons", "not measured: not installed", f"≥ {target:g}"))
            continue
        for tuned, against, least in (
            (False, "minicons as installed", target),
            (True, "minicons tuned as we are", TUNED),
        ):
            with ExitStack() as stack:
                workers = [
                    stack.enter_context(Worker("scoring", kind, texts=texts, tuned=tuned))
                    for kind in ("ours", "minicons")
                ]
                our_time, their_time = smallest_of(workers, 5)
            ratio = their_time / our_time
            rows.append(Row.at_least(f"{what}{', tuned' if tuned else ''}", against, ratio, least))
    return rows


def _texts(kind: str) -> list[str]:
    all_texts = workload.fillers() if kind == "fillers" else workload.mixed()
    return all_texts[: N_LINES[kind]]


def ours(texts: str, tuned: bool) -> Callable[[], object]:
    """All rows of a test set, as a run makes them."""
    workload.one_thread(tuned=tuned)
    model, tokenizer = workload.causal_model(SHAPE).eval().to(DEVICE), workload.built_in_tokenizer()
    data = workload.dataset(_texts(texts), tokenizer)
    loaded = LoadedModel("random", TASKS["lm"], model, tokenizer)
    columns = RunColumns.of(loaded, 1, MetadataColumns([data.metadata], [data.path]))
    forward = Forward(
        Scorer(model, data.task, fast=True), data, workload.BATCH_SIZE, needs=Needs(False)
    )
    split = Split("test", data, workload.BATCH_SIZE, forward, TokenRows(data, "test", columns))
    run = workload.run_of(loaded)
    return lambda: deque(record_surprisals(run, split, None, WaitingRows([])), maxlen=0)


def minicons(texts: str, tuned: bool) -> Callable[[], object]:
    """The surprisal of each token, batch by batch, as minicons' documentation has it."""
    scorer = importlib.import_module("minicons.scorer")
    workload.one_thread(tuned=tuned)
    model, tokenizer = workload.causal_model(SHAPE).eval().to(DEVICE), workload.built_in_tokenizer()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    made = scorer.IncrementalLMScorer(model, DEVICE, tokenizer=tokenizer)
    lines, size = _texts(texts), workload.BATCH_SIZE

    def score() -> None:
        for begin in range(0, len(lines), size):
            made.token_score(lines[begin : begin + size], surprisal=True, base_two=True)

    return score
