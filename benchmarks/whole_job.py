"""A whole job, against how it is done otherwise: minutes for each row, so `run.py` leaves it out.

    python benchmarks/whole_job.py                      all rows
    python benchmarks/whole_job.py small-kl             some of them
    python benchmarks/whole_job.py --part 0.1           a tenth of the epochs and of the test lines

A job is what people do: load a model, teach it 160 sentences for some epochs, measure every token
of these and of 160 validation sentences in each epoch, and of all test sentences in the end, all of
it in a table on disk. It is compared with transformers' Trainer and minicons, which are there for
it, and with the loop that one writes with care. The floor is the products of matrices alone.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

import workload
from careful_loop import N_DRAWN, careful_loop
from measuring import Row, Worker, smallest_of
from trainer_and_minicons import trainer_and_minicons

SHARPENED_TO = 1.0
_EVERY = 4


@dataclass(frozen=True)
class Job:
    """How large a job is, and how its times are to compare.

    Attributes:
        shape: That of the model: ``small`` or ``smollm2``.
        n_taught: How many sentences it is taught, and how many it is validated on.
        n_tests: The lines of each test file.
        epochs: How often it sees them.
        with_kl: Whether a KL term against the untouched model is added.
        targets: At most so much of the time of each other way.
    """

    shape: str
    n_taught: int
    n_tests: tuple[int, ...]
    epochs: int
    with_kl: bool
    targets: dict[str, float]

    def part(self, share: float) -> Job:
        """A smaller one."""
        n_tests = tuple(max(round(n * share), 1) for n in self.n_tests)
        epochs = max(round(self.epochs * share), 1)
        return Job(self.shape, self.n_taught, n_tests, epochs, self.with_kl, self.targets)


TRAINER, LOOP, FLOOR = "Trainer and minicons", "a careful loop", "its matrix products"
JOBS = {
    "small": Job("small", 160, (1_536, 17_280), 10, False, {TRAINER: 0.18, LOOP: 0.14, FLOOR: 1.6}),
    "small-kl": Job("small", 160, (), 10, True, {TRAINER: 0.25, LOOP: 0.25, FLOOR: 1.6}),
    "smollm2": Job("smollm2", 64, (2_100,), 2, False, {TRAINER: 0.35, LOOP: 0.35, FLOOR: 1.6}),
    "smollm2-kl": Job("smollm2", 64, (), 2, True, {LOOP: 0.6}),
}
MAKERS = {TRAINER: "trainer", LOOP: "loop", FLOOR: "floor"}


def main() -> None:
    """Measure, and print a line for each row as soon as it is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("jobs", nargs="*", metavar="job", help=", ".join(JOBS))
    parser.add_argument("--part", type=float, default=1.0, help="how much of each job")
    parser.add_argument("--times", type=int, default=2, help="how often each is done")
    args = parser.parse_args()
    if unknown := set(args.jobs) - set(JOBS):
        parser.error(f"there is no job {', '.join(sorted(unknown))}")
    for name in args.jobs or JOBS:
        for row in rows_of(name, args.part, args.times):
            print(f"{row.what} | {row.against} | {row.value} | {row.target} | {row.met}")


def rows_of(name: str, part: float = 1.0, n_times: int = 2) -> Iterator[Row]:
    """The rows of one job: its time as part of each other way's, all taken in turn."""
    job, what = JOBS[name], f"whole job {name}"
    ways = {way: target for way, target in job.targets.items() if way != TRAINER or _has_minicons()}
    if len(ways) < len(job.targets):
        yield Row(what, TRAINER, "not measured: not installed", f"≤ {job.targets[TRAINER]:g}")
    makers = ["ours", *(MAKERS[way] for way in ways)]
    workers = [Worker("whole_job", maker, name=name, part=part) for maker in makers]
    try:
        ours, *others = smallest_of(workers, n_times)
    finally:
        for worker in workers:
            worker.__exit__()
    print(f"{name}: {makers} {[round(t, 1) for t in (ours, *others)]} s", file=sys.stderr)
    for (way, target), other in zip(ways.items(), others, strict=True):
        yield Row.at_most(what, way, ours / other, target)


def _has_minicons() -> bool:
    return importlib.util.find_spec("minicons") is not None


# Each side, in a process of its own


def ours(name: str, part: float) -> Callable[[], object]:
    """The job as a run of the product."""
    from finetune_lm.cli import main as finetune_lm

    workload.one_thread()
    _, args = arguments_of(name, part)

    def run() -> None:
        shutil.rmtree(workload.scratch_directory() / "out", ignore_errors=True)
        # Tokenized data that an earlier run has left would be a head start.
        assert finetune_lm([*args, "--overwrite_cache", "True"]) == 0

    return run


def arguments_of(name: str, part: float) -> tuple[str, list[str]]:
    """The model of a job, and the command line of its run."""
    job = JOBS[name].part(part)
    files, out, model = _files(job), workload.scratch_directory() / "out", _model(job.shape)
    args = ["--model_name_or_path", model, "--epochs", str(job.epochs), "--seed", "1"]
    args += ["--train_file", files["train"], "--validation_file", files["validation"]]
    args += ["--output_dir", str(out), "--save_best_model_state_to_disk", "False"]
    if job.n_tests:
        args += ["--test_file", f"json:{json.dumps(files['tests'])}"]
    if job.with_kl:
        kwargs = "--loss_classes_kwargs.train.KLBaselineLoss"
        args += ["--loss_classes.train", "loss_classes.OutputsDefaultLoss"]
        args += ["loss_classes.KLBaselineLoss", f"{kwargs}.dataset", files["kl"]]
    return model, args


def trainer(name: str, part: float) -> Callable[[], object]:
    """The job by transformers' Trainer, and by minicons for what tokens cost."""
    workload.one_thread()
    job = JOBS[name].part(part)
    return lambda: trainer_and_minicons(_model(job.shape), texts_of(job), job)


def loop(name: str, part: float) -> Callable[[], object]:
    """The job by a loop written with care."""
    workload.one_thread()
    job = JOBS[name].part(part)
    return lambda: careful_loop(_model(job.shape), texts_of(job), job)


def floor(name: str, part: float) -> Callable[[], object]:
    """The products of matrices that the job takes, each token and shared beginning once."""
    workload.one_thread(tuned=True)
    job = JOBS[name].part(part)
    model = transformers.AutoModelForCausalLM.from_pretrained(_model(job.shape))
    tokenizer, texts = workload.built_in_tokenizer(), texts_of(job)
    head = model.get_output_embeddings()
    body = [m.weight.data for m in model.modules() if _multiplies(m) and m is not head]

    def products(n: int, *, learns: bool) -> None:
        """Those of n tokens: forward, and for what is learned backward to inputs and weights."""
        for weight in (*body, head.weight.data):
            # GPT-2's layers hold their weights the other way round.
            matrix = weight if weight.shape[0] >= weight.shape[1] else weight.T
            inputs = torch.empty(n, matrix.shape[1]).normal_()
            outputs = inputs @ matrix.T
            if learns:
                torch.mm(outputs, matrix)
                torch.mm(outputs.T, inputs)

    def n_tokens(lines: Sequence[str]) -> int:
        return sum(len(ids) for ids in tokenizer(list(lines))["input_ids"])

    def n_distinct(lines: Sequence[str]) -> int:
        """How many beginnings there are, each counted once."""
        found = tokenizer(list(lines))["input_ids"]
        return len({tuple(ids[:n]) for ids in found for n in range(1, len(ids) + 1)})

    def compute() -> None:
        size = workload.BATCH_SIZE
        for _ in range(job.epochs):
            for begin in range(0, len(texts["train"]), size):
                products(n_tokens(texts["train"][begin : begin + size]), learns=True)
                if job.with_kl:
                    n = n_tokens(texts["kl"][:: len(texts["kl"]) // N_DRAWN][:N_DRAWN])
                    products(n, learns=True)
                    products(n, learns=False)
            products(n_distinct(texts["validation"]), learns=False)
        for lines in texts["tests"]:
            # Sixteen batches at a time, as the product does it.
            for begin in range(0, len(lines), 16 * size):
                products(n_distinct(lines[begin : begin + 16 * size]), learns=False)

    return compute


def _multiplies(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear | transformers.pytorch_utils.Conv1D)


# What they work on


def texts_of(job: Job) -> dict[str, Any]:
    """The sentences of a job: ``train``, ``validation``, ``tests`` (lists of them), ``kl``."""
    taught = workload.taught()[: job.n_taught]
    return {
        "train": taught,
        "validation": [text.replace("blorked", "been blorking") for text in taught],
        "tests": [workload.fillers()[-n:] for n in job.n_tests],
        "kl": workload.mixed(),
    }


def _files(job: Job) -> dict[str, Any]:
    directory = workload.scratch_directory()

    def write(name: str, lines: Sequence[str]) -> str:
        path = directory / f"{name}.txt.gz"
        path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
        metadata = [{"item": i // 6, "condition": "ab"[i % 2]} for i in range(len(lines))]
        text = "".join(f"{json.dumps(each)}\n" for each in metadata)
        (directory / f"{name}_metadata.json.gz").write_bytes(gzip.compress(text.encode()))
        return str(path)

    texts = texts_of(job)
    return {
        **{kind: write(kind, texts[kind]) for kind in ("train", "validation", "kl")},
        "tests": [write(f"test_{i}", lines) for i, lines in enumerate(texts["tests"])],
    }


@cache
def _model(shape: str) -> str:
    """A directory with a model, made on the spot."""
    directory = workload.scratch_directory() / shape
    model = workload.causal_model(shape) if shape == "small" else _smollm2()
    model.save_pretrained(directory)
    workload.built_in_tokenizer().save_pretrained(directory)
    return str(directory)


def _smollm2() -> Any:
    """A model of the shape of SmolLM2-135M whose losses are those of one that has learned.

    Its weights are random but for the last layer, which is fitted to what comes next in some of the
    sentences by least squares, and sharpened until these cost one nat a token or the least that
    they can: 1.7 nats, and the other sentences some 4. Otherwise nothing would be as likely as it
    is in a trained model, and the comparisons of fast ways with plain ones would be met by other
    numbers.
    """
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49_152,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    tokenizer = workload.built_in_tokenizer()
    texts = texts_of(JOBS["smollm2"])
    lines = [*texts["train"], *texts["validation"], *texts["tests"][0][::_EVERY]]
    with torch.no_grad():
        fed, following = [], []
        for ids in tokenizer(lines)["input_ids"]:
            hidden = model.model(torch.tensor([[0, *ids]])).last_hidden_state[0]
            fed.append(hidden[:-1])
            following.append(torch.tensor(ids))
        hidden, targets = torch.cat(fed), torch.cat(following)
        tokens, which = targets.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        squares = hidden.T @ hidden + torch.eye(config.hidden_size)
        of_each = torch.nn.functional.one_hot(which).float()
        weight = torch.zeros(config.vocab_size, config.hidden_size)
        weight[tokens] = torch.linalg.solve(squares, hidden.T @ of_each).T
        model.lm_head.weight.copy_(_sharpened(weight, hidden, targets))
    return model


def _sharpened(weight: Tensor, hidden: Tensor, targets: Tensor) -> Tensor:
    """Rows of a last layer, times what makes the targets cost `SHARPENED_TO` nats, or the least."""
    logits = hidden @ weight.T
    scales = np.geomspace(1e-2, 1e3, 60)
    costs = [float(torch.nn.functional.cross_entropy(logits * scale, targets)) for scale in scales]
    reached = [i for i, cost in enumerate(costs) if cost <= SHARPENED_TO]
    return weight * float(scales[reached[0] if reached else int(np.argmin(costs))])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
