"""The KL term: its baseline's predictions in the cache, and training that begins without any."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterable, Sequence
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
from measuring import Row, Worker, processor_time, smallest

TARGETS = {"small": 1.35, "gpt2": 1.15}
SAME_TOKENS = "cross-entropy of the same real tokens"
# Sentences of the term in a step, and first steps, in which hardly any of them is drawn twice.
N_DRAWN, N_STEPS = 20, 50
COLD = 2.0
N_TIMES = 2


def run(quick: bool = False) -> list[Row]:
    """The KL term from the cache, against cross-entropy on the same real tokens; a cold start."""
    cached = [_of_shape(shape) for shape in (["small"] if quick else ["small", "gpt2"])]
    return [*cached, *_cold()]


def _of_shape(shape: str) -> Row:
    workload.one_thread()
    ours, other = smallest(*both_sides(shape, torch.device("cpu")))
    what = f"KL term from the cache, {shape}"
    return Row.at_most(what, SAME_TOKENS, ours / other, TARGETS[shape])


def both_sides(shape: str, device: torch.device) -> tuple[Callable[[], object], ...]:
    """The KL term on sentences all of which are drawn each time, and cross-entropy on the same."""
    loaded = _loaded(shape)
    model = loaded.model.train().to(device)
    texts = workload.mixed()[: workload.N_KL : workload.N_KL // N_DRAWN][:N_DRAWN]
    path = _written(texts)
    # All of them are drawn each time, so that both sides see the same tokens.
    loss = KLBaselineLoss(model, loaded.tokenizer, dataset=path, n_examples_per_batch=N_DRAWN)
    data = workload.dataset(texts, loaded.tokenizer)
    forward = Forward(Scorer(model, data.task, fast=True), data, N_DRAWN, needs=Needs(False))
    [batch] = data.batches(N_DRAWN)
    no_labels = torch.empty(0)

    def divergence() -> None:
        loss(outputs=None, labels=no_labels).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    def cross_entropy() -> None:
        forward(batch, device).for_losses.loss.backward()
        model.zero_grad()

    return divergence, cross_entropy


def _cold() -> list[Row]:
    """The first steps of a training with a KL term, against one without."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker("kl", "first_steps", with_kl=with_kl))
            for with_kl in (True, False)
        ]
        times = [[worker.measure() for worker in workers] for _ in range(N_TIMES)]
        ours, other = (min(column) for column in zip(*times, strict=True))
    what, against = f"training with a KL term, first {N_STEPS} steps, small", "the same without"
    as_done, at_least = _products()
    return [
        Row.at_most(what, against, ours / other, COLD),
        Row(f"{what}, products of matrices alone", against, f"{as_done:.3g}"),
        Row(f"{what}, the least of them", against, f"{at_least:.3g}"),
    ]


def first_steps(with_kl: bool) -> Callable[[], object]:
    """Steps of the training loop, each time on sentences that were not drawn before."""
    workload.one_thread(tuned=True)
    loaded = _loaded("small")
    made = workload.experiment(loaded.model, loaded.tokenizer, workload.taught())
    path, seeds, batches = _written(workload.mixed()), itertools.count(), made.batches
    no_labels = torch.empty(0)

    def take(term: KLBaselineLoss | None, n_steps: int) -> None:
        for number in range(n_steps):
            at = BatchAt(made.training, batches[number % len(batches)], 0, number)
            measured, loss = measure_batch(made.run, at, lr=made.learner.lr)
            assert loss is not None
            if term is not None:
                loss = loss + term(outputs=None, labels=no_labels)
            made.update.add(loss, measured.n_labels, 0, number)
            made.run.recorders.batch(measured)
        made.run.recorders.write_rows()

    def steps(n_steps: int = N_STEPS) -> float:
        torch.manual_seed(next(seeds))
        term = KLBaselineLoss(loaded.model, loaded.tokenizer, path) if with_kl else None
        return processor_time(lambda: take(term, n_steps))

    steps(2)  # What is found out once is not what it costs.
    return steps


def _products() -> tuple[float, float]:
    """The same ratio of products of matrices alone, by counting: as it is done, and the least.

    A token that is learned from takes three products for each weight: one forward and two backward.
    One of the term takes a fourth, for what the untouched model predicts. That one is the least if
    what sentences of all steps begin with goes through the layers once, and those of a step through
    the last layer. The others cannot be shared, for each token has dropout of its own.
    """
    tokenizer, model = workload.built_in_tokenizer(), workload.causal_model("small")
    taught = sum(map(len, tokenizer(workload.taught())["input_ids"]))
    taught_in_step = taught * workload.BATCH_SIZE / len(workload.taught())
    head = model.lm_head.weight.numel()
    body = sum(p.numel() for p in model.transformer.h.parameters() if p.dim() == 2)
    held = tokenizer(workload.mixed())["input_ids"]
    generator = torch.Generator().manual_seed(1)
    drawn = [
        [held[i] for i in torch.randperm(len(held), generator=generator)[:N_DRAWN].tolist()]
        for _ in range(N_STEPS)
    ]
    n_held = sum(len(ids) for step in drawn for ids in step)
    in_layers = _n_beginnings(itertools.chain(*drawn))
    in_last_layer = sum(map(_n_beginnings, drawn))
    without = 3 * taught_in_step * N_STEPS * (body + head)
    learned = without + 3 * n_held * (body + head)
    as_done = learned + n_held * (body + head)
    return as_done / without, (learned + in_layers * body + in_last_layer * head) / without


def _n_beginnings(sequences: Iterable[Sequence[int]]) -> int:
    """How many there are of which something is predicted, each counted once."""
    return len({tuple(ids[:n]) for ids in sequences for n in range(len(ids))})


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
