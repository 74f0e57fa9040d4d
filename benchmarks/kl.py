"""The KL term: its baseline's predictions in the cache, and training that begins without any."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
import transformers

import workload
from finetune_lm import ModelArguments
from finetune_lm.evaluation.passes import measure_batch
from finetune_lm.loss_classes import KLBaselineLoss
from finetune_lm.models.loading import LoadedModel, load_model
from finetune_lm.recording.recorder import BatchAt
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from measuring import Row, Worker, processor_time, smallest, smallest_of

TARGETS = {"small": 1.35, "gpt2": 1.15}
N_DRAWN = 20


COLD = 2.0
# As many as are measured of the first steps, in which hardly any sentence is drawn twice.
N_STEPS = 20


def run(quick: bool = False) -> list[Row]:
    """The KL term from the cache, against cross-entropy on the same real tokens; a cold start."""
    cached = [_of_shape(shape) for shape in (["small"] if quick else ["small", "gpt2"])]
    return [*cached, *_cold()]


def _of_shape(shape: str) -> Row:
    workload.one_thread()
    loaded = _loaded(shape)
    model = loaded.model.train()
    texts = workload.mixed()[: workload.N_KL : workload.N_KL // N_DRAWN][:N_DRAWN]
    path = _written(texts)
    # All of them are drawn each time, so that both sides see the same tokens.
    loss = KLBaselineLoss(model, loaded.tokenizer, dataset=path, n_examples_per_batch=N_DRAWN)
    data = workload.dataset(texts, loaded.tokenizer)
    forward = Forward(Scorer(model, data.task, fast=True), data, N_DRAWN, needs=Needs(False))
    [batch] = data.batches(N_DRAWN)
    device, no_labels = torch.device("cpu"), torch.empty(0)

    def divergence() -> None:
        loss(outputs=None, labels=no_labels).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    def cross_entropy() -> None:
        forward(batch, device).for_losses.loss.backward()
        model.zero_grad()

    ours, other = smallest(divergence, cross_entropy)
    what = f"KL term from the cache, {shape}"
    against = "cross-entropy of the same real tokens"
    return Row.at_most(what, against, ours / other, TARGETS[shape])


def _cold() -> list[Row]:
    """The first steps of a training with a KL term, against one without."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker("kl", "first_steps", with_kl=with_kl))
            for with_kl in (True, False)
        ]
        ours, other = smallest_of(workers, 2)
    what, against = f"training with a KL term, first {N_STEPS} steps, small", "the same without"
    return [
        Row.at_most(what, against, ours / other, COLD),
        Row(f"{what}, products of matrices", against, f"{_products():.3g}"),
    ]


def first_steps(with_kl: bool) -> Callable[[], object]:
    """Steps of the training loop, each time on sentences that were not drawn before."""
    workload.one_thread(tuned=True)
    loaded = _loaded("small")
    made = workload.experiment(loaded.model, loaded.tokenizer, workload.taught())
    path, seeds, batches = _written(workload.mixed()), itertools.count(), made.batches
    no_labels = torch.empty(0)

    def take(term: KLBaselineLoss | None) -> None:
        for number in range(N_STEPS):
            at = BatchAt(made.training, batches[number % len(batches)], 0, number)
            measured, loss = measure_batch(made.run, at, lr=made.learner.lr)
            assert loss is not None
            if term is not None:
                loss = loss + term(outputs=None, labels=no_labels)
            made.update.add(loss, measured.n_labels, 0, number)
            made.run.recorders.batch(measured)
        made.run.recorders.write_rows()

    def steps() -> float:
        torch.manual_seed(next(seeds))
        term = KLBaselineLoss(loaded.model, loaded.tokenizer, path) if with_kl else None
        return processor_time(lambda: take(term))

    return steps


def _products() -> float:
    """The same ratio of products of matrices alone.

    For a token that is learned there are three for each weight, and one for the untouched model's.
    """
    tokenizer = workload.built_in_tokenizer()
    n_batches = len(workload.taught()) / workload.BATCH_SIZE
    taught, held = (
        sum(map(len, tokenizer(texts)["input_ids"])) / n
        for texts, n in (
            (workload.taught(), n_batches),
            (workload.mixed(), workload.N_KL / N_DRAWN),
        )
    )
    return (3 * taught + 4 * held) / (3 * taught)


def _loaded(shape: str) -> LoadedModel:
    """A model from a directory: a baseline is loaded as the model was named."""
    transformers.utils.logging.disable_progress_bar()
    directory = workload.scratch_directory() / shape
    workload.causal_model(shape).save_pretrained(directory)
    workload.built_in_tokenizer().save_pretrained(directory)
    return load_model(ModelArguments(str(directory)))


def _written(texts: Sequence[str]) -> str:
    path = workload.scratch_directory() / "kl.txt.gz"
    path.write_bytes(gzip.compress("".join(f"{text}\n" for text in texts).encode()))
    return str(path)
