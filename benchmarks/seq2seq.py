"""Validating a seq2seq model: one forward pass a batch, and nothing is generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

import workload
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.examples import Examples
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.evaluation.evaluate import evaluate
from finetune_lm.evaluation.losses import LossEntry, Losses
from finetune_lm.evaluation.passes import Pass
from finetune_lm.evaluation.splits import Split
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.tasks import TASKS
from finetune_lm.recording.columns import MetadataColumns
from finetune_lm.recording.recorder import Measured, Recorder
from finetune_lm.recording.run_columns import RunColumns
from finetune_lm.recording.token_rows import TokenRows
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from measuring import Row, smallest

TARGET = 1.1


def run(quick: bool = False) -> list[Row]:
    """A seq2seq validation with every token recorded, against one forward pass a batch."""
    del quick
    workload.one_thread()
    tokenizer = workload.built_in_tokenizer("tiny-seq2seq")
    torch.manual_seed(1)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            num_layers=2,
            d_model=256,
            d_ff=1024,
            d_kv=64,
            num_heads=4,
            vocab_size=workload.VOCABULARY,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    ).eval()
    split = _split(model, tokenizer)
    counts = {"forward": 0, "generate": 0}
    plain_forward, plain_generate = model.forward, model.generate

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    run = workload.run_of(LoadedModel("random", TASKS["seq2seq"], model, tokenizer), _Rows())

    def ours() -> None:
        evaluate(run, split, 0, Pass(), lambda: None)

    def forwards() -> None:
        with torch.no_grad():
            for batch in split.dataset.batches(workload.BATCH_SIZE):
                model(**batch.inputs).loss.item()

    our_time, forward_time = smallest(ours, forwards)
    model.forward = counted("forward", plain_forward)
    model.generate = counted("generate", plain_generate)
    ours()
    what, n = "seq2seq validation with every token recorded", split.dataset.n_batches(32)
    return [
        Row.at_most(what, "teacher-forced forwards", our_time / forward_time, TARGET),
        Row.at_most(f"{what}, forward passes a batch", "–", counts["forward"] / n, 1),
        Row.at_most(f"{what}, calls of generate", "–", counts["generate"], 0),
    ]


class _Rows(Recorder):
    """Has the rows made, as a table does."""

    def batch(self, measured: Measured) -> None:
        """Make them."""
        measured.split.rows.of_batches([measured])


def _split(model: transformers.PreTrainedModel, tokenizer: object) -> Split:
    # As after span corruption: the words that are missing are the labels.
    labels = workload.taught()
    texts = [text.replace("blorked", "<extra_id_0>") for text in labels]
    labels = ["<extra_id_0> blorked the glass <extra_id_1>" for _ in texts]
    data = Dataset(
        Examples("data", "data.json", texts, labels, [{} for _ in texts]),
        TextEncoder(tokenizer, workload.LONGEST),
        TASKS["seq2seq"],
    )
    losses = Losses([LossEntry(OutputsDefaultLoss)], torch.sum, model, tokenizer)
    loaded = LoadedModel("random", TASKS["seq2seq"], model, tokenizer)
    metadata = MetadataColumns([data.metadata], [data.path], workload.LOSSES)
    columns = RunColumns.of(loaded, 1, metadata, workload.LOSSES)
    forward = Forward(
        Scorer(model, data.task, fast=True), data, workload.BATCH_SIZE, needs=Needs(False)
    )
    rows = TokenRows(data, "validation", columns)
    return Split("validation", data, workload.BATCH_SIZE, forward, rows, losses)
